"""Nearest points on a hyperplane within the box [0, 1], without sorting.

The problem is equation 4 of Croce & Hein, "Minimally distorted adversarial examples with a fast
adaptive boundary attack" (2020). They sort the coordinates. Here the one unknown is found by
Newton's method, which is exact after a few steps because the function is concave and piecewise
linear.
"""

import torch
from torch import Tensor

from atmc_core.attacks.norms import Norm

# A bound on Newton's iterations; in practice fewer than ten are needed.
_MAX_ITERATIONS = 50
# The iteration ends when the unknown grows by less than this share.
_CONVERGED = 1e-6
# Divisors are kept at least this large.
_TINY = 1e-12


def to_hyperplane(points: Tensor, normals: Tensor, excess: Tensor, norm: Norm) -> Tensor:
    """The shortest step from each point to its hyperplane that stays in [0, 1].

    If the box does not reach the hyperplane, the step goes as close to it as the box allows.

    Args:
        points: the points, ``[N, D]`` in [0, 1].
        normals: the normal w of each hyperplane <w, x> = b, ``[N, D]``.
        excess: <w, point> - b, the (signed, unscaled) distance of each point, ``[N]``.
        norm: the norm in which the step is shortest.

    Returns:
        The steps, ``[N, D]``.
    """
    direction = normals * -excess.sign()[:, None]
    weight = direction.abs()
    room = torch.where(direction > 0, 1 - points, points)
    if norm == "linf":
        reach = _level(weight, room, excess.abs())
        return torch.minimum(room, reach[:, None]).mul_(direction.sign_())
    caps = room.div_(weight.clamp_min(_TINY))
    reach = _level(weight.square_(), caps, excess.abs())
    return torch.minimum(caps, reach[:, None]).mul_(direction)


def _level(gains: Tensor, caps: Tensor, wanted: Tensor) -> Tensor:
    """The least t with sum_i gains_i min(t, caps_i) >= wanted; beyond all caps if there is none.

    The sum is concave in t, so Newton's iterates from the left never pass the root. Once an
    iteration passes no further cap, t is exact.

    Args:
        gains: non-negative, ``[N, D]``.
        caps: non-negative, ``[N, D]``.
        wanted: non-negative, ``[N]``.

    Returns:
        t for each row, ``[N]``.
    """
    level = torch.zeros_like(wanted)
    scratch = torch.empty_like(gains)  # allocating temporaries of this size would cost more
    for _ in range(_MAX_ITERATIONS):
        slope = torch.gt(caps, level[:, None], out=scratch).mul_(gains).sum(1)
        reached = torch.minimum(caps, level[:, None], out=scratch).mul_(gains).sum(1)
        rise = torch.where(slope > _TINY, (wanted - reached) / slope.clamp_min(_TINY), 0)
        higher = level + rise.clamp_min_(0)
        done = higher <= level * (1 + _CONVERGED)
        level = higher
        if done.all():
            break
    return level
