"""Adversarial training epoch by epoch, the same for every way of holding the weights."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atmc_core.attacks import PGD, Attack, ball
from atmc_core.data import UNCHANGED, Augmentation, Split, training_batches
from atmc_core.networks.classifier import Classifier, frozen_model
from atmc_core.randomness import random_generator
from atmc_core.solver.weights import Trainable
from atmc_core.training import distributed
from atmc_core.training.intervals import IntervalSchedule, IntervalStep
from atmc_core.training.step import PLAIN, Speed, Step, StepLoss, make_step
from atmc_core.training.teacher import Teacher
from atmc_spec.defaults import BACKWARD, training_step_size
from atmc_spec.names import Backward, Norm, ScheduleName

# The learning rate rises over the first twentieth of the steps.
_WARMUP_PART = 20
# What the step schedule multiplies the learning rate by at each of its two drops.
_DROP = 0.1
#: The temperature of training's attack, by which gradients it climbs.
TEMPERATURES: Mapping[Backward, float | None] = {"smooth": 0.2, "plain": None}
# The last numbers of an epoch's random streams, one for each purpose.
_ORDER, _NOISE = 0, 1


def scheduled(schedule: ScheduleName, step: int, steps: int, peak: float) -> float:
    """The learning rate of a step, which rises to its peak over the first 5 % of the steps.

    After that ``cosine`` falls along half a cosine to zero; ``step`` stays at the peak until half
    of all steps, is a tenth of it until three quarters and a hundredth then (Rice et al., 2020).

    Args:
        step: the number of the step, from 0.
        steps: how many steps there are in all.
        peak: the highest learning rate.
    """
    warmup = max(1, steps // _WARMUP_PART)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "step":
        return peak * _DROP ** ((2 * step >= steps) + (4 * step >= 3 * steps))
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def adversarial_step(
    net: Trainable,
    step: Step,
    images: Tensor,
    labels: Tensor,
    learning_rate: float,
    generator: torch.Generator,
    max_grad_norm: float = math.inf,
) -> Tensor:
    """Take one step on clean images and on those that the step's attack finds for them.

    Args:
        net: what is trained.
        step: computes the gradients, on the network of ``net``.
        images: float32 ``[N, C, H, W]`` in [0, 1].
        labels: the true classes, int64 ``[N]``.
        learning_rate: that of this step.
        generator: draws the attack's random start, on the images' device.
        max_grad_norm: the longest gradient, as the norm over all parameters; a longer one is scaled
            down to it.

    Returns:
        The loss before the step, a scalar on the device.
    """
    loss = step.gradients(images, labels, generator)
    if max_grad_norm < math.inf:
        nn.utils.clip_grad_norm_(net.network.parameters(), max_grad_norm)
    net.update(learning_rate)
    return loss


def training_attack(
    norm: Norm,
    epsilon: float,
    steps: int,
    step_size: float | None = None,
    backward: Backward = BACKWARD,
) -> PGD:
    """The PGD attack of a training step.

    Args:
        epsilon: the ball's radius, for images in [0, 1].
        steps: the number of gradient steps.
        step_size: the length of each, in the ball's norm; ``training_step_size`` by default.
        backward: which gradients the attack climbs, ``smooth`` ones (see ``attacks.smooth``) or the
            network's own.

    Raises:
        ValueError: if a number is not positive, or there is no such norm or kind of gradients.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: it must be at least 1")
    if backward not in TEMPERATURES:
        raise ValueError(f"backward is {backward!r}: it must be one of {', '.join(TEMPERATURES)}")
    return PGD(
        ball(norm, epsilon),
        steps,
        step_size or training_step_size(epsilon, steps),
        temperature=TEMPERATURES[backward],
    )


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """How many batches ``training_batches`` gives: it leaves out a last one of a single image."""
    return len(split) // batch_size + (len(split) % batch_size > 1)


