"""What an evaluation does: on which images, in which steps, at which radii."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from atmc_core.evaluation.attacks import ReportAttack
from atmc_core.randomness import random_generator
from atmc_spec import AttackName, Evaluation, Threat

#: Images on which the checks that need extra passes are made.
PROBE_IMAGES = 100
#: How many times the steps of the report's PGD the check for too little effort takes.
PROBE_EFFORT = 3
#: Images shown with their adversarial twins.
SHOWN_IMAGES = 8
_LEAST_POINTS = 7
_MULTIPLES = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 16, 32, 64, 128, 256, 512, 1024)
#: The kinds of random numbers that an evaluation draws.
_IMAGES, _CURVE_IMAGES, _PROBE_IMAGES = range(3)


@dataclass(frozen=True)
class Step:
    """One resumable step: a batch under one attack, a point of the curve, or the probe.

    Attributes:
        name: of the attack, where there is one.
        index: of the batch or of the curve's point.
        cost: in forward passes of one image, at most.
    """

    kind: Literal["clean", "attack", "curve", "probe"]
    name: AttackName | None
    index: int
    cost: float


def evaluation_steps(
    evaluation: Evaluation,
    threat: Threat,
    attacks: Iterable[ReportAttack],
    num_images: int,
    num_pixels: int,
) -> list[Step]:
    """All steps of an evaluation of ``num_images`` images of ``num_pixels`` numbers each."""
    size = evaluation.batch_size
    batches = [min(size, num_images - start) for start in range(0, num_images, size)]
    steps = [Step("clean", None, i, count) for i, count in enumerate(batches)]
    for attack in attacks:
        costs = [count * attack.passes for count in batches]
        steps += [Step("attack", attack.name, i, cost) for i, cost in enumerate(costs)]
    points = len(curve_epsilons(threat, num_pixels))
    curve = 2 * evaluation.curve_steps * min(evaluation.curve_images, num_images)
    steps += [Step("curve", None, i, curve if i else 0) for i in range(points)]
    probe = 4 + 2 * PROBE_EFFORT * evaluation.pgd_steps
    steps.append(Step("probe", None, 0, probe * min(PROBE_IMAGES, num_images)))
    return steps


def curve_epsilons(threat: Threat, num_pixels: int) -> list[float]:
    """Radii from 0, past the threat's, to the one within which any image becomes any other."""
    limit = 1.0 if threat.norm == "linf" else math.sqrt(num_pixels)
    epsilons = [m * threat.epsilon for m in _MULTIPLES if m * threat.epsilon < limit] + [limit]
    while len(epsilons) < _LEAST_POINTS:
        gaps = [high - low for low, high in itertools.pairwise(epsilons)]
        widest = max(range(len(gaps)), key=gaps.__getitem__)
        epsilons.insert(widest + 1, epsilons[widest] + gaps[widest] / 2)
    return epsilons


def evaluated_indices(labels: Tensor, evaluation: Evaluation, seed: int) -> Tensor:
    """The images of the test split that are evaluated, in the split's order."""
    return stratified(labels, evaluation.image_limit, seed, _IMAGES)


def curve_positions(labels: Tensor, evaluation: Evaluation, seed: int) -> Tensor:
    """Which of the evaluated images the curve is drawn from."""
    return stratified(labels, evaluation.curve_images, seed, _CURVE_IMAGES)


def probe_positions(labels: Tensor, seed: int) -> Tensor:
    """Which of the evaluated images are probed."""
    return stratified(labels, PROBE_IMAGES, seed, _PROBE_IMAGES)


def shown_positions(labels: Tensor) -> Tensor:
    """Which of the evaluated images are shown: the first of each class, then the second ones."""
    ranks = _rank_within_class(labels.cpu())
    order = torch.argsort(ranks * (len(labels) + 1) + labels.cpu())
    return order[:SHOWN_IMAGES]


def stratified(labels: Tensor, count: int, *path: int) -> Tensor:
    """``count`` positions, or all, in rising order, every class in its share; int64 on the CPU.

    Args:
        path: seed and place in the run, for the random choice within a class.
    """
    labels = labels.cpu()
    if count >= len(labels):
        return torch.arange(len(labels))
    order = torch.randperm(len(labels), generator=random_generator("cpu", *path))
    shuffled = labels[order]
    # Taken by how far through its class each image comes, classes keep their proportions.
    through = (_rank_within_class(shuffled) + 0.5) / torch.bincount(shuffled)[shuffled]
    return order[torch.argsort(through, stable=True)[:count]].sort().values


def _rank_within_class(labels: Tensor) -> Tensor:
    """How many images of its own class come before each."""
    ranks = torch.empty_like(labels)
    for label in torch.unique(labels):
        members = (labels == label).nonzero()[:, 0]
        ranks[members] = torch.arange(len(members))
    return ranks
