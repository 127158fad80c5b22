"""Accuracy on a test split under one attack after another, each on what the last left standing."""

from collections.abc import Sequence

import torch

from atmc_core.attacks import Attack
from atmc_core.attacks.base import Model
from atmc_core.compaction import compact
from atmc_core.data import Split
from atmc_core.model import Classifier
from atmc_core.step import frozen_model
from atmc_core.training import random_generator
from benchmarks.timing import say


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
    for index in torch.split(standing.nonzero()[:, 0], at_once):
        batch, labels = test.batch(index.to(test.labels.device))
        if attack is not None:
            batch = attack.run(model, batch, labels, generator=generator)
        with torch.no_grad():
            right[index] = (model(batch).argmax(1) == labels).cpu()
    return right
