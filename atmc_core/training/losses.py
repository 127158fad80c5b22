"""The attack and the loss of adversarial training, for a loop of one's own."""

import torch
from torch import Tensor, nn

from atmc_core.attacks import PGD as GradientAscent
from atmc_core.attacks import Attack, check_images, frozen_copy
from atmc_core.training.step import MixedLoss
from atmc_core.training.trainer import training_attack
from atmc_spec.defaults import BACKWARD
from atmc_spec.names import Backward, Norm


def PGD(  # the attack's usual name, since whoever writes a loop looks for that
    norm: Norm,
    epsilon: float,
    *,
    steps: int = 7,
    step_size: float | None = None,
    backward: Backward = BACKWARD,
) -> GradientAscent:
    """Make the attack of adversarial training: projected gradient ascent on the cross-entropy.

    Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.

    Args:
        norm: ``linf`` or ``l2``.
        epsilon: the ball's radius, for images in [0, 1]; 8 / 255 for 8 grey levels.
        steps: the number of gradient steps from a random start.
        step_size: the length of each step, in the ball's norm; by default ``2 * epsilon / steps``.
        backward: the gradients to climb. ``smooth`` lets a maximum, as in max pooling, share its
            gradient among all values, so that the network cannot learn to hide from the attack;
            ``plain`` takes the network's own.

    Raises:
        ValueError: if a number is not positive, or there is no such norm or kind of gradients.

    Example:
        >>> PGD("linf", 8 / 255, steps=2).step_size == 8 / 255
        True
    """
    return training_attack(norm, epsilon, steps, step_size, backward)


def adversarial_loss(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Attack,
    *,
    clean_weight: float = MixedLoss.clean_weight,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The weighted mean of the cross-entropy on clean images and on those that an attack finds.

    The attack sees the network in evaluation mode. Clean and adversarial images then go through it
    as one batch, in the mode that it was in. ATMC weighs both equally.

    Args:
        network: maps images to logits ``[N, classes]``.
        images: float ``[N, C, H, W]`` in [0, 1].
        labels: the true classes, int64 ``[N]``, or the probability of each class, float
            ``[N, classes]``: those of a robust teacher are ``teacher(images).softmax(1)``.
        attack: finds the adversarial images, such as ``PGD("linf", 8 / 255)``.
        clean_weight: the weight of the clean images, from 0 to 1; with 0 they are not run.
        generator: draws the attack's random start, on the images' device; by default torch's own.

    Returns:
        A scalar, whose ``backward`` gives the network's parameters their gradients.

    Raises:
        ValueError: for images outside [0, 1] or a weight out of range.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> images, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
        >>> attacked = adversarial_loss(network, images, labels, PGD("linf", 0.1))
        >>> bool(attacked > nn.functional.cross_entropy(network(images), labels))
        True
    """
    if not 0 <= clean_weight <= 1:
        raise ValueError(f"clean_weight is {clean_weight}: it must be from 0 to 1")
    check_images(images)
    training = network.training
    frozen = frozen_copy(network.eval())
    try:
        found = attack.run(frozen, images, labels, generator=generator)
    finally:
        network.train(training)
    loss = MixedLoss(clean_weight)
    return loss(network(torch.cat([images, found]) if loss.on_clean else found), labels)
