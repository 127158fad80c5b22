"""Dense adversarial training: the baseline of the methods that compress."""

from collections.abc import Sequence

from atmc_core.errors import InvalidInput
from atmc_core.events import Emit
from atmc_core.job.inputs import Inputs
from atmc_core.job.method import TrainingMethod, check_weights
from atmc_core.job.pipeline import StagePlan
from atmc_core.job.planning import fit_epochs
from atmc_core.job.setup import TrainingSetup
from atmc_core.job.stages import PackStage
from atmc_core.training.effort import TrainingPlan
from atmc_spec.methods import DaSpec
from atmc_spec.names import FLOAT_BITS


class Dense(TrainingMethod):
    """Trains the dense network and writes it without compression."""

    def check(self, inputs: Inputs) -> None:
        """Check that the target asks for no compression.

        Raises:
            InvalidInput: if it asks for compression, k is out of range, or there are no weights.
        """
        check_weights(inputs)
        budget = inputs.budget
        budget.check()
        if budget.target.bits != FLOAT_BITS or not budget.holds_all():
            raise InvalidInput(
                "invalid_value",
                f"{self.name} does not compress: ask for density 1 and 32 bits, or another method",
                "target",
            )

    def plan(self, inputs: Inputs, emit: Emit) -> TrainingPlan:
        attack = self.attack(inputs.spec.threat)
        return fit_epochs(inputs, attack, super().plan(inputs, emit), ["robust_epochs"], emit)

    def after_dense(self, inputs: Inputs, setup: TrainingSetup) -> Sequence[StagePlan]:
        return [StagePlan("packing", 0, 0, lambda handover: PackStage(inputs, handover))]


da = Dense("da", "Dense adversarial training, no compression: density 1 and 32 bits", DaSpec)
