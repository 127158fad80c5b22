"""What the stages of a job hand on, from one to the next and into checkpoints."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from atmc_core.training.effort import TrainingPlan

State = dict[str, Any]


@dataclass(frozen=True)
class CompressedState:
    """A compressed network, as tensors and plain values.

    Attributes:
        factors: the state of each weight's factors, in the network's order (``Factors.state``).
        network: the state dict of the whole network, composed.
        k: the budget that the factors keep to.
    """

    factors: list[State]
    network: dict[str, Tensor]
    k: int


@dataclass
class Handover:
    """What the stages so far have made; each stage adds its own.

    Attributes:
        plan: how long training takes; chosen once, so that a resumed job does not choose again.
        seconds: the time that all epochs took, over all attempts.
        before: what the evaluation of the upload found (see ``Evaluator``).
        network: the state dict of the dense network.
        compressed: the compressed network.
        after: what the evaluation of the artifact found.
    """

    plan: TrainingPlan
    seconds: float = 0.0
    before: State | None = None
    network: dict[str, Tensor] | None = None
    compressed: CompressedState | None = None
    after: State | None = None

    def state(self) -> State:
        """All of it as tensors and plain values, none of them copied."""
        return vars(self) | {
            "plan": self.plan.to_json(),
            "compressed": vars(self.compressed) if self.compressed else None,
        }

    @classmethod
    def from_state(cls, state: State) -> "Handover":
        """The inverse of ``state``."""
        compressed = state["compressed"]
        parts = {
            "plan": TrainingPlan.from_json(state["plan"]),
            "compressed": CompressedState(**compressed) if compressed else None,
        }
        return cls(**(state | parts))
