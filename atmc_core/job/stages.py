"""The stages that train: the dense network, the network under the constraints, the end game."""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import nullcontext

from torch import Tensor

from atmc_core.compressor import Compressor
from atmc_core.data import Augmentation
from atmc_core.factors import splitting
from atmc_core.factors.factors import Factors, NamedFactors
from atmc_core.factors.views import compressible_weights, dense_weights
from atmc_core.job.handover import CompressedState, Handover, State
from atmc_core.job.inputs import Inputs
from atmc_core.job.pipeline import Stage
from atmc_core.job.setup import TrainingSetup
from atmc_core.job.solving import compressor, optimizer_of
from atmc_core.job.streams import COMPRESS, DENSE, FINISH, SELECT
from atmc_core.networks.state_dict import clone_state, load_tensors
from atmc_core.solver.weights import DenseWeights, FactorizedWeights, Trainable
from atmc_core.training.averaging import WeightAverage, equal, exponential
from atmc_core.training.intervals import IntervalSchedule, proven_share
from atmc_core.training.teacher import Teacher
from atmc_core.training.trainer import Trainer, TrainerOptions, selection_accuracy, steps_per_epoch
from atmc_spec import JobSpec
from atmc_spec.names import FLOAT_BITS

#: The factors that a method starts from, for a budget of k non-zeros. Those of low rank depend on
#: k; the other methods' have more non-zeros, which the solver prunes to k.
FactorsFor = Callable[[int], NamedFactors]
#: Makes these factors from the dense weights.
Start = Callable[[splitting.ViewedWeights, JobSpec], FactorsFor]

# The end game's peak learning rate as a share of the other stages' peak, since it only refines.
_FINISHING_RATE = 0.2
# The share of a stage's steps at its end that ``swa`` averages, with equal weights.
_AVERAGED = 0.25
# The best accuracy before any candidate was scored, which every accuracy exceeds.
_UNSCORED = -1.0


def load_dense(inputs: Inputs, handover: Handover) -> splitting.ViewedWeights:
    """Load the dense network that an earlier stage handed over.

    Returns:
        Its conv and linear weights with their views, by name.
    """
    assert handover.network is not None
    network = inputs.classifier.network
    load_tensors(network, handover.network)
    return dense_weights(network)


def starting_factors(inputs: Inputs, handover: Handover, start: Start) -> FactorsFor:
    """The factors that compression starts from: of the dense network, or of a denser one's file.

    The network has the weights, biases and norms of the one or the other afterwards.
    """
    weights = load_dense(inputs, handover)
    if inputs.denser is None:
        return start(weights, inputs.spec)
    network = inputs.classifier.network
    inputs.denser.load_into(inputs.classifier, inputs.data.train)
    split = start(dense_weights(network), inputs.spec)
    own = inputs.denser.factors(inputs.device)
    # A method that does not factorise prunes the weights that the denser network's factors compose.
    if own is None or all(each.plain for each in split(inputs.num_weights).values()):
        return split
    return lambda k: own