@dataclass(frozen=True)
class TrainerOptions:
    """How a ``Trainer`` trains.

    Attributes:
        attack: the attack of adversarial training; None means clean training.
        loss: the loss of a step, on clean and adversarial images.
        schedule: the curve of the learning rate, see ``scheduled``.
        batch_size: images in a step.
        epochs: how many epochs there are in all, which the schedule depends on.
        peak_rate: the highest learning rate.
        stream: the numbers that name the stream of random numbers to draw from, such as the job's
            seed and the stage's number.
        max_grad_norm: the longest gradient of a step, see ``adversarial_step``.
        speed: how the steps are made faster.
        augmentation: how training images are changed at random before the attack.
        teacher: makes the labels soft; None trains on the true ones.
        intervals: trains for proof instead, without attack and loss.
    """

    attack: PGD | None
    loss: StepLoss
    schedule: ScheduleName
    batch_size: int
    epochs: int
    peak_rate: float
    stream: tuple[int, ...]
    max_grad_norm: float = math.inf
    speed: Speed = PLAIN
    augmentation: Augmentation = UNCHANGED
    teacher: Teacher | None = None
    intervals: IntervalSchedule | None = None


class Trainer:
    """Trains one epoch at a time.

    Args:
        classifier: what maps images to logits; its network is that of ``net``.
        net: the weights that are trained.
        split: the training images.
        options: how to train.
        after_step: is called after every step.

    Attributes:
        steps_per_epoch: optimiser steps in an epoch.
        steps: optimiser steps in all epochs.
    """

    def __init__(
        self,
        classifier: Classifier,
        net: Trainable,
        split: Split,
        options: TrainerOptions,
        after_step: Callable[[], None] = lambda: None,
    ) -> None:
        self.net, self.split, self.options, self.after_step = net, split, options, after_step
        self.steps_per_epoch = steps_per_epoch(split, options.batch_size)
        self.steps = options.epochs * self.steps_per_epoch
        step: Step
        if options.intervals:
            step = IntervalStep(classifier, options.intervals, split.images.shape[1:])
        else:
            step = make_step(
                classifier, options.attack, options.loss, options.speed, options.teacher
            )
        self.step = distributed.SharedStep(step) if distributed.processes() > 1 else step

    def run_epoch(self, index: int) -> float:
        """Train for epoch ``index``, counted from 0, and return its mean loss.

        Raises:
            FloatingPointError: if the loss is no longer finite.
        """
        options, device = self.options, self.split.labels.device
        order = random_generator("cpu", *options.stream, index, _ORDER)
        noise = random_generator(device, *options.stream, index, _NOISE)
        # Dropout draws from the global generator. Each process trains on other images, so each
        # needs other draws.
        torch.manual_seed(order.initial_seed() + distributed.rank())
        losses = []
        batches = training_batches(self.split, options.batch_size, order, options.augmentation)
        for step, (images, labels) in enumerate(batches):
            rate = self._rate(index, step)
            self.step.at((index * self.steps_per_epoch + step) / self.steps)
            loss = adversarial_step(
                self.net, self.step, images, labels, rate, noise, options.max_grad_norm
            )
            losses.append(loss)
            self.after_step()
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise FloatingPointError(
                f"the loss became {mean} in epoch {index + 1}: lower training.learning_rate"
            )
        return mean

    def _rate(self, epoch: int, step: int) -> float:
        done = epoch * self.steps_per_epoch + step
        return scheduled(self.options.schedule, done, self.steps, self.options.peak_rate)


def selection_accuracy(
    classifier: Classifier,
    weights: dict[str, Tensor],
    split: Split,
    attack: Attack | None,
    batch_size: int,
    stream: tuple[int, ...],
) -> float:
    """The accuracy under the training attack, which chooses between epochs and is not reported.

    Args:
        weights: tensors that stand in for the classifier's own, by name in its network.
        split: the images to classify.
        attack: None for the accuracy on clean images.
        batch_size: images in a batch.
        stream: names the stream of the attack's random starts. It is the same for every epoch, so
            that epochs are compared on equal terms.

    Returns:
        The share of images classified correctly, 0 to 1.
    """
    model = frozen_model(classifier.eval(), weights)
    generator = random_generator(split.labels.device, *stream)
    hits = []
    for images, labels in split.batches(batch_size):
        if attack is not None:
            images = attack.run(model, images, labels, generator=generator)
        with torch.no_grad():
            hits.append((model(images).argmax(1) == labels).sum())
    return int(torch.stack(hits).sum()) / len(split)
