"""The adversarial training step, the same for every way of holding the weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from atmc_core.attacks import PGD, Attack, ball
from atmc_core.data import UNCHANGED, Augmentation, Split, training_batches
from atmc_core.networks.classifier import Classifier, frozen_model
from atmc_core.randomness import random_generator
from atmc_core.solver.weights import Trainable
from atmc_core.training import distributed
from atmc_core.training.step import PLAIN, Speed, Step, StepLoss, make_step
from atmc_spec.defaults import training_step_size
from atmc_spec.names import Norm, ScheduleName

State = dict[str, Any]


def scheduled(schedule: ScheduleName, step: int, steps: int, peak: float) -> float:
    """The learning rate, which rises over the first 5 % of the steps.

    After that it falls along a cosine, or stays, to be a tenth from half of all steps on and a
    hundredth from three quarters on (Rice et al., 2020).
    """
    warmup = max(1, steps // 20)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "step":
        return peak * 0.1 ** ((2 * step >= steps) + (4 * step >= 3 * steps))
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
    """One step on clean images and those that the step's attack finds on the current network.

    Args:
        max_grad_norm: a longer gradient, in all of the network's parameters, is shortened to it.

    Returns:
        The loss before the step, a scalar on the device.
    """
    loss = step.gradients(images, labels, generator)
    if max_grad_norm < math.inf:
        nn.utils.clip_grad_norm_(net.network.parameters(), max_grad_norm)
    net.update(learning_rate)
    return loss


def training_attack(norm: Norm, epsilon: float, steps: int, step_size: float | None = None) -> PGD:
    """The PGD of the training step.

    Args:
        epsilon: the ball's radius, for images in [0, 1].
        step_size: by default ``training_step_size``.
    """
    return PGD(ball(norm, epsilon), steps, step_size or training_step_size(epsilon, steps))


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Batches of ``training_batches``: all but a last one of a single image."""
    return len(split) // batch_size + (len(split) % batch_size > 1)


@dataclass(frozen=True)
class Course:
    """How a stage trains.

    Attributes:
        attack: of adversarial training; without one it is clean training.
        peak: the peak learning rate.
        max_grad_norm: of a step's gradient, see ``adversarial_step``.
        path: where in the run this is (seed, stage), for the random numbers.
        speed: how the step is run.
        augmentation: of the training images, before the attack.
    """

    attack: PGD | None
    loss: StepLoss
    schedule: ScheduleName
    batch_size: int
    epochs: int
    peak: float
    path: tuple[int, ...]
    max_grad_norm: float = math.inf
    speed: Speed = PLAIN
    augmentation: Augmentation = UNCHANGED


class Trainer:
    """Training, one epoch at a time.

    Args:
        classifier: what is run; its network is ``net``'s.
        after_step: called after every step.
    """

    def __init__(
        self,
        classifier: Classifier,
        net: Trainable,
        split: Split,
        course: Course,
        after_step: Callable[[], None] = lambda: None,
    ) -> None:
        self.net, self.split, self.course, self.after_step = net, split, course, after_step
        self.steps_per_epoch = steps_per_epoch(split, course.batch_size)
        self.steps = course.epochs * self.steps_per_epoch
        step = make_step(classifier, course.attack, course.loss, course.speed)
        self.step = distributed.SharedStep(step) if distributed.processes() > 1 else step

    def run_epoch(self, index: int) -> float:
        """Train for epoch ``index``; returns its mean loss.

        Raises:
            FloatingPointError: if the loss is no longer finite.
        """
        course, device = self.course, self.split.labels.device
        order = random_generator("cpu", *course.path, index, 0)
        noise = random_generator(device, *course.path, index, 1)
        # Dropout draws from the global generator, each process for its own images.
        torch.manual_seed(order.initial_seed() + distributed.rank())
        losses = []
        batches = training_batches(self.split, course.batch_size, order, course.augmentation)
        for step, (images, labels) in enumerate(batches):
            rate = self._rate(index, step)
            loss = adversarial_step(
                self.net, self.step, images, labels, rate, noise, course.max_grad_norm
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
        return scheduled(self.course.schedule, done, self.steps, self.course.peak)


def selection_accuracy(
    classifier: Classifier,
    weights: dict[str, Tensor],
    split: Split,
    attack: Attack | None,
    batch_size: int,
    path: tuple[int, ...],
) -> float:
    """Accuracy under the training attack, as used to choose between epochs (not reported).

    Args:
        weights: stand in for the classifier's own, by name in its network.
        attack: without one it is the clean accuracy.
        path: place in the run, for the random starts: the same every time, so that epochs are
            compared on equal terms.
    """
    model = frozen_model(classifier.eval(), weights)
    generator = random_generator(split.labels.device, *path)
    hits = []
    for images, labels in split.batches(batch_size):
        if attack is not None:
            images = attack.run(model, images, labels, generator=generator)
        with torch.no_grad():
            hits.append((model(images).argmax(1) == labels).sum())
    return int(torch.stack(hits).sum()) / len(split)