class TrainingStage(Stage):
    """Trains, scores every eligible epoch on the validation split, and keeps the best.

    In long adversarial training, robustness on new images falls again, so the last epoch is rarely
    the best (Rice et al., 2020).

    Args:
        net: the weights to train, those of the inputs' classifier.
        epochs: how many epochs the stage has.
        stream: the number of the stage's random stream (``streams``).
        peak_rate: the highest learning rate.
        teacher: makes the labels soft; None trains on the true ones.
    """

    def __init__(
        self,
        inputs: Inputs,
        setup: TrainingSetup,
        net: Trainable,
        epochs: int,
        stream: int,
        peak_rate: float,
        teacher: Teacher | None = None,
    ) -> None:
        training, effort = inputs.spec.training, setup.plan.effort
        self.inputs, self.setup, self.net = inputs, setup, net
        options = TrainerOptions(
            attack=setup.inner_attack,
            loss=setup.loss,
            schedule=effort.schedule,
            batch_size=training.batch_size,
            epochs=epochs,
            peak_rate=peak_rate,
            stream=(inputs.spec.seed, stream),
            max_grad_norm=training.max_grad_norm,
            speed=setup.speed,
            augmentation=Augmentation(training.flip, training.shift),
            teacher=teacher,
            intervals=self.intervals(),
        )
        self.trainer = Trainer(inputs.classifier, net, inputs.data.train, options, self.after_step)
        self.average = None
        if effort.averaging != "none":
            ema = effort.averaging == "ema"
            start = self.trainer.steps - round(_AVERAGED * self.trainer.steps)
            self.average = WeightAverage(
                net, exponential(training.ema_decay) if ema else equal(start)
            )
        self.best: State | None = None
        self.best_accuracy = _UNSCORED

    def intervals(self) -> IntervalSchedule | None:
        """How a stage is trained for proof: by a radius that grows; None trains by the loss.

        It grows anew while a network is compressed. One that loses its weights at the full radius
        hardly recovers: all it bounds is too wide.
        """
        return self.setup.intervals and self.setup.intervals.growing()

    def after_step(self) -> None:
        """Update the weight average, if there is one."""
        if self.average:
            self.average.update()

    @abstractmethod
    def candidate(self) -> tuple[dict[str, Tensor], State] | None:
        """The weights to score after an epoch, and the state to keep if they are the best.

        Returns:
            The tensors that replace those of the network for scoring, by name, and the state; None
            if the epoch is not eligible.
        """

    def run_epoch(self, index: int) -> dict[str, float]:
        figures = {"loss": self.trainer.run_epoch(index)}
        accuracy = self.select()
        if accuracy is None:
            return figures
        images = len(self.inputs.data.val)
        return figures | {"validation_accuracy": accuracy, "validation_images": images}

    def select(self) -> float | None:
        """Score the candidate, and keep its state if none before was better.

        Returns:
            Its accuracy on the validation split, or None if the epoch is not eligible.
        """
        with self.average.applied() if self.average else nullcontext():
            candidate = self.candidate()
            if candidate is None:
                return None
            weights, state = candidate
            spec = self.inputs.spec
            scored = self.inputs.classifier, weights, self.inputs.data.val
            size = spec.evaluation.batch_size
            if self.setup.intervals:
                accuracy = proven_share(*scored, spec.threat.epsilon, size)
            else:
                stream = (spec.seed, SELECT)
                accuracy = selection_accuracy(*scored, self.setup.attack, size, stream)
        if accuracy >= self.best_accuracy:
            self.best, self.best_accuracy = state, accuracy
        return accuracy

    def state(self) -> State:
        state = {
            "net": self.net.state_dict(),
            "best": self.best,
            "best_accuracy": self.best_accuracy,
        }
        return state | ({"average": self.average.state_dict()} if self.average else {})

    def restore(self, state: State) -> None:
        self.net.load_state_dict(state["net"])
        self.best, self.best_accuracy = state["best"], state["best_accuracy"]
        if self.average:
            self.average.load_state_dict(state["average"])


class DenseStage(TrainingStage):
    """Trains the dense network, on adversarial images or on clean ones."""

    def __init__(self, inputs: Inputs, setup: TrainingSetup) -> None:
        training, epochs = inputs.spec.training, setup.plan.effort.robust_epochs
        net = DenseWeights(inputs.classifier.network, optimizer_of(training))
        super().__init__(inputs, setup, net, epochs, DENSE, training.peak_rate)
        if epochs:
            self.select()  # the upload is a candidate, so that training cannot make it worse

    def candidate(self) -> tuple[dict[str, Tensor], State]:
        return {}, clone_state(self.inputs.classifier.network)

    def finish(self, handover: Handover) -> None:
        handover.network = self.best or clone_state(self.inputs.classifier.network)


class PackStage(Stage):
    """Hands the dense network over as factors, without compression; it has no epochs."""

    def __init__(self, inputs: Inputs, handover: Handover) -> None:
        self.k = inputs.num_weights
        factors = splitting.plain(load_dense(inputs, handover))
        self.net = FactorizedWeights(inputs.classifier.network, factors)

    def run_epoch(self, index: int) -> dict[str, float]:
        """Raise, because the stage has no epochs."""
        raise IndexError(index)

    def finish(self, handover: Handover) -> None:
        handover.compressed = CompressedState(**self.net.model_state(), k=self.k)

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        pass


