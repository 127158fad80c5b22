"""Nearest points on a hyperplane within the box [0, 1], without sorting.

Source of the problem: Croce & Hein, "Minimally distorted adversarial examples with a fast adaptive
boundary attack" (2020), equation 4. They sort the coordinates; here the one unknown is found by
Newton's method, which is exact after a few steps, as the function is concave and piecewise linear.
"""

import torch
from torch import Tensor

from atmc_core.attacks.norms import Norm

# Each step frees at least one coordinate from guesswork; in practice under ten are taken.
_MOST_STEPS = 50
_TINY = 1e-12


def to_hyperplane(points: Tensor, normals: Tensor, excess: Tensor, norm: Norm) -> Tensor:
    """The shortest step from each point to its hyperplane that stays in [0, 1].

    Where the box does not reach the hyperplane, the step goes as near to it as the box allows.

    Args:
        points: ``[N, D]`` in [0, 1].
        normals: w of each hyperplane, ``[N, D]``.
        excess: <w, point> - b, ``[N]``: how far the point is above its hyperplane.
        norm: what is shortest.

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
    """The least t with sum_i gains_i min(t, caps_i) >= wanted, ``[N]``; past all caps if none.

    From the left Newton's steps never pass the root, so each is exact for the coordinates whose cap
    is passed, and when no further one is, so is t.
    """
    level = torch.zeros_like(wanted)
    scratch = torch.empty_like(gains)  # fresh temporaries of this size cost more than the sums
    for _ in range(_MOST_STEPS):
        slope = torch.gt(caps, level[:, None], out=scratch).mul_(gains).sum(1)
        reached = torch.minimum(caps, level[:, None], out=scratch).mul_(gains).sum(1)
        rise = torch.where(slope > _TINY, (wanted - reached) / slope.clamp_min(_TINY), 0)
        higher = level + rise.clamp_min_(0)
        done = higher <= level * (1 + 1e-6)
        level = higher
        if done.all():
            break
    return level
