"""The losses that attacks climb: one value per image, larger the closer the image is to a mistake.

Everywhere, logits are ``[N, classes]``, labels and targets int64 ``[N]``, and losses ``[N]``.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

#: A function from logits ``[N, classes]`` and labels ``[N]`` to a loss per image, ``[N]``.
Loss = Callable[[Tensor, Tensor], Tensor]

# Added to divisors, which may be zero.
_TINY = 1e-12


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of each image, ``[N]``."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest other logit minus the true class's, ``[N]``; positive if misclassified.

    Source: Carlini & Wagner, "Towards Evaluating the Robustness of Neural Networks" (2017), the
    loss f6 of section V, without its constant.
    """
    true = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - true[:, 0]


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """The difference of logits ratio of each image, ``[N]``.

    It is the margin divided by the difference of the largest and the third largest logit.

    Source: Croce & Hein, "Reliable evaluation of adversarial robustness" (2020), equation 6.

    Raises:
        ValueError: if there are fewer than 3 classes.
    """
    _require_classes(logits, 3, "dlr")
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + _TINY)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The target's logit minus the true class's, divided by a scale, ``[N]``.

    Source: Croce & Hein, "Reliable evaluation of adversarial robustness" (2020), equation 7.

    Raises:
        ValueError: if there are fewer than 4 classes, for which the scale is not defined.
    """
    _require_classes(logits, 4, "targeted dlr")
    top = logits.topk(4, dim=1).values
    scale = top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + _TINY
    return target_margin(logits, labels, targets) / scale


def target_margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The target's logit minus the true class's, ``[N]``."""
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]


#: The untargeted losses by name.
LOSSES: dict[str, Loss] = {"ce": cross_entropy, "cw": margin, "dlr": dlr}


def loss_named(name: str) -> Loss:
    """The untargeted loss of that name.

    Raises:
        ValueError: if there is no such loss.
    """
    if name not in LOSSES:
        raise ValueError(f"loss is {name!r}: it must be one of {', '.join(map(repr, LOSSES))}")
    return LOSSES[name]


def _require_classes(logits: Tensor, least: int, name: str) -> None:
    if logits.shape[1] < least:
        raise ValueError(
            f"the model has {logits.shape[1]} classes: the {name} loss needs at least {least}"
        )
