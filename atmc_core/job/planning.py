"""How long a job trains: by its preset, by what the upload can do, and by the time there is."""

import copy
import math
import time
from dataclasses import asdict, replace

import torch

from atmc_core.attacks import PGD, Attack, ball
from atmc_core.data import Split
from atmc_core.events import Emit
from atmc_core.job.context import SELECT, Context
from atmc_core.job.solving import optimizer_of
from atmc_core.randomness import random_generator
from atmc_core.solver.weights import DenseWeights
from atmc_core.training.effort import Recognition, TrainingPlan
from atmc_core.training.step import make_step
from atmc_core.training.trainer import adversarial_step, selection_accuracy
from atmc_spec import EPOCHS

# Of what a classifier has above chance on clean images, a robust one keeps this share under attack.
_KEEPS = 0.75
# Hard threats leave less; then it must still stand at twice the radius, where one that was never
# trained against attacks is down at chance.
_KEEPS_HALF, _KEEPS_AT_TWICE = 0.5, 0.15
_RECOGNITION_IMAGES = 1000
# ``auto``: epochs of all stages at so many training images; fewer images are gone through more
# often, with the square root.
_AUTO_IMAGES, _AUTO_EPOCHS, _AUTO_RANGE = 50_000, 60, (30, 240)
_TIMED_STEPS, _TIMED_SECONDS = 8, 2.0


def plan_training(context: Context, emit: Emit) -> TrainingPlan:
    """Choose the epochs of all stages; says what it measures."""
    training, system = context.spec.training, context.system
    plan = TrainingPlan(training.effort())
    if not system.compresses:
        return plan
    if training.robust_epochs is None and system.adversarial and system.support != "none":
        recognition = recognise(context)
        emit({"type": "metric", "stage": "validating", "epoch": 0} | _figures(recognition))
        plan = replace(plan, recognition=recognition)
        if recognition.robust:
            plan = replace(plan, effort=replace(plan.effort, robust_epochs=0))
    if training.preset == "auto":
        plan = _fit_epochs(context, plan, emit)
    return plan


def recognise(context: Context) -> Recognition:
    """Try the upload on up to 1,000 validation images under the training attack."""
    split = context.data.val
    split = Split(split.images[:_RECOGNITION_IMAGES], split.labels[:_RECOGNITION_IMAGES])

    def accuracy(attack: Attack | None) -> float:
        return selection_accuracy(
            context.classifier,
            {},
            split,
            attack,
            context.spec.evaluation.batch_size,
            (context.spec.seed, SELECT),
        )

    threat = context.spec.threat
    at_twice = PGD(
        ball(threat.norm, 2 * threat.epsilon), threat.steps, 2 * threat.training_step_size
    )
    clean, robust = accuracy(None), accuracy(context.attack)
    twice, chance = accuracy(at_twice), 1 / context.num_classes
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


def _fit_epochs(context: Context, plan: TrainingPlan, emit: Emit) -> TrainingPlan:
    """Scale the epochs that are not given by the size of the data and the time there is."""
    training, effort = context.spec.training, plan.effort
    wanted = _AUTO_EPOCHS * math.sqrt(_AUTO_IMAGES / len(context.data.train))
    scale = min(max(wanted, _AUTO_RANGE[0]), _AUTO_RANGE[1]) / _AUTO_EPOCHS
    chosen = [
        name
        for name in EPOCHS
        if getattr(training, name) is None and getattr(effort, name) and name in _used(context)
    ]
    seconds = None
    if training.time_budget_s is not None:
        seconds = seconds_per_epoch(context)
        given = sum(getattr(effort, name) for name in _used(context) if name not in chosen)
        affordable = training.time_budget_s / seconds - given
        total = sum(getattr(effort, name) for name in chosen)
        scale = min(scale, affordable / max(total, 1))
        if affordable < len(chosen) or (not chosen and affordable < 0):
            least = (given + len(chosen)) * seconds
            emit(
                {
                    "type": "warning",
                    "code": "time_budget_too_short",
                    "message": f"an epoch takes {seconds:.3g} s here, so training takes at least "
                    f"{least:.3g} s, more than time_budget_s",
                }
            )
    epochs = {name: max(1, math.floor(scale * getattr(effort, name))) for name in chosen}
    return replace(plan, effort=replace(effort, **epochs), seconds_per_epoch=seconds)


def _used(context: Context) -> tuple[str, ...]:
    """The stages that the method has."""
    return EPOCHS[:1] if context.system.support == "none" else EPOCHS


def seconds_per_epoch(context: Context) -> float:
    """Training and selection of one epoch, extrapolated from a few steps on a copy."""
    training, train = context.spec.training, context.data.train
    device = train.labels.device
    classifier = copy.deepcopy(context.classifier)
    net = DenseWeights(classifier.network, optimizer_of(training))
    images, labels = train.batch(slice(0, training.batch_size))
    step = make_step(classifier, context.inner_attack, context.loss, context.speed)
    generator = random_generator(device, context.spec.seed)
    times: list[float] = []
    # The first steps are slower: memory is taken, kernels are chosen.
    while len(times) < 2 or (len(times) < _TIMED_STEPS and sum(times) < _TIMED_SECONDS):
        began = time.perf_counter()
        adversarial_step(net, step, images, labels, 1e-6, generator)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times) / (len(images) * context.step_cost) * context.epoch_cost
