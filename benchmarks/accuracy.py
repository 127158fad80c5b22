"""Accuracy on a test split: attack after attack as the paper has it, and in the worst case."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from atmc_core import evaluate
from atmc_core.attacks import PGD, Attack, ball
from atmc_core.attacks.base import Model
from atmc_core.data import Split
from atmc_core.networks.classifier import Classifier, frozen_model
from atmc_core.networks.removal import compact
from atmc_core.randomness import random_generator
from benchmarks.timing import say

# The number of images in a batch of ``worst_case``.
_WORST_AT_ONCE = 250
# Progress is printed every so many seconds.
_SAY_EVERY_S = 15


def first_images(path: Path, count: int | None = None) -> Split:
    """The first ``count`` test images (by default all) of a data set's file, with their labels."""
    with np.load(path) as arrays:
        pixels = torch.from_numpy(arrays["x_test"][:count])
        labels = torch.from_numpy(arrays["y_test"][:count].astype(np.int64))
    nchw = pixels.reshape(*pixels.shape[:3], -1).permute(0, 3, 1, 2).contiguous()
    return Split(nchw, labels)


def papers_attacks(
    epsilon: float, steps: int, strong_steps: int = 40, restarts: int = 5
) -> tuple[Attack | None, ...]:
    """No attack, the paper's PGD from a random start, and a stronger PGD with restarts.

    Args:
        epsilon: the radius in linf, in pixel values.
        steps: the steps of the paper's PGD.
        strong_steps: the steps of the stronger one.
        restarts: the random starts of the stronger one.
    """
    limits = ball("linf", epsilon)
    strong = PGD(limits, strong_steps, 2.5 * epsilon / strong_steps)
    return None, PGD(limits, steps, 1.25 * epsilon / steps), strong.repeat(restarts)


def standing_after(
    classifier: Classifier,
    test: Split,
    attacks: Sequence[Attack | None],
    *,
    path: tuple[int, ...],
    at_once: int,
) -> list[float]:
    """The shares of images that are classified correctly under each attack and all before it.

    Args:
        classifier: the attacked classifier.
        test: the images, on the classifier's device.
        attacks: the attacks in running order; None is no attack.
        path: the place in the run for random numbers, to which the number of the attack is added.
        at_once: the number of images in a batch.
    """
    # Without its dead channels the classifier computes the same and is faster.
    model = frozen_model(compact(classifier.eval()))
    standing = torch.ones(len(test), dtype=torch.bool)
    shares = []
    for index, attack in enumerate(attacks):
        say(f"  evaluation {index + 1} of {len(attacks)} on {int(standing.sum())} images")
        standing &= _survivors(model, test, attack, standing, (*path, index), at_once)
        shares.append(float(standing.double().mean()))
    return shares


def _survivors(
    model: Model,
    test: Split,
    attack: Attack | None,
    standing: torch.Tensor,
    path: tuple[int, ...],
    at_once: int,
) -> torch.Tensor:
    """Whether each standing image is still classified correctly under an attack, bool ``[N]``."""
    right = torch.zeros_like(standing)
    generator = random_generator(test.labels.device, *path)
    if not standing.any():
        return right
    said = time.monotonic()
    for index in torch.split(standing.nonzero()[:, 0], at_once):
        if time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            say(f"    at image {int(index[0])} of {len(standing)}, {int(right.sum())} stand so far")
        batch, labels = test.batch(index.to(test.labels.device))
        if attack is not None:
            batch = attack.run(model, batch, labels, generator=generator)
        with torch.no_grad():
            right[index] = (model(batch).argmax(1) == labels).cpu()
    return right


def worst_case(classifier: Classifier, test: Split, epsilon: float) -> dict[str, float]:
    """The accuracies of a network: clean, under each of three attacks, and in the worst case.

    They are PGD (40 steps, 5 random starts), PGD on smooth backward passes (40 steps, 8 runs that
    differ in temperature, loss and step size) and AutoAttack as it is published, in linf. In the
    worst case an image has to withstand all of them.

    Args:
        classifier: the attacked classifier.
        test: the images, on the CPU; batches are moved to the classifier's device.
        epsilon: the radius in linf, in pixel values.

    Returns:
        Shares of images: ``clean_accuracy``, ``pgd_accuracy``, ``smooth_accuracy``,
        ``autoattack_accuracy``, ``worst_accuracy``; and ``square_alone``, the share that withstands
        everything but Square.
    """
    images, labels = test.batch(torch.arange(len(test)))
    (found,) = evaluate(
        # Without its dead channels the classifier computes the same and is faster.
        compact(classifier.eval()),
        images,
        labels,
        epsilons=[epsilon],
        attacks=("pgd", "pgd_smooth", "autoattack"),
        batch_size=_WORST_AT_ONCE,
        progress=lambda line: say(f"  {line}"),
        pgd_steps=40,
        pgd_restarts=5,
        smooth_restarts=8,
    )
    under = found.right_under
    white = torch.stack([right for name, right in under.items() if name != "square"]).all(0)
    return {
        "clean_accuracy": found.clean.value,
        "pgd_accuracy": found.attacks["pgd"],
        "smooth_accuracy": found.attacks["pgd_smooth"],
        # Square is the last of AutoAttack's members, each of which attacks what is left.
        "autoattack_accuracy": found.attacks["square"],
        "worst_accuracy": found.robust.value,
        "square_alone": float((white & ~under["square"]).double().mean()),
    }
