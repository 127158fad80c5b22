"""How long a job trains, as it was settled before its first step."""

from dataclasses import asdict, dataclass
from typing import Any

from atmc_spec import Effort


@dataclass(frozen=True)
class Recognition:
    """Whether the upload is robust already, and the validation accuracies that tell.

    Attributes:
        robust_accuracy: under the training attack.
        robust_accuracy_at_twice: the same at twice the radius.
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
    """What a job's training settled on; stays the same however often the job is resumed.

    Attributes:
        recognition: of methods that start from a robust network, if robust_epochs is not given.
        seconds_per_epoch: as measured, where there is a time budget.
    """

    effort: Effort
    recognition: Recognition | None = None
    seconds_per_epoch: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values, for checkpoints and the report."""
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
