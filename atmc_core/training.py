"""The adversarial training step, the same for every way of holding the weights."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atmc_core import distributed
from atmc_core.attacks import PGD, Attack, ball
from atmc_core.attacks.base import Model
from atmc_core.config import ScheduleName, Threat, Training
from atmc_core.data import UNCHANGED, Augmentation, Split, training_batches
from atmc_core.model import Classifier
from atmc_core.state_dict import load_tensors
from atmc_core.step import PLAIN, Speed, Step, StepLoss, frozen_model, make_step

State = dict[str, Any]


class Trainable(ABC):
    """A classifier together with how its conv and linear weights are held.

    Attributes:
        classifier: the graph; its parameters are always what is trained, composed.
    """

    classifier: Classifier

    @abstractmethod
    def update(self, learning_rate: float) -> None:
        """One optimiser step from the gradients of the classifier's parameters, which it frees."""

    @abstractmethod
    def averaged(self) -> list[Tensor]:
        """What a weight average is taken of: what training moves, and the norms' statistics."""

    @abstractmethod
    def refresh(self) -> None:
        """Follow a change of the averaged tensors."""

    @abstractmethod
    def state(self) -> State:
        """All that changes in training, for a checkpoint."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Go on from ``state``."""


class DenseWeights(Trainable):
    """The classifier's own parameters, unconstrained."""

    def __init__(self, classifier: Classifier, training: Training) -> None:
        self.classifier = classifier
        self.optimizer = make_optimizer(classifier.parameters(), training)

    def update(self, learning_rate: float) -> None:
        optimizer_step(self.optimizer, learning_rate)

    def averaged(self) -> list[Tensor]:
        return [*self.classifier.parameters(), *statistics(self.classifier)]

    def refresh(self) -> None:
        """The classifier's own parameters are the averaged tensors themselves."""

    def state(self) -> State:
        return {
            "network": clone_state(self.classifier.network),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: State) -> None:
        load_tensors(self.classifier.network, state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


def clone_state(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict that training no longer changes."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def statistics(classifier: Classifier) -> list[Tensor]:
    """The norms' running means and variances."""
    return [b for b in classifier.network.buffers() if b.is_floating_point()]


def make_optimizer(leaves: Iterable[Tensor], training: Training) -> torch.optim.SGD:
    """SGD with momentum, as the paper trains; Nesterov's form, one fused pass over each tensor."""
    return torch.optim.SGD(
        list(leaves),
        lr=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        nesterov=training.momentum > 0,
        fused=True,
    )


def optimizer_step(optimizer: torch.optim.SGD, learning_rate: float) -> None:
    """One step at this learning rate; gradients are freed afterwards."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


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


def random_generator(device: torch.device | str, *path: int) -> torch.Generator:
    """A generator for one place of a run (seed, stage, epoch), whatever was drawn before.

    So a resumed run draws what the undisturbed one draws, with no generator state to save.
    """
    entropy = np.random.SeedSequence(path).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(entropy >> 1))


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
        nn.utils.clip_grad_norm_(net.classifier.parameters(), max_grad_norm)
    net.update(learning_rate)
    return loss


def training_attack(threat: Threat) -> PGD:
    """The PGD of the training step."""
    return PGD(ball(threat.norm, threat.epsilon), threat.steps, threat.training_step_size)


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
        after_step: called after every step.
    """

    def __init__(
        self,
        net: Trainable,
        split: Split,
        course: Course,
        after_step: Callable[[], None] = lambda: None,
    ) -> None:
        self.net, self.split, self.course, self.after_step = net, split, course, after_step
        self.steps_per_epoch = steps_per_epoch(split, course.batch_size)
        self.steps = course.epochs * self.steps_per_epoch
        step = make_step(net.classifier, course.attack, course.loss, course.speed)
        self.step = distributed.SharedStep(step) if distributed.processes() > 1 else step

    def epoch(self, index: int) -> float:
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


@torch.no_grad()
def count_correct(model: Model, split: Split, batch_size: int) -> int:
    """How many clean images of a split the model gets right."""
    hits = [(model(x).argmax(1) == y).sum() for x, y in split.batches(batch_size)]
    return int(torch.stack(hits).sum())


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
