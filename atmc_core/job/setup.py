"""How all training stages of a job train, which is decided once, after planning."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from atmc_core.attacks import PGD
from atmc_core.events import Emit
from atmc_core.job.costs import training_flops
from atmc_core.job.inputs import Inputs
from atmc_core.training.effort import TrainingPlan
from atmc_core.training.intervals import CLEAN_WEIGHT, RADIUS, IntervalSchedule
from atmc_core.training.recordable import waiting_operations
from atmc_core.training.step import PLAIN, MixedLoss, RecordedStep, Speed, StepLoss, can_compile
from atmc_core.training.trades import DivergencePGD, TradesLoss
from atmc_spec import Effort, JobSpec

# Steps are compiled if training takes at least so many floating-point operations. These take a
# large GPU about a minute, and compiling takes about half a minute.
_COMPILED_FROM = 5e15
# The number of images in the step that shows whether steps can be recorded.
_WATCHED_IMAGES = 8


@dataclass(frozen=True)
class TrainingSetup:
    """How all training stages of a job train.

    Attributes:
        attack: the attack that chooses between epochs; None means training on clean images.
        inner_attack: the attack of the training step: the same, or for TRADES one on its own loss.
        loss: the loss of a training step.
        speed: how training steps are made faster on the job's device.
        waiting: the operations of the network that keep its steps from being recorded on a GPU.
        plan: the epochs, the learning rate's schedule and the averaging that were planned.
        intervals: how to train for proof, if the spec asks for that; then neither the inner attack
            nor the loss is used.
    """

    attack: PGD | None
    inner_attack: PGD | None
    loss: StepLoss
    speed: Speed
    waiting: tuple[str, ...]
    plan: TrainingPlan
    intervals: IntervalSchedule | None = None


def set_up_training(inputs: Inputs, attack: PGD | None, plan: TrainingPlan) -> TrainingSetup:
    """Decide how to train; on a GPU this runs one training step to see if it can be recorded.

    Args:
        attack: the attack of adversarial training; None means training on clean images.
    """
    if attack is not None and inputs.spec.training.loss == "ibp":
        radius = RADIUS * inputs.spec.threat.epsilon
        intervals = IntervalSchedule(radius, CLEAN_WEIGHT)
        return TrainingSetup(attack, None, MixedLoss(), PLAIN, (), plan, intervals)
    inner, loss = _inner_attack(inputs.spec, attack), _loss(inputs.spec)
    on_gpu = inputs.device.type == "cuda"
    waiting = find_waiting_operations(inputs, inner, loss) if on_gpu else ()
    speed = _speed(inputs, attack, plan.effort, recorded=on_gpu and not waiting)
    return TrainingSetup(attack, inner, loss, speed, waiting, plan)


def _inner_attack(spec: JobSpec, attack: PGD | None) -> PGD | None:
    """The attack of the training step, which for TRADES climbs the divergence of the outputs."""
    if attack is None or spec.training.loss == "mix":
        return attack
    return DivergencePGD(
        attack.ball, attack.steps, attack.step_size, temperature=attack.temperature
    )


def _loss(spec: JobSpec) -> StepLoss:
    training = spec.training
    if training.loss == "trades":
        return TradesLoss(training.trades_beta)
    return MixedLoss(training.mix_clean_weight)


def _speed(inputs: Inputs, attack: PGD | None, effort: Effort, *, recorded: bool) -> Speed:
    device, precision = inputs.device, inputs.spec.training.precision
    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        precision = "bfloat16" if fast else "float32"
    return Speed(
        bfloat16=precision == "bfloat16",
        compiled=can_compile(device) and training_flops(inputs, attack, effort) >= _COMPILED_FROM,
        recorded=recorded,
    )


def find_waiting_operations(inputs: Inputs, attack: PGD | None, loss: StepLoss) -> tuple[str, ...]:
    """The operations of the network that wait for its own results, so that no step is recorded.

    Args:
        attack: the attack of the training step; None means clean training.
        loss: the loss of the training step.

    Returns:
        Their names; none if steps can be recorded.
    """
    images, labels = inputs.data.train.batch(slice(0, _WATCHED_IMAGES))
    step = RecordedStep(inputs.classifier, attack, loss)
    return tuple(waiting_operations(step, images, labels))


def warn_of_plain_steps(waiting: Sequence[str], emit: Emit) -> None:
    """Warn that training steps are not recorded, if operations of the network prevent it."""
    if waiting:
        emit(
            {
                "type": "warning",
                "code": "steps_not_recorded",
                "message": "the network looks at its own results while it runs "
                f"({', '.join(waiting)}), so its training steps cannot be recorded and "
                "replayed: training is slower",
            }
        )
