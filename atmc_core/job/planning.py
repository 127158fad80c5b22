"""How long a job trains: as its preset says, what the upload can do, and how much time there is."""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

import torch

from atmc_core.artifact import CompressedModel
from atmc_core.attacks import PGD, Attack
from atmc_core.data import Split
from atmc_core.events import Emit
from atmc_core.job.costs import epoch_cost, image_cost
from atmc_core.job.inputs import Inputs
from atmc_core.job.setup import TrainingSetup, set_up_training
from atmc_core.job.solving import optimizer_of
from atmc_core.job.streams import SELECT
from atmc_core.randomness import random_generator
from atmc_core.solver.weights import DenseWeights
from atmc_core.training.effort import Recognition, TrainingPlan
from atmc_core.training.intervals import IntervalStep
from atmc_core.training.step import Step, make_step
from atmc_core.training.trainer import adversarial_step, selection_accuracy, training_attack
from atmc_spec import Training

# A classifier counts as robust if it keeps, under attack, this share of the accuracy that it has
# above chance on clean images.
_KEEPS = 0.75
# Under a hard threat even a robust classifier keeps less. It then counts as robust if it keeps half
# under attack, and at twice the radius still this share: there a classifier that was never trained
# against attacks is no better than chance.
_KEEPS_HALF, _KEEPS_AT_TWICE = 0.5, 0.15
_RECOGNITION_IMAGES = 1000
# ``auto`` trains for _AUTO_EPOCHS, all stages together, where there are _AUTO_IMAGES training
# images. With other numbers the epochs change with the square root of the ratio, within the range.
_AUTO_IMAGES, _AUTO_EPOCHS, _AUTO_RANGE = 50_000, 60, (30, 240)
# The share of the epochs of compressing and finishing that remain from a denser network on, and
# from one of as many bits with at most _NEAR times the non-zeros: that one has most of its support
# and its values from the start.
_FROM_DENSER, _FROM_NEAR, _NEAR = 1 / 4, 1 / 8, 1.25
# An epoch's time is estimated from so many steps, or fewer if they take longer than that.
_TIMED_STEPS, _LEAST_TIMED_STEPS, _TIMED_SECONDS = 8, 2, 2.0
# The learning rate of timed steps is small, so that the loss stays finite.
_TIMING_RATE = 1e-6


def keep_if_robust(inputs: Inputs, attack: PGD, plan: TrainingPlan, emit: Emit) -> TrainingPlan:
    """Leave the training of the dense network out of the plan if the upload is robust already.

    If the spec says how long that training is, the plan stays as it is and nothing is measured.
    Otherwise the accuracies found are emitted.

    Args:
        attack: the attack that also chooses between epochs.
    """
    if inputs.spec.training.robust_epochs is not None:
        return plan
    recognition = recognise(inputs, attack)
    emit({"type": "metric", "stage": "validating", "epoch": 0} | _figures(recognition))
    effort = replace(plan.effort, robust_epochs=0) if recognition.robust else plan.effort
    return replace(plan, effort=effort, recognition=recognition)


def shorten_from_denser(training: Training, plan: TrainingPlan, *, near: bool) -> TrainingPlan:
    """Shorten the stages that compress, for a job that starts from a denser network.

    Epochs that the spec gives stay as they are.

    Args:
        near: whether the denser network is nearly what is asked for.
    """
    share = _FROM_NEAR if near else _FROM_DENSER
    epochs = {
        name: max(1, round(share * getattr(plan.effort, name)))
        for name in ("compression_epochs", "finish_epochs")
        if getattr(training, name) is None
    }
    return replace(plan, effort=replace(plan.effort, **epochs))


def is_near(denser: CompressedModel, k: int | None, bits: int) -> bool:
    """Whether a denser network is nearly one of k non-zeros and so many bits.

    Args:
        k: None if it has still to be found.
    """
    return k is not None and denser.bits == bits and denser.k <= _NEAR * k


