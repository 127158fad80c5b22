"""How many multiply-adds a network makes for one image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MultiplyAdds:
    """The multiply-adds of the convolutions and linear layers for one image.

    Attributes:
        dense: of all weights.
        nonzero: of the weights that are not zero.
    """

    dense: int
    nonzero: int


def multiply_adds(network: nn.Module, input_shape: Sequence[int]) -> MultiplyAdds:
    """Count the multiply-adds of a network's convolutions and linear layers.

    Args:
        network: maps images ``[N, C, H, W]``; it runs once, in evaluation mode, and is not changed.
        input_shape: channels, height and width of the images.
    """
    layers = layer_positions(network, input_shape)
    dense = sum(layer.weight.numel() * count for layer, count in layers.items())
    nonzero = sum(int(layer.weight.count_nonzero()) * count for layer, count in layers.items())
    return MultiplyAdds(dense, nonzero)


def layer_positions(
    network: nn.Module, input_shape: Sequence[int]
) -> dict[nn.Conv2d | nn.Linear, int]:
    """For each convolution and linear layer, at how many positions an image meets its weights.

    Args:
        network: as in ``multiply_adds``.
        input_shape: as in ``multiply_adds``.
    """
    counts: dict[nn.Conv2d | nn.Linear, int] = {}

    def count(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.Linear)
        # A layer that runs twice meets its weights twice as often.
        counts[module] = counts.get(module, 0) + output.numel() // len(module.weight)

    layers = [each for each in network.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    held = next(network.parameters(), torch.empty(0))
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *input_shape, dtype=held.dtype, device=held.device))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return counts
