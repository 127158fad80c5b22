"""AutoAttack: four different attacks, each on the images that the ones before it left standing.

Source: Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (2020), section 6: the standard version.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from atmc_core.attacks.apgd import APGD, APGDT
from atmc_core.attacks.base import (
    Attack,
    Model,
    SearchAttack,
    require_attackable,
    require_positive,
)
from atmc_core.attacks.counting import CountingModel
from atmc_core.attacks.fab import FABT
from atmc_core.attacks.frozen import frozen_copy
from atmc_core.attacks.norms import Ball
from atmc_core.attacks.square import Square
from atmc_core.randomness import random_generator


@dataclass
class AutoAttackState:
    """The progress of a run: all that the next batch depends on but model, images and labels.

    Attributes:
        seed: seeds everything that is drawn at random.
        adversarial: for each image its adversarial example if one was found, else the image
            itself, ``[N, C, H, W]`` in [0, 1].
        logits: the model's outputs on the images, ``[N, classes]``.
        standing: whether no attack has fooled the model on the image yet, bool ``[N]``.
        survivors: how many images stood after each finished attack, by name in running order. The
            first entry, ``clean``, counts the images that the model gets right.
        pending: the row numbers of the images that the current attack has still to try, int64
            ``[M]``.
        batch: how many batches the current attack has tried.
        forward_images: how many images went forward through the model, by attack (and ``clean``).
        backward_images: for how many images a gradient was computed, by attack (and ``clean``).
    """

    seed: int
    adversarial: Tensor
    logits: Tensor
    standing: Tensor
    survivors: dict[str, int]
    pending: Tensor
    batch: int
    forward_images: dict[str, int]
    backward_images: dict[str, int]


@dataclass(frozen=True)
class AutoAttack(Attack):
    """APGD-CE, APGD-T, FAB-T and Square in turn; the default numbers are the published ones.

    An image is not attacked again once the model was fooled on it; an image on which every attack
    failed is returned unchanged. A ``torch.nn.Module`` is attacked as its ``frozen_copy``, which is
    faster than attacking another callable. Models with fewer than four classes are attacked as
    ``APGDT`` describes.

    Attributes:
        ball: the ball that the perturbations stay in.
        targets: the largest number of target classes of APGD-T and FAB-T for each image; at most
            all but the true one.
        steps: the number of gradient steps of APGD-CE, and of APGD-T and FAB-T for each target.
        queries: the number of queries of Square for each image.
        batch_size: the number of images (or pairs of image and target) that are attacked at a time.

    Raises:
        ValueError: if a number is not positive.
    """

    ball: Ball
    targets: int = field(default=9, kw_only=True)
    steps: int = field(default=100, kw_only=True)
    queries: int = field(default=5000, kw_only=True)
    batch_size: int = field(default=256, kw_only=True)

    def __post_init__(self) -> None:
        require_positive(batch_size=self.batch_size)
        self.attacks()

    def attacks(self) -> dict[str, SearchAttack]:
        """The four attacks by name, in running order."""
        targeted = {"targets": self.targets, "steps": self.steps, "batch_size": self.batch_size}
        return {
            "apgd-ce": APGD(self.ball, steps=self.steps),
            "apgd-t": APGDT(self.ball, **targeted),
            "fab-t": FABT(self.ball, **targeted),
            "square": Square(self.ball, queries=self.queries),
        }

    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        state = self.begin(model, images, labels, generator=generator)
        for _ in self.run_batches(model, images, labels, state):
            pass
        return state.adversarial

    def begin(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> AutoAttackState:
        """The state before the first batch; the arguments are those of ``run``.

        Raises:
            ValueError: if there are no images, or the model knows fewer than two classes.
            FloatingPointError: if the model returns NaN or infinity.
        """
        with torch.no_grad():
            logits = torch.cat([model(batch) for batch in torch.split(images, self.batch_size)])
        require_attackable(logits)
        standing = logits.argmax(1) == labels
        seed = torch.randint(2**62, (1,), device=images.device, generator=generator)
        return AutoAttackState(
            seed=int(seed),
            adversarial=images.clone(),
            logits=logits,
            standing=standing,
            survivors={"clean": int(standing.sum())},
            pending=standing.nonzero()[:, 0],
            batch=0,
            forward_images={"clean": len(images)},
            backward_images={"clean": 0},
        )

    def run_batches(
        self, model: Model, images: Tensor, labels: Tensor, state: AutoAttackState
    ) -> Iterator[AutoAttackState]:
        """Continue from ``state``, which is changed in place and yielded after every batch.

        A run can be interrupted there: from a saved state, whose fields are tensors and plain
        values, and the same model, images and labels, it yields the same adversarial images as an
        undisturbed run.

        Args:
            model: the attacked model; see ``Attack.run``.
            images: float ``[N, C, H, W]`` in [0, 1].
            labels: the true classes, int64 ``[N]``.
            state: as ``begin`` made it, or as an earlier run left it.
        """
        model = frozen_copy(model)
        for name, attack in list(self.attacks().items())[len(state.survivors) - 1 :]:
            while len(state.pending):
                self._attack_batch(name, attack, model, images, labels, state)
                if not len(state.pending):
                    break
                yield state
            state.survivors[name] = int(state.standing.sum())
            state.pending, state.batch = state.standing.nonzero()[:, 0], 0
            yield state

    def _attack_batch(
        self,
        name: str,
        attack: SearchAttack,
        model: Model,
        images: Tensor,
        labels: Tensor,
        state: AutoAttackState,
    ) -> None:
        chosen, state.pending = state.pending[: self.batch_size], state.pending[self.batch_size :]
        counting = CountingModel(model)
        found = attack.search(
            counting,
            images[chosen],
            labels[chosen],
            state.logits[chosen],
            generator=random_generator(
                images.device, state.seed, len(state.survivors), state.batch
            ),
        )
        fallen, points = chosen[found.fooled], found.points[found.fooled]
        if len(fallen):
            # In another batch the outputs are rounded differently, so an image on the very boundary
            # may not fool the model again.
            with torch.no_grad():
                wrong = counting(points).argmax(1) != labels[fallen]
            state.adversarial[fallen[wrong]] = points[wrong]
            state.standing[fallen[wrong]] = False
        state.batch += 1
        for total, count in (
            (state.forward_images, counting.forward_images),
            (state.backward_images, counting.backward_images),
        ):
            total[name] = total.get(name, 0) + count