class CompressedStage(TrainingStage):
    """Trains a compressed network; a candidate's state is its factors, the network and k."""

    net: Compressor

    def candidate(self) -> tuple[dict[str, Tensor], State] | None:
        weights = self.net.feasible_weights()
        if weights is None:
            return None
        return weights, self.net.weights.model_state() | {"k": self.net.k}

    def finish(self, handover: Handover) -> None:
        # At least one candidate was scored, since the budget is k before the last epoch ends.
        assert self.best is not None
        handover.compressed = CompressedState(**self.best)


def dense_teacher(inputs: Inputs, handover: Handover) -> Teacher | None:
    """The dense network that was handed over as a teacher.

    There is none if it would have no weight.
    """
    assert handover.network is not None
    weight = inputs.spec.training.mix_teacher_weight
    if not weight:
        return None
    return Teacher.copied(inputs.classifier, handover.network, weight)


class MovingStage(CompressedStage):
    """Trains under both constraints by ADMM; the support is chosen again after every step."""

    def __init__(
        self, inputs: Inputs, setup: TrainingSetup, start: Start, handover: Handover
    ) -> None:
        training, epochs = inputs.spec.training, setup.plan.effort.compression_epochs
        factors = starting_factors(inputs, handover, start)(inputs.num_weights)
        structure = inputs.new_structure()
        net = compressor(
            inputs,
            factors,
            structure,
            k=inputs.budget.largest(lambda k: structure.supports(factors, k), lambda k: factors),
            bits=inputs.target.bits,
            steps=epochs * steps_per_epoch(inputs.data.train, training.batch_size),
        )
        teacher, rate = dense_teacher(inputs, handover), training.peak_rate
        super().__init__(inputs, setup, net, epochs, COMPRESS, rate, teacher)

    def select(self) -> float | None:
        # The k that fits a file or a ratio depends on where the non-zeros are now.
        net = self.net
        budget = self.inputs.budget
        net.aim_at(
            budget.largest(lambda k: net.structure.supports(net.factors, k), lambda k: net.factors)
        )
        return super().select()


class FixedStage(CompressedStage):
    """Chooses a support once, by importance, and fine-tunes its entries in float32."""

    def __init__(
        self, inputs: Inputs, setup: TrainingSetup, start: Start, handover: Handover
    ) -> None:
        training, epochs = inputs.spec.training, setup.plan.effort.compression_epochs
        factors_for = starting_factors(inputs, handover, start)
        structure = inputs.new_structure()
        k = inputs.budget.largest(lambda k: structure.supports(factors_for(k), k), factors_for)
        net = compressor(inputs, factors_for(k), structure, k=k, bits=FLOAT_BITS, steps=0)
        teacher, rate = dense_teacher(inputs, handover), training.peak_rate
        super().__init__(inputs, setup, net, epochs, COMPRESS, rate, teacher)


class FinishStage(CompressedStage):
    """Fine-tunes shared values, biases and norms, while both constraints hold exactly."""

    def __init__(self, inputs: Inputs, setup: TrainingSetup, handover: Handover) -> None:
        factors, k = restore_compressed(inputs, handover)
        structure, bits = inputs.new_structure(), inputs.target.bits
        net = compressor(
            inputs,
            factors,
            structure,
            k=k,
            bits=bits,
            steps=0,
            small_tensor_bits=inputs.target.small_tensor_bits,
        )
        peak_rate = _FINISHING_RATE * inputs.spec.training.peak_rate
        epochs, teacher = setup.plan.effort.finish_epochs, dense_teacher(inputs, handover)
        super().__init__(inputs, setup, net, epochs, FINISH, peak_rate, teacher)
        self.select()  # the network before fine-tuning is a candidate, too

    def intervals(self) -> IntervalSchedule | None:
        return self.setup.intervals


def restore_compressed(inputs: Inputs, handover: Handover) -> tuple[NamedFactors, int]:
    """Load the compressed network that an earlier stage handed over.

    Returns:
        Its factors, by weight name, on the job's device, and the k that they keep to.
    """
    compressed, network = handover.compressed, inputs.classifier.network
    assert compressed is not None
    load_tensors(network, compressed.network)
    views = compressible_weights(network)
    factors = {
        name: Factors.from_state(view, state, inputs.device)
        for (name, view), state in zip(views.items(), compressed.factors, strict=True)
    }
    return factors, compressed.k
