"""How long a job trains; this is settled before its first step."""

from dataclasses import asdict, dataclass
from typing import Any

from atmc_spec import Effort


@dataclass(frozen=True)
class Recognition:
    """Whether the uploaded network is robust already, and the accuracies that decide it.

    Attributes:
        images: the number of validation images that the accuracies are measured on.
        clean_accuracy: the accuracy without an attack, in [0, 1].
        robust_accuracy: the accuracy under the training attack.
        robust_accuracy_at_twice: the accuracy under the training attack at twice its radius.
        robust: the decision.
    """

    images: int
    clean_accuracy: float
    robust_accuracy: float
    robust_accuracy_at_twice: float
    robust: bool

    def words(self) -> str:
        """The finding in a sentence."""
        found = "is robust already and kept" if self.robust else "is not robust yet"
        return (
            f"the upload {found}: {self.clean_accuracy:.3f} right on clean validation images, "
            f"{self.robust_accuracy:.3f} under the training attack, "
            f"{self.robust_accuracy_at_twice:.3f} at twice its radius"
        )


@dataclass(frozen=True)
class TrainingPlan:
    """How long a job trains, and why; it stays the same however often the job is resumed.

    Attributes:
        effort: the numbers of epochs.
        recognition: whether the upload is robust already; None for methods that do not start from
            a robust network, and if the spec gives ``robust_epochs``.
        seconds_per_epoch: the measured time of an epoch; None if the spec gives no
            ``time_budget_s``.
    """

    effort: Effort
    recognition: Recognition | None = None
    seconds_per_epoch: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values, for checkpoints and the report."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "TrainingPlan":
        """The inverse of ``to_json``."""
        found = document["recognition"]
        return cls(
            Effort(**document["effort"]),
            Recognition(**found) if found else None,
            document["seconds_per_epoch"],
        )
