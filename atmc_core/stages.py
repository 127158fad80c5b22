"""The stages of a job at work: train, compress, finish, evaluate."""

from abc import abstractmethod

from torch import Tensor

from atmc_core import artifact, seeding
from atmc_core.compression import AdmmWeights, FactorizedWeights, SharedWeights
from atmc_core.context import COMPRESS, DENSE, FINISH, SELECT, Context
from atmc_core.evaluation import Evaluator
from atmc_core.evaluation_process import FreshEvaluator
from atmc_core.factorization import Factors, compressible_weights, dense_weights
from atmc_core.pipeline import Carry, Stage
from atmc_core.projection import keep_largest
from atmc_core.training import (
    DenseWeights,
    State,
    Trainable,
    Trainer,
    clone_state,
    selection_accuracy,
    steps_per_epoch,
)


def seed(context: Context, carry: Carry) -> dict[str, Factors]:
    """The factors of the trained dense network, as the method starts from them."""
    network = context.classifier.network
    network.load_state_dict(carry["network"])
    weights = dense_weights(network)
    if context.system.factors == "factorised":
        return seeding.interpolative(weights, context.spec.training.rank_fraction)
    if context.system.factors == "low_rank":
        return seeding.low_rank(weights, context.k)
    return seeding.plain(weights)


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
            context.attack,
            spec.training.batch_size,
            epochs,
            peak=peak,
            path=(spec.seed, place),
        )
        self.best: State | None = None
        self.best_accuracy = -1.0

    @abstractmethod
    def candidate(self) -> tuple[dict[str, Tensor], State] | None:
        """What to score after this epoch and the state to keep, or None if it is not eligible.

        Scored are the network's weights, and instead of those the given ones, by name.
        """

    def step(self, index: int) -> dict[str, float]:
        figures = {"loss": self.trainer.epoch(index)}
        accuracy = self.select()
        return figures if accuracy is None else figures | {"validation_accuracy": accuracy}

    def select(self) -> float | None:
        """Score the candidate and keep it if it is the best so far; later ones win ties."""
        candidate = self.candidate()
        if candidate is None:
            return None
        weights, state = candidate
        spec = self.context.spec
        accuracy = selection_accuracy(
            self.context.classifier,
            weights,
            self.context.data.val,
            self.context.attack,
            spec.evaluation.batch_size,
            (spec.seed, SELECT),
        )
        if accuracy >= self.best_accuracy:
            self.best, self.best_accuracy = state, accuracy
        return accuracy

    def state(self) -> State:
        return {"net": self.net.state(), "best": self.best, "best_accuracy": self.best_accuracy}

    def restore(self, state: State) -> None:
        self.net.restore(state["net"])
        self.best, self.best_accuracy = state["best"], state["best_accuracy"]


class DenseStage(TrainingStage):
    """Training of the dense network: adversarial (DA), or clean."""

    def __init__(self, context: Context) -> None:
        training = context.spec.training
        net = DenseWeights(context.classifier, training)
        super().__init__(context, net, training.robust_epochs, DENSE, training.learning_rate)

    def candidate(self) -> tuple[dict[str, Tensor], State]:
        return {}, clone_state(self.context.classifier.network)

    def finish(self, carry: Carry) -> None:
        carry["network"] = self.best or clone_state(self.context.classifier.network)


class PackStage(Stage):
    """No compression: the dense network as factors, nothing changed."""

    def __init__(self, context: Context, carry: Carry) -> None:
        self.net = FactorizedWeights(context.classifier, seed(context, carry))

    def step(self, index: int) -> dict[str, float]:
        raise IndexError(index)

    def finish(self, carry: Carry) -> None:
        carry["compressed"] = self.net.model_state()

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        pass


class MovingStage(TrainingStage):
    """ADMM under both constraints; the support is chosen again after every step."""

    net: AdmmWeights

    def __init__(self, context: Context, carry: Carry) -> None:
        spec = context.spec
        epochs = spec.training.compression_epochs
        net = AdmmWeights(
            context.classifier,
            seed(context, carry),
            k=context.k,
            bits=context.target.bits,
            training=spec.training,
            steps=epochs * steps_per_epoch(context.data.train, spec.training.batch_size),
        )
        super().__init__(context, net, epochs, COMPRESS, spec.training.learning_rate)

    def candidate(self) -> tuple[dict[str, Tensor], State] | None:
        if not self.net.at_target:
            return None
        return self.net.feasible_weights(), self.net.model_state()

    def finish(self, carry: Carry) -> None:
        assert self.best is not None  # the budget has shrunk to k before the last epoch ends
        carry["compressed"] = self.best


