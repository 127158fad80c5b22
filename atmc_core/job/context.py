"""What the stages of one job share."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from atmc_core.artifact import CompressedModel, float_state
from atmc_core.artifact.budget import Budget
from atmc_core.attacks import PGD, ball
from atmc_core.data import DataSet, Split
from atmc_core.evaluation.plan import evaluated_indices
from atmc_core.events import Emit
from atmc_core.factors.factors import Factors
from atmc_core.factors.views import MatrixView, compressible_weights
from atmc_core.job.methods import METHODS, System
from atmc_core.networks.blueprint import Blueprint
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.solver.support import Channels, Structure
from atmc_core.training.recordable import waiting_operations
from atmc_core.training.step import MixedLoss, RecordedStep, Speed, StepLoss, can_compile
from atmc_core.training.trades import DivergencePGD, TradesLoss
from atmc_core.training.trainer import training_attack
from atmc_spec import Effort, JobSpec, Target

#: Places in the run, for the random numbers.
DENSE, COMPRESS, FINISH, SELECT, REPORT = range(5)

# Compiling takes about half a minute; training on a large GPU takes a minute from here on.
_COMPILED_FROM = 5e15  # floating-point operations
# Of the step that tells whether steps can be recorded.
_WATCHED_IMAGES = 8


@dataclass(frozen=True)
class Context:
    """What all stages of a job share; ``classifier`` is the uploaded one at the start.

    Attributes:
        effort: the epochs, schedule and averaging that training settled on (see ``planning``).
        emit: called with each event.
    """

    spec: JobSpec
    data: DataSet
    classifier: Classifier
    blueprint: Blueprint
    normalization: Normalization
    artifact: Path
    effort: Effort
    emit: Emit

    @property
    def num_classes(self) -> int:
        return self.blueprint.num_classes

    @property
    def num_weights(self) -> int:
        """N: the dense conv and linear weights."""
        return sum(math.prod(view.shape) for view in self._views.values())

    @cached_property
    def _views(self) -> dict[str, MatrixView]:
        return compressible_weights(self.classifier.network)

    @property
    def target(self) -> Target:
        """Of a method that compresses; a spec for one always has it."""
        assert self.spec.target is not None
        return self.spec.target

    def new_structure(self) -> Structure:
        """What the target keeps or drops, with nothing dropped yet."""
        if self.target.structure == "channel":
            return Channels(self.classifier.network)
        return Structure(self.spec.training.importance)

    @cached_property
    def budget(self) -> Budget:
        """How many non-zeros the target leaves."""
        zeros = {
            name: Factors(view, *(torch.zeros(shape) for shape in view.factor_shapes))
            for name, view in self._views.items()
        }
        blank = self.compressed(zeros, k=self.num_weights)
        return Budget(self.target, blank, self.num_weights, self.new_structure())

    def compressed(self, factors: dict[str, Factors], k: int) -> CompressedModel:
        """The classifier, as it is now, with these factors as its weights."""
        return CompressedModel(
            architecture=self.blueprint.architecture,
            num_classes=self.num_classes,
            normalization=self.normalization,
            factors=factors,
            others=float_state(self.classifier.network, factors),
            bits=self.target.bits,
            k=k,
            input_shape=self.blueprint.open_shape,
            graph=self.blueprint.graph,
        )

    @property
    def report_seed(self) -> int:
        """Of the evaluation."""
        return self.spec.seed + REPORT

    @cached_property
    def indices(self) -> Tensor:
        """The evaluated images of the test split, on the CPU."""
        return evaluated_indices(self.data.test.labels, self.spec.evaluation, self.report_seed)

    @cached_property
    def evaluated(self) -> Split:
        """Those images."""
        return self.data.test.select(self.indices)

    @property
    def system(self) -> System:
        return METHODS[self.spec.method]

    @property
    def attack(self) -> PGD | None:
        """Of the choice between epochs."""
        if not self.system.adversarial:
            return None
        threat = self.spec.threat
        return training_attack(threat.norm, threat.epsilon, threat.steps, threat.step_size)

    @property
    def inner_attack(self) -> PGD | None:
        """Of the training step; TRADES climbs its own loss."""
        attack = self.attack
        if attack is None or self.spec.training.loss == "mix":
            return attack
        threat = self.spec.threat
        return DivergencePGD(
            ball(threat.norm, threat.epsilon), threat.steps, threat.training_step_size
        )

    @property
    def loss(self) -> StepLoss:
        """Of the training step."""
        training = self.spec.training
        if training.loss == "trades":
            return TradesLoss(training.trades_beta)
        return MixedLoss(training.mix_clean_weight)

    @cached_property
    def speed(self) -> Speed:
        """How training steps are run on this device."""
        device = next(self.classifier.parameters()).device
        precision = self.spec.training.precision
        if precision == "auto":
            fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
            precision = "bfloat16" if fast else "float32"
        return Speed(
            bfloat16=precision == "bfloat16",
            compiled=can_compile(device) and self._training_flops() >= _COMPILED_FROM,
            recorded=device.type == "cuda" and not self.waiting,
        )

    @cached_property
    def waiting(self) -> tuple[str, ...]:
        """Operations of the network that look at its own results, so that no step is recorded."""
        images, labels = self.data.train.batch(slice(0, _WATCHED_IMAGES))
        step = RecordedStep(self.classifier, self.inner_attack, self.loss)
        return tuple(waiting_operations(step, images, labels))

    def _training_flops(self) -> float:
        """Floating-point operations of all training."""
        effort = self.effort
        epochs = effort.robust_epochs + effort.compression_epochs + effort.finish_epochs
        image, _ = self.data.train.batch(slice(0, 1))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.classifier.eval()(image)
        return float(counter.get_total_flops()) * len(self.data.train) * self.step_cost * epochs

    @property
    def step_cost(self) -> int:
        """Of a training step for each of its images, in forward passes of one."""
        # A backward pass costs about two forward ones; in the attack it needs no weights'
        # gradients.
        return 2 * self.spec.threat.steps + 6 if self.system.adversarial else 3

    @property
    def epoch_cost(self) -> int:
        """Of training and selection of one epoch, in the same unit."""
        attack = 2 * self.spec.threat.steps if self.system.adversarial else 0
        return len(self.data.train) * self.step_cost + len(self.data.val) * (attack + 1)
