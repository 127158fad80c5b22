"""All of a training step but the update: adversarial images, the loss on them, its gradients."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from atmc_core.attacks import PGD
from atmc_core.attacks.base import Model
from atmc_core.networks.classifier import Classifier, frozen_model


class StepLoss(ABC):
    """The loss of a training step.

    Attributes:
        on_clean: whether the network is run on the clean images, too.
    """

    on_clean: bool = True

    @abstractmethod
    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A scalar, of labels ``[N]`` and logits: the clean images', then the adversarial ones'.

        In clean training, and where ``on_clean`` is false, there are N of them, else 2N.
        """


@dataclass(frozen=True)
class MixedLoss(StepLoss):
    """The weighted mean of loss(x) and loss(x_adv); half and half is the paper's."""

    clean_weight: float = 0.5

    @property
    def on_clean(self) -> bool:  # type: ignore[override]
        return self.clean_weight > 0

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        losses = [F.cross_entropy(part, labels) for part in torch.split(logits, len(labels))]
        return losses[0] if len(losses) == 1 else losses[1].lerp(losses[0], self.clean_weight)


PAPERS_MIX = MixedLoss()


@dataclass(frozen=True)
class Speed:
    """What makes a step faster without changing what it computes, but for rounding.

    Attributes:
        bfloat16: convolutions and products in bfloat16 (autocast); weights, norms' statistics,
            losses and updates stay float32.
        compiled: forward and backward passes are compiled (torch.compile) where a step is recorded.
        recorded: on a GPU steps are recorded; a network must allow it (see ``recordable``).
    """

    bfloat16: bool = False
    compiled: bool = False
    recorded: bool = True


PLAIN = Speed()


