"""Moves the statistics of batch norms into their gains and biases, and back.

In evaluation mode a batch norm is a gain and a bias for each channel; only training needs the
statistics beside them.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


@torch.no_grad()
def settled(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of batch norms that do the same with a mean of zero and a variance of one.

    Returns:
        Gains, biases, means and variances, by name in the state dict.
    """
    tensors: dict[str, Tensor] = {}
    for name, norm, mean, variance in _norms(network):
        slope = norm.weight.double() / (variance.double() + norm.eps).sqrt()
        parts = {
            "weight": slope * (1 + norm.eps) ** 0.5,
            "bias": norm.bias.double() - mean.double() * slope,
            "running_mean": torch.zeros_like(mean),
            "running_var": torch.ones_like(variance),
        }
        prefix = f"{name}." if name else ""
        tensors |= {prefix + part: tensor.to(mean.dtype) for part, tensor in parts.items()}
    return tensors


@torch.no_grad()
def restore_statistics(network: nn.Module, images: Tensor) -> None:
    """Give batch norms statistics of images, and gains and biases with which they do the same.

    A network that is trained on normalises by the statistics of its batches, so its gains and
    biases have to be those that go with them.

    Args:
        network: maps images to logits; it is changed in place, and is in evaluation mode
            afterwards.
        images: float ``[N, C, H, W]``, such as a batch of training images.
    """
    norms = list(_norms(network))
    found: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
        found[norm] = torch.var_mean(inputs[0], axes, correction=0)

    hooks = [norm.register_forward_pre_hook(note) for _, norm, _, _ in norms]
    try:
        network.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
    for _, norm, mean, variance in norms:
        if norm not in found:
            continue
        new_variance, new_mean = found[norm]
        slope = norm.weight / (variance + norm.eps).sqrt()
        norm.bias.add_(slope * (new_mean - mean))
        norm.weight.copy_(slope * (new_variance + norm.eps).sqrt())
        mean.copy_(new_mean)
        variance.copy_(new_variance)


def _norms(
    network: nn.Module,
) -> Iterator[tuple[str, nn.modules.batchnorm._BatchNorm, Tensor, Tensor]]:
    """The batch norms that have gains, with their names, running means and variances.

    One that has several names comes under each, as in the state dict.
    """
    for name, norm in network.named_modules(remove_duplicate=False):
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.affine:
            mean, variance = norm.running_mean, norm.running_var
            if mean is not None and variance is not None:
                yield name, norm, mean, variance
