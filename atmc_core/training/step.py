"""A training step up to the update: adversarial images, the loss on them, and its gradients."""

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
from atmc_core.training.teacher import Teacher


class StepLoss(ABC):
    """The loss of a training step.

    Attributes:
        on_clean: whether adversarial training runs the network on the clean images, too.
    """

    on_clean: bool = True

    @abstractmethod
    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of a batch of N images.

        Args:
            logits: ``[2N, classes]``, first those of the clean images, then those of the
                adversarial ones. In clean training, and if ``on_clean`` is false, there is only one
                kind, ``[N, classes]``.
            labels: the true classes, int64 ``[N]``, or the probability of each class, float
                ``[N, classes]``.

        Returns:
            The loss, a scalar.
        """


@dataclass(frozen=True)
class MixedLoss(StepLoss):
    """The weighted mean of the cross-entropies on clean and on adversarial images.

    Attributes:
        clean_weight: the weight of the clean images, in [0, 1]; the paper's is one half.
    """

    clean_weight: float = 0.5

    @property
    def on_clean(self) -> bool:  # type: ignore[override]
        return self.clean_weight > 0

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        losses = [F.cross_entropy(part, labels) for part in torch.split(logits, len(labels))]
        return losses[0] if len(losses) == 1 else losses[1].lerp(losses[0], self.clean_weight)


#: The loss of the ATMC paper.
PAPERS_MIX = MixedLoss()


@dataclass(frozen=True)
class Speed:
    """Settings that make a step faster and change its results by rounding only.

    Attributes:
        bfloat16: whether convolutions and matrix products run in bfloat16 (autocast); weights,
            norms' statistics, losses and updates stay float32.
        compiled: whether the forward and backward passes of recorded steps are compiled
            (torch.compile).
        recorded: whether steps on a GPU are recorded as a CUDA graph; the network must allow it
            (see ``recordable``).
    """

    bfloat16: bool = False
    compiled: bool = False
    recorded: bool = True


#: The settings without rounding to bfloat16 and without compilation.
PLAIN = Speed()


class Step:
    """Computes the gradients of a training step and leaves them in the classifier's parameters.

    The attack runs on the network in evaluation mode, so that the norms' statistics do not change,
    and without gradients of the network's own tensors.

    Args:
        classifier: the classifier that is trained.
        attack: makes the adversarial images; without one, training is on the clean images alone.
        loss: the loss of the step.
        speed: settings that make the step faster.
        teacher: makes the labels that are learned and attacked soft.
    """

    def __init__(
        self,
        classifier: Classifier,
        attack: PGD | None,
        loss: StepLoss = PAPERS_MIX,
        speed: Speed = PLAIN,
        teacher: Teacher | None = None,
    ) -> None:
        self.classifier, self.attack, self.loss, self.speed = classifier, attack, loss, speed
        self.teacher = teacher

    def gradients(
        self, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Compute the gradients on one batch.

        Args:
            images: float ``[N, C, H, W]`` in [0, 1].
            labels: the true classes, int64 ``[N]``.
            generator: draws the attack's random start; on the images' device.

        Returns:
            The loss, a scalar on the device.

        Raises:
            FloatingPointError: if the attack finds NaN or infinity; a recorded step does not look.
        """
        return self.gradients_from(self.start(images, generator), images, labels)

    def start(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """The points where the attack starts, ``[N, C, H, W]``.

        Apart from dropout, a step draws nothing else at random.
        """
        return self.attack.start(images, generator) if self.attack else images

    def gradients_from(self, start: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """As ``gradients``, but the attack starts at ``start``, ``[N, C, H, W]``."""
        labels = self.learned(images, labels)
        if self.attack is not None:
            model = self.quick(frozen_model(self.classifier.eval()))
            adversarial = self.attack.run_from(start, model, images, labels)
            images = torch.cat([images, adversarial]) if self.loss.on_clean else adversarial
        self.classifier.train()
        return self._backward(self.trained, images, labels)

    def at(self, progress: float) -> None:
        """Hear before each step which share of the stage has passed, 0 to below 1."""

    def learned(self, images: Tensor, labels: Tensor) -> Tensor:
        """The labels that are learned and attacked: the true classes, or a teacher's soft ones."""
        return self.teacher.labels(images, labels) if self.teacher else labels

    @cached_property
    def trained(self) -> Model:
        """The classifier in the precision of the training pass."""
        return self.quick(self.classifier)

    def quick(self, model: Model) -> Model:
        """The model in the precision of ``speed``; its logits are always float32."""
        if not self.speed.bfloat16:
            return model

        def run(images: Tensor) -> Tensor:
            # Autocast's cache of converted weights is off: a recorded graph would keep using it.
            with torch.autocast(images.device.type, torch.bfloat16, cache_enabled=False):
                logits = model(images)
            return logits.float()

        return run

    def _backward(self, model: Model, images: Tensor, labels: Tensor) -> Tensor:
        loss = self.loss(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


class RecordedStep(Step):
    """A step on CUDA that is recorded once as a graph of kernels and replayed for every full batch.

    A small network's step is hundreds of kernels of a few microseconds each, and Python starts them
    more slowly than the device runs them. The recording contains the addresses of parameters and
    statistics, so these must be changed in place only, as this package does. A batch of another
    size (an epoch's last) is computed by a ``Step``, in which nothing is compiled.
    """

    def __init__(
        self,
        classifier: Classifier,
        attack: PGD | None,
        loss: StepLoss = PAPERS_MIX,
        speed: Speed = PLAIN,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__(classifier, attack, loss, speed, teacher)
        self.rest = Step(classifier, attack, loss, Speed(bfloat16=speed.bfloat16), teacher)
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
        """Compute the gradients of a batch; this is what is recorded.

        Args:
            model: the frozen copy of the classifier, which is attacked.
            images: float ``[N, C, H, W]`` in [0, 1].
            labels: the true classes, int64 ``[N]``.
            start: the points where the attack starts, ``[N, C, H, W]``.

        Returns:
            The loss, a scalar on the device.
        """
        labels = self.learned(images, labels)
        if self.attack is not None:
            objective = self.attack.objective(model, images)
            adversarial = self.attack.climb(
                model, start, images, labels, objective, self.attack.steps
            )
            images = torch.cat([images, adversarial]) if self.loss.on_clean else adversarial
        return self._backward(self.trained, images, labels)


class _Recording:
    """The CUDA graph of a step, with the tensors that it reads and writes."""

    #: The step runs this often before it is recorded: libraries choose their kernels and allocate
    #: memory then, and the passes are compiled, none of which may happen during a recording.
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
        """Run the recorded step on a batch of the recorded size; returns the loss, a scalar."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.start.copy_(start)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.loss.clone()


@contextmanager
def _fast_kernels() -> Iterator[None]:
    """Let CUDA choose faster kernels inside the context.

    All batches have one size, so it pays to measure which convolution is the fastest. Matrix
    products are rounded as convolutions are by default: TF32 factors, float32 sums.
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
    """Check that the frozen copy shares its parameters with the classifier, and so follows it.

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
    teacher: Teacher | None = None,
) -> Step:
    """The fastest kind of step on the classifier's device; arguments as in ``Step``."""
    on_cuda = next(classifier.parameters()).device.type == "cuda"
    kind = RecordedStep if on_cuda and speed.recorded else Step
    return kind(classifier, attack, loss, speed, teacher)


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile can be used: it needs a GPU and the triton package."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None