class Step:
    """Leaves the gradients of one batch's loss in the classifier's parameters.

    For the attack the network is in evaluation mode, so that the norms' statistics stand still, and
    none of its tensors needs a gradient. Without an attack the step is on the clean images alone.
    """

    def __init__(
        self,
        classifier: Classifier,
        attack: PGD | None,
        loss: StepLoss = PAPERS_MIX,
        speed: Speed = PLAIN,
    ) -> None:
        self.classifier, self.attack, self.loss, self.speed = classifier, attack, loss, speed

    def gradients(
        self, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Run the step on ``[N, C, H, W]`` images with their labels.

        Returns:
            The loss, a scalar on the device.
        """
        return self.gradients_from(self.start(images, generator), images, labels)

    def start(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Where the attack starts: all that a step draws at random, but for dropout."""
        return self.attack.start(images, generator) if self.attack else images

    def gradients_from(self, start: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """As ``gradients``, the attack from ``start``."""
        if self.attack is not None:
            model = self.quick(frozen_model(self.classifier.eval()))
            adversarial = self.attack.run_from(start, model, images, labels)
            images = torch.cat([images, adversarial]) if self.loss.on_clean else adversarial
        self.classifier.train()
        return self._backward(self.trained, images, labels)

    @cached_property
    def trained(self) -> Model:
        """The classifier as its training pass runs it."""
        return self.quick(self.classifier)

    def quick(self, model: Model) -> Model:
        """The model in the precision of ``speed``; logits are float32."""
        if not self.speed.bfloat16:
            return model

        def run(images: Tensor) -> Tensor:
            # Without autocast's cache of weights, which must not outlive a recorded graph.
            with torch.autocast(images.device.type, torch.bfloat16, cache_enabled=False):
                logits = model(images)
            return logits.float()

        return run

    def _backward(self, model: Model, images: Tensor, labels: Tensor) -> Tensor:
        loss = self.loss(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


class RecordedStep(Step):
    """The same on CUDA, recorded once as a graph of kernels and replayed for every full batch.

    A small network's step is hundreds of kernels of a few microseconds each, which Python starts
    more slowly than the device runs them. The recording holds the addresses of parameters and
    statistics, so they must be changed in place only, as everything here does. A batch of another
    size (an epoch's last) is run by the plain step, in which nothing is compiled.
    """

    def __init__(
        self,
        classifier: Classifier,
        attack: PGD | None,
        loss: StepLoss = PAPERS_MIX,
        speed: Speed = PLAIN,
    ) -> None:
        super().__init__(classifier, attack, loss, speed)
        self.rest = Step(classifier, attack, loss, Speed(bfloat16=speed.bfloat16))
        self.recording: _Recording | None = None

    def quick(self, model: Model) -> Model:
        if self.speed.compiled:
            model = cast(Model, torch.compile(cast(Callable[..., Any], model), dynamic=False))
        return super().quick(model)

    def gradients_from(self, start: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        if self.recording is None:
            self.recording = _Recording(self, images, labels)
        if images.shape != self.recording.images.shape:
            return self.rest.gradients_from(start, images, labels)
        return self.recording.replay(images, labels, start)

    def compute(self, model: Model, images: Tensor, labels: Tensor, start: Tensor) -> Tensor:
        """What is recorded; ``model`` is the frozen one."""
        if self.attack is not None:
            objective = self.attack.objective(model, images)
            adversarial = self.attack.climb(
                model, start, images, labels, objective, self.attack.steps
            )
            images = torch.cat([images, adversarial]) if self.loss.on_clean else adversarial
        return self._backward(self.trained, images, labels)


class _Recording:
    """A step's graph of kernels, with the tensors that it reads and writes."""

    #: Before a recording, libraries choose kernels and take memory, and what compiles is compiled.
    WARM_UPS = 3

    def __init__(self, step: RecordedStep, images: Tensor, labels: Tensor) -> None:
        classifier = step.classifier
        self.images = images.clone(memory_format=torch.channels_last)
        self.labels, self.start = labels.clone(), self.images.clone()
        frozen = frozen_model(classifier.eval())
        _require_shared(classifier, frozen)
        model = step.quick(frozen)
        classifier.train()

        def run() -> Tensor:
            classifier.zero_grad(set_to_none=True)
            return step.compute(model, self.images, self.labels, self.start)

        statistics = [(buffer, buffer.clone()) for buffer in classifier.buffers()]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), _fast_kernels():
            for _ in range(self.WARM_UPS):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        classifier.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph), _fast_kernels():
            self.loss = run()
        self.gradients = [(p, p.grad) for p in classifier.parameters()]
        with torch.no_grad():
            for buffer, before in statistics:
                buffer.copy_(before)

    def replay(self, images: Tensor, labels: Tensor, start: Tensor) -> Tensor:
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.start.copy_(start)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.loss.clone()


@contextmanager
def _fast_kernels() -> Iterator[None]:
    """Batches are all of one size, so it pays to try which convolution is the fastest.

    Products are rounded as convolutions are by default: TF32 inside, float32 sums.
    """
    before = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before[0]
        torch.set_float32_matmul_precision(before[1])


def _require_shared(classifier: Classifier, frozen: Model) -> None:
    """Check that the frozen copy follows the classifier.

    Raises:
        RuntimeError: if a parameter was copied.
    """
    copies = cast(Classifier, frozen).named_parameters()
    for (name, own), (_, copied) in zip(classifier.named_parameters(), copies, strict=True):
        if own.data_ptr() != copied.data_ptr():
            raise RuntimeError(f"{name} is not in channels-last order: a recording would go stale")


def make_step(
    classifier: Classifier,
    attack: PGD | None,
    loss: StepLoss = PAPERS_MIX,
    speed: Speed = PLAIN,
) -> Step:
    """The step as it is fastest on the classifier's device."""
    on_cuda = next(classifier.parameters()).device.type == "cuda"
    kind = RecordedStep if on_cuda and speed.recorded else Step
    return kind(classifier, attack, loss, speed)


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile has what it needs to write kernels for a GPU."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None
