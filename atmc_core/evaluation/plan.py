"""How an evaluation's work is divided: which images, which portions, which radii."""

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

#: The number of images on which the checks that need extra passes are made.
PROBE_IMAGES = 100
#: The check for too weak an attack runs PGD with this many times the steps of the report's PGD.
PROBE_EFFORT = 3
#: The largest number of images that are proven at once.
PROOF_BATCH = 50
#: The number of images that the report shows next to their adversarial examples.
SHOWN_IMAGES = 8
#: The curve of accuracy over radius has at least this many points.
MIN_CURVE_POINTS = 7
# The radii of the curve, as multiples of the threat's radius.
_MULTIPLES = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 16, 32, 64, 128, 256, 512, 1024)
# The probe's own passes: the outputs twice, and one loss gradient (a forward and a backward pass).
_PROBE_PASSES = 4
# Each choice of images draws from a random stream of its own, named by these numbers.
_IMAGES, _CURVE_IMAGES, _PROBE_IMAGES = range(3)


@dataclass(frozen=True)
class Portion:
    """The unit in which an evaluation is run, saved and resumed.

    A portion is a batch under one attack (or under none), a point of the curve, a batch whose
    images are to be proven, a point of the curve of what is proven, or the probe.

    Attributes:
        kind: what the portion computes.
        name: the attack's name; None unless ``kind`` is "attack".
        index: the number of the batch, or of the curve's point, from 0.
        cost: an upper bound on the work, in forward passes of one image.
    """

    kind: Literal["clean", "attack", "curve", "proof", "proof_curve", "probe"]
    name: AttackName | None
    index: int
    cost: float


def evaluation_portions(
    evaluation: Evaluation,
    threat: Threat,
    attacks: Iterable[ReportAttack],
    num_images: int,
    num_pixels: int,
    proof_passes: float = 0.0,
) -> list[Portion]:
    """All portions of an evaluation, in running order.

    Args:
        evaluation: the settings of the evaluation.
        threat: the ball that the attacks search.
        attacks: the attacks of the report, in running order.
        num_images: how many images are evaluated.
        num_pixels: how many numbers one image has (channels * height * width).
        proof_passes: the passes that the proof of one image takes; 0 if nothing is proven.
    """
    size = evaluation.batch_size
    batches = [min(size, num_images - start) for start in range(0, num_images, size)]
    portions = [Portion("clean", None, i, count) for i, count in enumerate(batches)]
    for attack in attacks:
        costs = [count * attack.passes for count in batches]
        portions += [Portion("attack", attack.name, i, cost) for i, cost in enumerate(costs)]
    points = len(curve_epsilons(threat, num_pixels))
    curve = 2 * evaluation.curve_steps * min(evaluation.curve_images, num_images)
    portions += [Portion("curve", None, i, curve if i else 0) for i in range(points)]
    if proof_passes:
        size = min(size, PROOF_BATCH)
        starts = range(0, num_images, size)
        batches = [min(size, num_images - start) for start in starts]
        portions += [Portion("proof", None, i, n * proof_passes) for i, n in enumerate(batches)]
        whole = proof_passes * min(evaluation.curve_images, num_images)
        portions += [Portion("proof_curve", None, i, whole if i else 0) for i in range(points)]
    probe = _PROBE_PASSES + 2 * PROBE_EFFORT * evaluation.pgd_steps
    portions.append(Portion("probe", None, 0, probe * min(PROBE_IMAGES, num_images)))
    return portions


def curve_epsilons(threat: Threat, num_pixels: int) -> list[float]:
    """The radii of the curve, ascending, for images in [0, 1].

    They run from 0, past the threat's radius, to the radius at which any image can become any
    other.
    """
    limit = 1.0 if threat.norm == "linf" else math.sqrt(num_pixels)
    epsilons = [m * threat.epsilon for m in _MULTIPLES if m * threat.epsilon < limit] + [limit]
    while len(epsilons) < MIN_CURVE_POINTS:
        gaps = [high - low for low, high in itertools.pairwise(epsilons)]
        widest = max(range(len(gaps)), key=gaps.__getitem__)
        epsilons.insert(widest + 1, epsilons[widest] + gaps[widest] / 2)
    return epsilons


def evaluated_indices(labels: Tensor, evaluation: Evaluation, seed: int) -> Tensor:
    """Choose the images that are evaluated: ascending positions in its split, int64 ``[M]``.

    Args:
        labels: the labels of the evaluated split, int64 ``[N]``.
        evaluation: its ``image_limit`` bounds M.
        seed: seeds the random choice.
    """
    return stratified(labels, evaluation.image_limit, seed, _IMAGES)


def curve_positions(labels: Tensor, evaluation: Evaluation, seed: int) -> Tensor:
    """Choose the images of the curve: ascending positions among the evaluated ones, int64 ``[M]``.

    Args:
        labels: the labels of the evaluated images, int64 ``[N]``.
        evaluation: its ``curve_images`` bounds M.
        seed: seeds the random choice.
    """
    return stratified(labels, evaluation.curve_images, seed, _CURVE_IMAGES)


def probe_positions(labels: Tensor, seed: int) -> Tensor:
    """Choose the images of the probe: ascending positions among the evaluated ones, int64 ``[M]``.

    Args:
        labels: the labels of the evaluated images, int64 ``[N]``.
        seed: seeds the random choice.
    """
    return stratified(labels, PROBE_IMAGES, seed, _PROBE_IMAGES)


def shown_positions(labels: Tensor) -> Tensor:
    """Choose the images that the report shows: int64 ``[M]``, M at most ``SHOWN_IMAGES``.

    The first image of each class comes first, then the second of each, and so on.

    Args:
        labels: the labels of the evaluated images, int64 ``[N]``.
    """
    ranks = _rank_within_class(labels.cpu())
    order = torch.argsort(ranks * (len(labels) + 1) + labels.cpu())
    return order[:SHOWN_IMAGES]


def stratified(labels: Tensor, count: int, *path: int) -> Tensor:
    """Choose ``count`` positions at random such that the classes keep their proportions.

    Args:
        labels: int64 ``[N]``.
        count: how many positions to choose; all N if there are no more.
        path: the seed, then what the choice is for (see ``random_generator``).

    Returns:
        The positions in ascending order, int64 ``[min(count, N)]``, on the CPU.
    """
    labels = labels.cpu()
    if count >= len(labels):
        return torch.arange(len(labels))
    order = torch.randperm(len(labels), generator=random_generator("cpu", *path))
    shuffled = labels[order]
    # Images are sorted by their relative rank within their class (0 is first, 1 is last). Any
    # prefix of this order contains the classes in their proportions.
    relative = (_rank_within_class(shuffled) + 0.5) / torch.bincount(shuffled)[shuffled]
    return order[torch.argsort(relative, stable=True)[:count]].sort().values


def _rank_within_class(labels: Tensor) -> Tensor:
    """For each image, how many images of the same class come before it, int64 ``[N]``."""
    ranks = torch.empty_like(labels)
    for label in torch.unique(labels):
        members = (labels == label).nonzero()[:, 0]
        ranks[members] = torch.arange(len(members))
    return ranks
