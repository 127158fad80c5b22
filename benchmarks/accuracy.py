"""Accuracy on a test split under one attack after another, each on what the last left standing."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from atmc_core.attacks import PGD, Attack, ball
from atmc_core.attacks.base import Model
from atmc_core.data import Split
from atmc_core.networks.classifier import Classifier, frozen_model
from atmc_core.networks.removal import compact
from atmc_core.randomness import random_generator
from benchmarks.timing import say

_SAY_EVERY_S = 15


def first_images(path: Path, count: int | None = None) -> Split:
    """The first test images of a data set's file (all by default) and their labels."""
    with np.load(path) as arrays:
        pixels = torch.from_numpy(arrays["x_test"][:count])
        labels = torch.from_numpy(arrays["y_test"][:count].astype(np.int64))
    nchw = pixels.reshape(*pixels.shape[:3], -1).permute(0, 3, 1, 2).contiguous()
    return Split(nchw, labels)


def papers_attacks(
    epsilon: float, steps: int, strong_steps: int = 40, restarts: int = 5
) -> tuple[Attack | None, ...]:
    """Clean images, the paper's PGD from a random start, and a harder one with restarts."""
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
    """The share of images that is classified right under each attack and all before it.

    Args:
        attacks: None is the clean image.
        path: of the random numbers; the attack's place in turn is added.
        at_once: images a batch.
    """
    # Without its dead channels it computes the same, sooner.
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
    """Which of the standing images are still classified right under an attack, bool ``[N]``."""
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
