"""What the small tensors of a network are rounded to: biases, norms and codebooks.

In a network of which one weight in four hundred is left they are a fifth of the file.
"""

import torch
from torch import Tensor

from atmc_spec.names import FLOAT_BITS, SmallTensorBits

# Eight bits hold the integers up to this, and their negatives.
_MOST = 127
# A bias that is smaller than this power of two allows becomes zero.
_LEAST_EXPONENT = -100


def rounded(name: str, tensor: Tensor, bits: SmallTensorBits) -> Tensor:
    """A bias, or a norm's parameter or statistic, as it is stored.

    With 8 bits a bias is an integer of 8 bits times a power of two, the smallest that its largest
    entry allows. All other tensors, whose entries may differ by orders of magnitude, are float16
    then, and with 16 bits all are. What is rounded already stays as it is.

    Args:
        name: in the state dict; a bias's ends in ``bias``.
        tensor: float32, on any device; not changed.
        bits: 8, 16, or 32, which leaves it as it is.
    """
    if bits == FLOAT_BITS:
        return tensor
    if bits > 8 or name.rpartition(".")[2] != "bias":
        return to_half(tensor)
    mantissa, exponent = torch.frexp(tensor.abs().amax() if tensor.numel() else tensor.sum())
    # 127 times 2^(exponent - 7) is 127/128 of 2^exponent: a larger mantissa needs the next power.
    exponent = (exponent - 7 + (mantissa > _MOST / (_MOST + 1))).clamp_min(_LEAST_EXPONENT)
    # Adding zero makes a negative zero, which a grid has not, a positive one.
    return torch.ldexp(torch.ldexp(tensor, -exponent).round(), exponent) + 0.0


def to_half(tensor: Tensor) -> Tensor:
    """The values rounded to float16, as float32; those that exceed it become its largest."""
    largest = torch.finfo(torch.float16).max
    return tensor.clamp(-largest, largest).half().float()
