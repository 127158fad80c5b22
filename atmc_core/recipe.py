"""The methods as rows of stages over the same parts: train, compress, finish, evaluate."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from atmc_core import artifact
from atmc_core.compression import AdmmWeights, SharedWeights, factorize
from atmc_core.config import JobSpec
from atmc_core.data import DataSet
from atmc_core.evaluation import Evaluator
from atmc_core.factorization import Factors, compressible_weights
from atmc_core.model import Classifier, Normalization
from atmc_core.pipeline import Carry, Plan, Stage
from atmc_core.training import DenseWeights, State, Trainable, Trainer, clone_state, robust_accuracy

#: Places in the run, for the random numbers.
_ROBUST, _COMPRESS, _FINISH, _SELECT, _REPORT = range(5)


@dataclass(frozen=True)
class Context:
    """What all stages of a job share; ``classifier`` is the uploaded one at the start."""

    spec: JobSpec
    data: DataSet
    classifier: Classifier
    architecture: str
    num_classes: int
    normalization: Normalization
    artifact: Path

    @property
    def num_weights(self) -> int:
        """N: the dense conv and linear weights."""
        parameters = dict(self.classifier.network.named_parameters())
        return sum(
            parameters[name].numel() for name in compressible_weights(self.classifier.network)
        )

    @property
    def k(self) -> int:
        return self.spec.target.budget(self.num_weights)


def plans(context: Context) -> list[Plan]:
    """The stages of the job's method, with the cost of a step in forward passes of one image."""
    spec, data = context.spec, context.data
    training, evaluation = spec.training, spec.evaluation
    # A backward pass costs about two forward ones; in the attack it needs no weights' gradients.
    attack = 2 * spec.threat.steps
    epoch = len(data.train) * (attack + 6) + len(data.val) * (attack + 1)
    batches = -(-len(data.test) // evaluation.batch_size)
    report = min(evaluation.batch_size, len(data.test)) * (
        4 + 2 * evaluation.pgd_steps * evaluation.pgd_restarts
    )
    return [
        Plan("evaluating_upload", batches, report, lambda carry: ReportStage(context, "before")),
        Plan("robust_training", training.robust_epochs, epoch, lambda carry: RobustStage(context)),
        Plan(
            "compressing",
            training.compression_epochs,
            epoch,
            lambda carry: CompressStage(context, carry),
        ),
        Plan("finishing", training.finish_epochs, epoch, lambda carry: FinishStage(context, carry)),
        Plan(
            "evaluating_artifact",
            batches,
            report,
            lambda carry: ReportStage(context, "after", _write_artifact(context, carry)),
        ),
    ]


class TrainingStage(Stage):
    """Trains, scores each eligible epoch on the validation split, and keeps the best.

    Adversarial training overfits robustly, so the last epoch is rarely the best (Rice et al.,
    2020).
    """

    def __init__(
        self, context: Context, net: Trainable, epochs: int, place: int, peak: float
    ) -> None:
        spec = context.spec
        self.context, self.net = context, net
        self.trainer = Trainer(
            net,
            context.data.train,
            spec.threat,
            spec.training.batch_size,
            epochs,
            peak=peak,
            path=(spec.seed, place),
        )
        self.best: State | None = None
        self.best_accuracy = -1.0

    def candidate(self) -> tuple[dict[str, Tensor], State] | None:
        """The weights to score after this epoch and the state to keep, or None if not eligible."""
        raise NotImplementedError

    def step(self, index: int) -> dict[str, float]:
        figures = {"loss": self.trainer.epoch(index)}
        accuracy = self.select()
        return figures if accuracy is None else figures | {"validation_robust_accuracy": accuracy}

    def select(self) -> float | None:
        """Score the candidate and keep it if it is the best so far; later ones win ties."""
        candidate = self.candidate()
        if candidate is None:
            return None
        weights, state = candidate
        spec = self.context.spec
        accuracy = robust_accuracy(
            self.context.classifier,
            weights,
            self.context.data.val,
            spec.threat,
            spec.evaluation.batch_size,
            (spec.seed, _SELECT),
        )
        if accuracy >= self.best_accuracy:
            self.best, self.best_accuracy = state, accuracy
        return accuracy

    def state(self) -> State:
        return {"net": self.net.state(), "best": self.best, "best_accuracy": self.best_accuracy}

    def restore(self, state: State) -> None:
        self.net.restore(state["net"])
        self.best, self.best_accuracy = state["best"], state["best_accuracy"]


class RobustStage(TrainingStage):
    """Adversarial training of the dense network (DA)."""

    def __init__(self, context: Context) -> None:
        training = context.spec.training
        net = DenseWeights(context.classifier, training)
        super().__init__(context, net, training.robust_epochs, _ROBUST, training.learning_rate)

    def candidate(self) -> tuple[dict[str, Tensor], State]:
        return {}, clone_state(self.context.classifier.network)

    def finish(self, carry: Carry) -> None:
        carry["network"] = self.best or clone_state(self.context.classifier.network)


class CompressStage(TrainingStage):
    """ADMM under both constraints, from the factors of the robust network."""

    net: AdmmWeights

    def __init__(self, context: Context, carry: Carry) -> None:
        spec, classifier = context.spec, context.classifier
        classifier.network.load_state_dict(carry["network"])
        factors = factorize(classifier, spec.training.rank_fraction)
        epochs = spec.training.compression_epochs
        steps = epochs * -(-len(context.data.train) // spec.training.batch_size)
        net = AdmmWeights(
            classifier,
            factors,
            k=context.k,
            bits=spec.target.bits,
            training=spec.training,
            steps=steps,
        )
        super().__init__(context, net, epochs, _COMPRESS, spec.training.learning_rate)

    def candidate(self) -> tuple[dict[str, Tensor], State] | None:
        if not self.net.at_target:
            return None
        return self.net.feasible_weights(), self.net.model_state()

    def finish(self, carry: Carry) -> None:
        assert self.best is not None  # the budget has shrunk to k before the last epoch ends
        carry["compressed"] = self.best


class FinishStage(TrainingStage):
    """Fine-tuning of shared values, biases and norms: feasible before, during and after."""

    net: SharedWeights

    def __init__(self, context: Context, carry: Carry) -> None:
        spec, classifier = context.spec, context.classifier
        net = SharedWeights(
            classifier,
            restored_factors(context, carry["compressed"]),
            bits=spec.target.bits,
            training=spec.training,
        )
        epochs = spec.training.finish_epochs
        super().__init__(context, net, epochs, _FINISH, 0.2 * spec.training.learning_rate)
        self.select()

    def candidate(self) -> tuple[dict[str, Tensor], State]:
        return self.net.weights(), self.net.model_state()

    def finish(self, carry: Carry) -> None:
        carry["compressed"] = self.best


class ReportStage(Stage):
    """Evaluates a classifier on the test split, batch by batch."""

    def __init__(self, context: Context, when: str, classifier: Classifier | None = None) -> None:
        spec = context.spec
        self.when = when
        self.evaluator = Evaluator(
            classifier or context.classifier,
            context.data.test,
            spec.threat,
            spec.evaluation,
            spec.seed + _REPORT,
        )

    def step(self, index: int) -> dict[str, float]:
        return self.evaluator.batch(index)

    def finish(self, carry: Carry) -> None:
        carry[self.when] = self.evaluator.figures()

    def state(self) -> State:
        return {"hits": self.evaluator.hits}

    def restore(self, state: State) -> None:
        self.evaluator.hits = state["hits"]


def restored_factors(context: Context, compressed: State) -> dict[str, Factors]:
    """The factors that a checkpoint or an earlier stage holds as a flat list; loads the rest."""
    classifier = context.classifier
    classifier.network.load_state_dict(compressed["network"])
    device = next(classifier.parameters()).device
    parts = iter(compressed["factors"])
    return {
        name: Factors(view, *(next(parts).to(device) for _ in range(3)))
        for name, view in compressible_weights(classifier.network).items()
    }


def _write_artifact(context: Context, carry: Carry) -> Classifier:
    """Encode the result to disk and read it back: what is evaluated is what is delivered."""
    factors = restored_factors(context, carry["compressed"])
    target = context.spec.target
    model = artifact.CompressedModel(
        architecture=context.architecture,
        num_classes=context.num_classes,
        normalization=context.normalization,
        factors=factors,
        others=artifact.float_state(context.classifier.network, factors),
        bits=target.bits,
        k=context.k,
    )
    artifact.save(model, context.artifact)
    decoded = artifact.load(context.artifact).classifier()
    return decoded.to(next(context.classifier.parameters()).device)
