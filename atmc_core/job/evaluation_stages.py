"""The stages that evaluate: the upload, and the files of what was made of it in fresh processes."""

from pathlib import Path

from atmc_core import artifact
from atmc_core.artifact.budget import stored
from atmc_core.artifact.ordering import ordered
from atmc_core.evaluation.evaluator import Evaluator
from atmc_core.evaluation.process import FreshEvaluator
from atmc_core.job.handover import Handover, State
from atmc_core.job.inputs import Inputs
from atmc_core.job.pipeline import Stage
from atmc_core.job.stages import load_dense, restore_compressed


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


class FileEvaluationStage(EvaluationStage):
    """Evaluates an artifact, as a fresh process reads it from its file."""

    evaluator: FreshEvaluator

    def __init__(self, inputs: Inputs, path: Path) -> None:
        spec = inputs.spec
        self.evaluator = FreshEvaluator(
            path,
            inputs.evaluated,
            spec.threat,
            spec.evaluation,
            inputs.report_seed,
        )

    def finish(self, handover: Handover) -> None:
        self.evaluator.close()


class DenseEvaluationStage(FileEvaluationStage):
    """Writes the dense network that was made robust, and evaluates it."""

    def __init__(self, inputs: Inputs, handover: Handover) -> None:
        write_dense(inputs, handover)
        super().__init__(inputs, inputs.dense_artifact)

    def finish(self, handover: Handover) -> None:
        handover.dense = self.evaluator.state()
        super().finish(handover)


class ArtifactEvaluationStage(FileEvaluationStage):
    """Writes the compressed network, and evaluates it."""

    def __init__(self, inputs: Inputs, handover: Handover) -> None:
        _write_artifact(inputs, handover)
        super().__init__(inputs, inputs.artifact)

    def finish(self, handover: Handover) -> None:
        handover.after = self.evaluator.state()
        super().finish(handover)


def write_dense(inputs: Inputs, handover: Handover) -> None:
    """Write the file of the dense network."""
    load_dense(inputs, handover)
    artifact.save(inputs.dense(), inputs.dense_artifact)


def _write_artifact(inputs: Inputs, handover: Handover) -> None:
    factors, k = restore_compressed(inputs, handover)
    if inputs.target.macs is not None:
        # The budget was one of multiply-adds, and the non-zeros had none.
        k = inputs.num_weights
    model = ordered(stored(inputs.compressed(factors, k), inputs.budget.structure))
    artifact.save(inputs.budget.trimmed(model), inputs.artifact)
