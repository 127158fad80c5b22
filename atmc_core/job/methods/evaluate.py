"""Evaluation without compression: the report is of the uploaded model alone."""

from collections.abc import Sequence

from atmc_core.events import Emit
from atmc_core.job.inputs import Inputs
from atmc_core.job.method import Method, evaluate_upload
from atmc_core.job.pipeline import StagePlan
from atmc_core.training.effort import TrainingPlan
from atmc_spec.methods import EvaluateSpec


class Evaluate(Method):
    """Trains nothing and writes no artifact."""

    def check(self, inputs: Inputs) -> None:
        """Accept everything: whatever could be read can be evaluated."""

    def stages(self, inputs: Inputs, plan: TrainingPlan, emit: Emit) -> Sequence[StagePlan]:
        return [evaluate_upload(inputs)]


evaluate = Evaluate(
    "evaluate", "No compression: the report of the uploaded model alone", EvaluateSpec
)
