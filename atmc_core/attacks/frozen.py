"""A copy of a model for attacks: the same function with cheaper gradients in its input.

On a CPU, half of a gradient attack's time goes into backpropagating through the first convolution,
because the library's kernels are written for many input channels and an image has one or three.
Here that gradient is computed as a forward convolution whose output channels are the pixels of a
whole block. (Measured on one core, for a 5x5 kernel from 1 to 8 channels at 28x28: 12 us an image
instead of 48 us.)
"""

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_core.attacks.base import Model
from atmc_core.attacks.pooling import quicken_pooling

# The fastest side of the block of pixels, by the number of input channels; measured for kernels of
# 3 to 5 pixels.
_BLOCK_SIDES = {1: 4, 2: 2, 3: 2}


def frozen_copy(model: Model, weights: Mapping[str, Tensor] | None = None) -> Model:
    """A copy of a ``torch.nn.Module`` for attacks; any other callable is returned as it is.

    The copy's weights need no gradients and are in channels-last order, in which convolutions on a
    CPU are faster. Weights that are in that order already are shared with the model, and so are
    the norms' statistics if the model is in evaluation mode. On a CPU the copy is valid only until
    the model is next trained; on other devices it follows the model. The copy is in the model's
    mode (training or evaluation). Outputs and gradients differ from the model's by rounding only.

    Args:
        model: maps images ``[N, C, H, W]`` in [0, 1] to logits ``[N, classes]``.
        weights: tensors that replace the model's own, by parameter name.
    """
    if not isinstance(model, nn.Module):
        return model
    shared = {
        id(parameter): nn.Parameter(
            (weights or {}).get(name, parameter).detach(), requires_grad=False
        )
        for name, parameter in model.named_parameters()
    }
    statistics = {} if model.training else {id(buffer): buffer for buffer in model.buffers()}
    frozen = copy.deepcopy(model, {**shared, **statistics})
    frozen.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if all(parameter.device.type == "cpu" for parameter in shared.values()):
        for module in frozen.modules():
            if _has_few_channels(module):
                # Only the instance's forward is replaced, so its hooks and its name stay.
                module.__dict__["forward"] = _FewChannels(cast(nn.Conv2d, module))
        quicken_pooling(frozen)
    return cast(Model, frozen)


def _has_few_channels(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d
        and module.in_channels in _BLOCK_SIDES
        and module.groups == 1
        and set(module.dilation) == {1}
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and all(
            _BLOCK_SIDES[module.in_channels] % stride == 0 and kernel >= stride
            for stride, kernel in zip(module.stride, module.kernel_size, strict=True)
        )
    )


class _FewChannels:
    """The forward of a convolution whose input gradient is computed block by block."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.weight, self.bias = conv.weight.detach(), conv.bias
        self.stride, self.padding = conv.stride, cast(tuple[int, int], conv.padding)
        self.side = _BLOCK_SIDES[conv.in_channels]
        taps = [
            _taps(kernel, stride, padding, self.side)
            for kernel, stride, padding in zip(
                conv.kernel_size, self.stride, self.padding, strict=True
            )
        ]
        (rows, top), (columns, left) = taps
        self.first = (top, left)
        blocks = torch.einsum("ocuv,ruq,tvz->crtoqz", self.weight, rows, columns)
        self.block_weight = blocks.flatten(0, 2).contiguous(memory_format=torch.channels_last)

    def __call__(self, images: Tensor) -> Tensor:
        output = _FewChannelsFunction.apply(images, self)  # type: ignore[no-untyped-call]
        return cast(Tensor, output)

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.weight, self.bias, self.stride, self.padding)

    def backward(self, gradient: Tensor, height: int, width: int) -> Tensor:
        """The gradient in the images, ``[N, C, height, width]``.

        Args:
            gradient: the gradient in the convolution's outputs, ``[N, O, H', W']``.
            height: the images' height.
            width: the images' width.
        """
        gradient = gradient.to(self.block_weight.dtype)  # under autocast it has fewer bits
        side, sizes, given = self.side, (height, width), gradient.shape[2:]
        strides = [side // stride for stride in self.stride]
        before = [-first for first in self.first]
        kernel = self.block_weight.shape[2:]
        counts = [-(-size // side) for size in sizes]
        after = [
            (counts[axis] - 1) * strides[axis] + kernel[axis] - before[axis] - given[axis]
            for axis in (0, 1)
        ]
        # Padding by the convolution itself costs nothing, but it is the same on both sides.
        inside = min(before) >= 0 and all(a <= b for a, b in zip(after, before, strict=True))
        if not inside:
            gradient = F.pad(gradient, (before[1], after[1], before[0], after[0]))
        blocks = F.conv2d(
            gradient, self.block_weight, stride=strides, padding=before if inside else 0
        )
        return F.pixel_shuffle(blocks, side)[:, :, :height, :width]


class _FewChannelsFunction(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, images: Tensor, conv: _FewChannels) -> Tensor:
        context.conv, context.size = conv, images.shape[2:]
        return conv.forward(images)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return context.conv.backward(gradients[0], *context.size), None


def _taps(kernel: int, stride: int, padding: int, side: int) -> tuple[Tensor, int]:
    """Which weights and outputs contribute to the gradient of which pixel of a block, on one axis.

    Weight u of output ``a * side / stride + (r + padding - u) / stride`` contributes to pixel r of
    block a if that number is an integer.

    Returns:
        A tensor ``[side, kernel, Q]`` and an offset ``first``. The tensor is one at ``[r, u, q]``
        if weight u of output ``first + q`` contributes to pixel r of block 0, and zero elsewhere.
    """
    reach = {
        (pixel, weight): (pixel + padding - weight) // stride
        for pixel in range(side)
        for weight in range(kernel)
        if (pixel + padding - weight) % stride == 0
    }
    first, last = min(reach.values()), max(reach.values())
    taps = torch.zeros(side, kernel, last - first + 1)
    for (pixel, weight), output in reach.items():
        taps[pixel, weight, output - first] = 1
    return taps, first
