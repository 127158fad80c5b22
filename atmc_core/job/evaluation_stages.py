"""The stages that evaluate: one the uploaded classifier, one the artifact in a fresh process."""

from atmc_core import artifact
from atmc_core.artifact.budget import stored
from atmc_core.artifact.ordering import ordered
from atmc_core.evaluation.evaluator import Evaluator
from atmc_core.evaluation.process import FreshEvaluator
from atmc_core.job.handover import Handover, State
from atmc_core.job.inputs import Inputs
from atmc_core.job.pipeline import Stage
from atmc_core.job.stages import restore_compressed


class EvaluationStage(Stage):
    """Evaluates a classifier on the evaluated images."""

    evaluator: Evaluator | FreshEvaluator

    def run_epoch(self, index: int) -> dict[str, float]:
        return self.evaluator.run_portion(index)

    def state(self) -> State:
        return self.evaluator.state()

    def restore(self, state: State) -> None:
        self.evaluator.restore(state)


class UploadEvaluationStage(EvaluationStage):
    """Evaluates the uploaded classifier."""

    def __init__(self, inputs: Inputs) -> None:
        spec = inputs.spec
        self.evaluator = Evaluator(
            inputs.classifier,
            inputs.evaluated,
            spec.threat,
            spec.evaluation,
            inputs.num_classes,
            inputs.report_seed,
        )

    def finish(self, handover: Handover) -> None:
        handover.before = self.evaluator.state()


class ArtifactEvaluationStage(EvaluationStage):
    """Writes the artifact and evaluates it, as a fresh process reads it from the file."""

    evaluator: FreshEvaluator

    def __init__(self, inputs: Inputs, handover: Handover) -> None:
        spec = inputs.spec
        _write_artifact(inputs, handover)
        self.evaluator = FreshEvaluator(
            inputs.artifact,
            inputs.evaluated,
            spec.threat,
            spec.evaluation,
            inputs.report_seed,
        )

    def finish(self, handover: Handover) -> None:
        handover.after = self.evaluator.state()
        self.evaluator.close()


def _write_artifact(inputs: Inputs, handover: Handover) -> None:
    factors, k = restore_compressed(inputs, handover)
    if inputs.target.macs is not None:
        # The budget was one of multiply-adds, and the non-zeros had none.
        k = inputs.num_weights
    model = ordered(stored(inputs.compressed(factors, k), inputs.budget.structure))
    artifact.save(inputs.budget.trimmed(model), inputs.artifact)