def recognise(inputs: Inputs, attack: PGD) -> Recognition:
    """Measure whether the upload is robust, on up to 1,000 validation images.

    Args:
        attack: the attack that also chooses between epochs.
    """
    split = inputs.data.val
    split = Split(split.images[:_RECOGNITION_IMAGES], split.labels[:_RECOGNITION_IMAGES])

    def accuracy(attack: Attack | None) -> float:
        return selection_accuracy(
            inputs.classifier,
            {},
            split,
            attack,
            inputs.spec.evaluation.batch_size,
            (inputs.spec.seed, SELECT),
        )

    threat = inputs.spec.threat
    at_twice = training_attack(
        threat.norm,
        2 * threat.epsilon,
        threat.steps,
        2 * threat.training_step_size,
        threat.backward,
    )
    clean, robust = accuracy(None), accuracy(attack)
    twice, chance = accuracy(at_twice), 1 / inputs.num_classes
    above = clean - chance
    is_robust = above > 0 and (
        robust - chance >= _KEEPS * above
        or (robust - chance >= _KEEPS_HALF * above and twice - chance >= _KEEPS_AT_TWICE * above)
    )
    return Recognition(len(split), clean, robust, twice, is_robust)


def _figures(recognition: Recognition) -> dict[str, float]:
    return {
        f"upload_{name}": float(value)
        for name, value in asdict(recognition).items()
        if name != "images"
    }


def fit_epochs(
    inputs: Inputs, attack: PGD | None, plan: TrainingPlan, stages: Sequence[str], emit: Emit
) -> TrainingPlan:
    """With preset ``auto``, fit the plan's epochs to the size of the data and the time there is.

    With another preset the plan stays as it is, and epochs that the spec gives always stay. A
    warning is emitted if the time is too short.

    Args:
        attack: the attack of training; None means clean training.
        stages: the fields of the spec's ``training`` that hold the epochs of the method's stages.
    """
    training, effort = inputs.spec.training, plan.effort
    if training.preset != "auto":
        return plan
    wanted = _AUTO_EPOCHS * math.sqrt(_AUTO_IMAGES / len(inputs.data.train))
    scale = min(max(wanted, _AUTO_RANGE[0]), _AUTO_RANGE[1]) / _AUTO_EPOCHS
    chosen = [name for name in stages if getattr(training, name) is None and getattr(effort, name)]
    seconds = None
    if training.time_budget_s is not None:
        seconds = seconds_per_epoch(inputs, set_up_training(inputs, attack, plan))
        given = sum(getattr(effort, name) for name in stages if name not in chosen)
        affordable = training.time_budget_s / seconds - given
        total = sum(getattr(effort, name) for name in chosen)
        scale = min(scale, affordable / max(total, 1))
        if affordable < len(chosen) or (not chosen and affordable < 0):
            _warn_of_short_time(seconds, given + len(chosen), emit)
    epochs = {name: max(1, math.floor(scale * getattr(effort, name))) for name in chosen}
    return replace(plan, effort=replace(effort, **epochs), seconds_per_epoch=seconds)


def _warn_of_short_time(seconds: float, epochs: int, emit: Emit) -> None:
    """Warn that training takes at least so many epochs of so many seconds each."""
    emit(
        {
            "type": "warning",
            "code": "time_budget_too_short",
            "message": f"an epoch takes {seconds:.3g} s here, so training takes at least "
            f"{epochs * seconds:.3g} s, more than time_budget_s",
        }
    )


def seconds_per_epoch(inputs: Inputs, setup: TrainingSetup) -> float:
    """Estimate the seconds that an epoch takes, with its scoring, from a few steps on a copy."""
    training, train = inputs.spec.training, inputs.data.train
    device = train.labels.device
    classifier = copy.deepcopy(inputs.classifier)
    net = DenseWeights(classifier.network, optimizer_of(training))
    images, labels = train.batch(slice(0, training.batch_size))
    step: Step
    if setup.intervals:
        step = IntervalStep(classifier, setup.intervals, images.shape[1:])
    else:
        step = make_step(classifier, setup.inner_attack, setup.loss, setup.speed)
    generator = random_generator(device, inputs.spec.seed)
    times: list[float] = []
    # The first steps are slower, since memory is allocated and kernels are chosen in them. So the
    # fastest one counts.
    while len(times) < _LEAST_TIMED_STEPS or (
        len(times) < _TIMED_STEPS and sum(times) < _TIMED_SECONDS
    ):
        began = time.perf_counter()
        adversarial_step(net, step, images, labels, _TIMING_RATE, generator)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    per_image = min(times) / (len(images) * image_cost(setup.attack))
    return per_image * epoch_cost(inputs.data, setup.attack)
