"""The stages of a job at work: train, compress, finish, evaluate."""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import nullcontext

from torch import Tensor

from atmc_core import artifact
from atmc_core.artifact.budget import stored
from atmc_core.data import Augmentation
from atmc_core.evaluation.evaluator import Evaluator
from atmc_core.evaluation.process import FreshEvaluator
from atmc_core.factors import splitting
from atmc_core.factors.factors import Factors
from atmc_core.factors.views import compressible_weights, dense_weights
from atmc_core.job.context import COMPRESS, DENSE, FINISH, SELECT, Context
from atmc_core.job.pipeline import Carry, Stage
from atmc_core.job.solving import admm_options, optimizer_of
from atmc_core.networks.state_dict import clone_state, load_tensors
from atmc_core.solver.admm import AdmmWeights
from atmc_core.solver.shared import SharedWeights
from atmc_core.solver.support import Structure, Weights
from atmc_core.solver.weights import DenseWeights, FactorizedWeights, State, Trainable
from atmc_core.training.averaging import WeightAverage, equal, exponential
from atmc_core.training.trainer import Course, Trainer, selection_accuracy, steps_per_epoch

# The end game's peak learning rate, as a share of the other stages': it only refines.
_FINISHING_RATE = 0.2
# Share of a stage's steps, the last ones, that are averaged with equal weights.
_AVERAGED = 0.25


def seed(context: Context, carry: Carry) -> Callable[[int], Weights]:
    """The factors of the trained dense network as the method starts from them, for a budget of k.

    Only low rank depends on k; the others are cut to it later.
    """
    network = context.classifier.network
    load_tensors(network, carry["network"])
    weights = dense_weights(network)
    if context.system.factors == "low_rank":
        return lambda k: splitting.low_rank(weights, k)
    if context.system.factors == "factorised":
        factors = splitting.interpolative(weights, context.spec.training.rank_fraction)
    else:
        factors = splitting.plain(weights)
    return lambda k: factors


class TrainingStage(Stage):
    """Trains, scores each eligible epoch on the validation split, and keeps the best.

    Adversarial training overfits robustly, so the last epoch is rarely the best (Rice et al.,
    2020).
    """

    def __init__(
        self,
        context: Context,
        net: Trainable,
        epochs: int,
        place: int,
        peak: float,
        structure: Structure | None = None,
    ) -> None:
        training, effort = context.spec.training, context.effort
        self.context, self.net, self.structure = context, net, structure or Structure()
        self.structure.silence(context.classifier.network)
        course = Course(
            attack=context.inner_attack,
            loss=context.loss,
            schedule=effort.schedule,
            batch_size=training.batch_size,
            epochs=epochs,
            peak=peak,
            path=(context.spec.seed, place),
            max_grad_norm=training.max_grad_norm,
            speed=context.speed,
            augmentation=Augmentation(training.flip, training.shift),
        )
        self.trainer = Trainer(context.classifier, net, context.data.train, course, self.after_step)
        self.average = None
        if effort.averaging != "none":
            ema = effort.averaging == "ema"
            start = self.trainer.steps - round(_AVERAGED * self.trainer.steps)
            self.average = WeightAverage(
                net, exponential(training.ema_decay) if ema else equal(start)
            )
        self.best: State | None = None
        self.best_accuracy = -1.0

    def after_step(self) -> None:
        """What each step leaves to do."""
        self.structure.silence(self.context.classifier.network)
        if self.average:
            self.average.update()

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
        with self.average.applied() if self.average else nullcontext():
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
        state = {
            "net": self.net.state(),
            "structure": self.structure.state(),
            "best": self.best,
            "best_accuracy": self.best_accuracy,
        }
        return state | ({"average": self.average.state()} if self.average else {})

    def restore(self, state: State) -> None:
        self.net.restore(state["net"])
        self.structure.restore(state["structure"])
        self.best, self.best_accuracy = state["best"], state["best_accuracy"]
        if self.average:
            self.average.restore(state["average"])


class DenseStage(TrainingStage):
    """Training of the dense network: adversarial (DA), or clean."""

    def __init__(self, context: Context) -> None:
        training, epochs = context.spec.training, context.effort.robust_epochs
        net = DenseWeights(context.classifier.network, optimizer_of(training))
        super().__init__(context, net, epochs, DENSE, training.learning_rate)
        if epochs:
            self.select()  # training must not make the upload worse

    def candidate(self) -> tuple[dict[str, Tensor], State]:
        return {}, clone_state(self.context.classifier.network)

    def finish(self, carry: Carry) -> None:
        carry["network"] = self.best or clone_state(self.context.classifier.network)


