"""What the stages of a job hand on to the next ones, and into checkpoints."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from atmc_core.training.effort import TrainingPlan

State = dict[str, Any]


@dataclass(frozen=True)
class CompressedState:
    """A compressed network, as tensors and plain values.

    Attributes:
        factors: the state of each weight's factors (``Factors.state``), in the network's order.
        network: the state dict of the whole network, with weights composed of the factors.
        k: the number of non-zeros that the factors may have, and keep to.
    """

    factors: list[State]
    network: dict[str, Tensor]
    k: int


@dataclass
class Handover:
    """The results of the stages so far; each stage adds its own.

    Attributes:
        plan: how long training takes. It is chosen once, so a resumed job does not choose again.
        seconds: the time that all epochs took, in all attempts together.
        before: the figures of the upload's evaluation (``Evaluator.state``).
        network: the state dict of the trained dense network.
        dense: the figures of that network's evaluation, if it has one.
        compressed: the compressed network.
        after: the figures of the artifact's evaluation (``Evaluator.state``).
        stage_began: what ``seconds`` was when the present stage began.
        reused: for each stage that was taken from another job its name (``stage``), the ``job_id``
            and the ``seconds`` that it took there, which are not in ``seconds``.
    """

    plan: TrainingPlan
    seconds: float = 0.0
    before: State | None = None
    network: dict[str, Tensor] | None = None
    dense: State | None = None
    compressed: CompressedState | None = None
    after: State | None = None
    stage_began: float = 0.0
    reused: list[State] = field(default_factory=list)

    def state(self) -> State:
        """The handover as tensors and plain values, which are not copied."""
        return vars(self) | {
            "plan": self.plan.to_json(),
            "compressed": vars(self.compressed) if self.compressed else None,
        }

    def take(self, field: str, state: Any) -> None:
        """Set a field from its part of a ``state``."""
        setattr(self, field, CompressedState(**state) if field == "compressed" else state)

    @classmethod
    def from_state(cls, state: State) -> "Handover":
        """The inverse of ``state``."""
        compressed = state["compressed"]
        parts = {
            "plan": TrainingPlan.from_json(state["plan"]),
            "compressed": CompressedState(**compressed) if compressed else None,
        }
        return cls(**(state | parts))