class FixedStage(TrainingStage):
    """Fine-tuning in float32 of a support that is chosen once, by size."""

    net: SharedWeights

    def __init__(self, context: Context, carry: Carry) -> None:
        training = context.spec.training
        factors = seed(context, carry)
        tensors = [f.tensors[role] for f in factors.values() for role in f.used]
        for tensor, mask in zip(
            tensors, keep_largest([t.abs() for t in tensors], context.k), strict=True
        ):
            tensor.mul_(mask)
        net = SharedWeights(context.classifier, factors, bits=32, training=training)
        epochs = training.compression_epochs
        super().__init__(context, net, epochs, COMPRESS, training.learning_rate)

    def candidate(self) -> tuple[dict[str, Tensor], State]:
        return {}, self.net.model_state()

    def finish(self, carry: Carry) -> None:
        carry["compressed"] = self.best


class FinishStage(TrainingStage):
    """Fine-tuning of shared values, biases and norms: feasible before, during and after."""

    net: SharedWeights

    def __init__(self, context: Context, carry: Carry) -> None:
        spec, classifier = context.spec, context.classifier
        net = SharedWeights(
            classifier,
            restored_factors(context, carry["compressed"]),
            bits=context.target.bits,
            training=spec.training,
        )
        epochs = spec.training.finish_epochs
        super().__init__(context, net, epochs, FINISH, 0.2 * spec.training.learning_rate)
        self.select()

    def candidate(self) -> tuple[dict[str, Tensor], State]:
        return {}, self.net.model_state()

    def finish(self, carry: Carry) -> None:
        carry["compressed"] = self.best


class ReportStage(Stage):
    """Evaluates a classifier on the chosen images, step by step.

    Attributes:
        when: the name under which it leaves what it found.
    """

    when: str
    evaluator: Evaluator | FreshEvaluator

    def step(self, index: int) -> dict[str, float]:
        return self.evaluator.step(index)

    def finish(self, carry: Carry) -> None:
        carry[self.when] = self.evaluator.state()

    def state(self) -> State:
        return self.evaluator.state()

    def restore(self, state: State) -> None:
        self.evaluator.restore(state)


class UploadReportStage(ReportStage):
    """Evaluates the uploaded classifier."""

    when = "before"

    def __init__(self, context: Context) -> None:
        spec = context.spec
        self.evaluator = Evaluator(
            context.classifier,
            context.evaluated,
            spec.threat,
            spec.evaluation,
            context.num_classes,
            context.report_seed,
        )


class ArtifactReportStage(ReportStage):
    """Writes the artifact, and evaluates what a fresh process reads from it."""

    when = "after"
    evaluator: FreshEvaluator

    def __init__(self, context: Context, carry: Carry) -> None:
        spec = context.spec
        _write_artifact(context, carry)
        self.evaluator = FreshEvaluator(
            context.artifact,
            context.evaluated,
            spec.threat,
            spec.evaluation,
            context.report_seed,
        )

    def finish(self, carry: Carry) -> None:
        super().finish(carry)
        self.evaluator.close()


def restored_factors(context: Context, compressed: State) -> dict[str, Factors]:
    """The factors that a checkpoint or an earlier stage holds as a flat list; loads the rest."""
    classifier = context.classifier
    classifier.network.load_state_dict(compressed["network"])
    device = next(classifier.parameters()).device
    plain = context.system.factors == "plain"
    parts = iter(compressed["factors"])
    factors = {}
    for name, view in compressible_weights(classifier.network).items():
        u, v, c = (next(parts).to(device) for _ in range(3))
        factors[name] = Factors(view, u, v, c, plain)
    return factors


def _write_artifact(context: Context, carry: Carry) -> None:
    factors = restored_factors(context, carry["compressed"])
    model = artifact.CompressedModel(
        architecture=context.architecture,
        num_classes=context.num_classes,
        normalization=context.normalization,
        factors=factors,
        others=artifact.float_state(context.classifier.network, factors),
        bits=context.target.bits,
        k=context.k,
    )
    artifact.save(model, context.artifact)