class PackStage(Stage):
    """No compression: the dense network as factors, nothing changed."""

    def __init__(self, context: Context, carry: Carry) -> None:
        self.k = context.num_weights
        self.net = FactorizedWeights(context.classifier.network, seed(context, carry)(self.k))

    def step(self, index: int) -> dict[str, float]:
        raise IndexError(index)

    def finish(self, carry: Carry) -> None:
        carry["compressed"] = self.net.model_state() | {"k": self.k}

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        pass


class MovingStage(TrainingStage):
    """ADMM under both constraints; the support is chosen again after every step."""

    net: AdmmWeights

    def __init__(self, context: Context, carry: Carry) -> None:
        training, epochs = context.spec.training, context.effort.compression_epochs
        factors = seed(context, carry)(context.num_weights)
        structure = context.new_structure()
        net = AdmmWeights(
            context.classifier.network,
            factors,
            k=context.budget.largest(lambda k: structure.supports(factors, k)),
            bits=context.target.bits,
            steps=epochs * steps_per_epoch(context.data.train, training.batch_size),
            options=admm_options(training),
            optimizer=optimizer_of(training),
            structure=structure,
        )
        super().__init__(context, net, epochs, COMPRESS, training.learning_rate, structure)

    def select(self) -> float | None:
        # What fits a file or a ratio depends on where the non-zeros are now.
        factors = self.net.factors
        self.net.aim_at(self.context.budget.largest(lambda k: self.structure.supports(factors, k)))
        self.structure.silence(self.context.classifier.network)
        return super().select()

    def candidate(self) -> tuple[dict[str, Tensor], State] | None:
        if not self.net.at_target:
            return None
        return self.net.feasible_weights(), self.net.model_state() | {"k": self.net.k}

    def finish(self, carry: Carry) -> None:
        assert self.best is not None  # the budget has shrunk to k before the last epoch ends
        carry["compressed"] = self.best


class FixedStage(TrainingStage):
    """Fine-tuning in float32 of a support that is chosen once, by size."""

    net: SharedWeights

    def __init__(self, context: Context, carry: Carry) -> None:
        training, epochs = context.spec.training, context.effort.compression_epochs
        seeded = seed(context, carry)

        structure = context.new_structure()

        def kept(k: int) -> Weights:
            return structure.supports(seeded(k), k)

        self.k = context.budget.largest(kept)
        factors = seeded(self.k)
        structure.shrink(factors, self.k)
        net = SharedWeights(
            context.classifier.network, factors, bits=32, optimizer=optimizer_of(training)
        )
        super().__init__(context, net, epochs, COMPRESS, training.learning_rate, structure)

    def candidate(self) -> tuple[dict[str, Tensor], State]:
        return {}, self.net.model_state() | {"k": self.k}

    def finish(self, carry: Carry) -> None:
        carry["compressed"] = self.best


class FinishStage(TrainingStage):
    """Fine-tuning of shared values, biases and norms: feasible before, during and after."""

    net: SharedWeights

    def __init__(self, context: Context, carry: Carry) -> None:
        training, epochs = context.spec.training, context.effort.finish_epochs
        factors = restored_factors(context, carry["compressed"])
        self.k: int = carry["compressed"]["k"]
        net = SharedWeights(
            context.classifier.network,
            factors,
            bits=context.target.bits,
            optimizer=optimizer_of(training),
        )
        structure = context.new_structure()
        structure.read(factors)
        peak = _FINISHING_RATE * training.learning_rate
        super().__init__(context, net, epochs, FINISH, peak, structure)
        self.select()

    def candidate(self) -> tuple[dict[str, Tensor], State]:
        return {}, self.net.model_state() | {"k": self.k}

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
    """The factors that an earlier stage left; loads the rest of the network."""
    network = context.classifier.network
    load_tensors(network, compressed["network"])
    views = compressible_weights(network)
    device = next(network.parameters()).device
    return {
        name: Factors.from_state(view, state, device)
        for (name, view), state in zip(views.items(), compressed["factors"], strict=True)
    }


def _write_artifact(context: Context, carry: Carry) -> None:
    factors = restored_factors(context, carry["compressed"])
    model = context.compressed(factors, k=carry["compressed"]["k"])
    model = stored(model, context.budget.structure)
    artifact.save(context.budget.trimmed(model), context.artifact)
