"""The way back through a linear step whose weights are mostly zero, without the zeros."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Below these shares of non-zeros PyTorch's sparse product is the faster one on a CPU, in float64
# (seen at 64 rows: equal at 1 for convolutions of 8 to 16 channels, at 1/4 for linear layers).
_CONVOLUTION, _PRODUCT = 0.6, 0.15

#: Maps coefficients ``[M, ...]`` of a step's output to those of its input.
Transposed = Callable[[Tensor], list[Tensor]]


def _worth(weight: Tensor, share: float) -> bool:
    if weight.requires_grad or weight.device.type != "cpu" or not weight.numel():
        return False
    return int(weight.count_nonzero()) < share * weight.numel()


def product(weight: Tensor) -> Transposed | None:
    """That of ``x @ weight``; None where the dense product is faster.

    Args:
        weight: float ``[inputs, outputs]``.
    """
    if not _worth(weight, _PRODUCT):
        return None
    return _back(weight, weight.shape[:1])


def convolution(
    weight: Tensor,
    shape: Sequence[int],
    output: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Transposed | None:
    """That of a convolution; None where the dense one is faster.

    Args:
        weight: float ``[O, C / groups, h, w]``.
        shape: that of the input, ``(C, H, W)``.
        output: that of the output, ``(O, H', W')``.
        stride: along both axes, as are ``padding`` and ``dilation``.
    """
    if not _worth(weight, _CONVOLUTION):
        return None
    kernel = weight.nonzero().t()[:, :, None]
    to, source, *offsets = kernel
    source = source + to // (output[0] // groups) * (shape[0] // groups)
    places = torch.cartesian_prod(torch.arange(output[1]), torch.arange(output[2])).t()
    # Where each non-zero reads for each place of the output; some are in the padding.
    y, x = (
        place * stride[axis] + offset * dilation[axis] - padding[axis]
        for axis, (place, offset) in enumerate(zip(places, offsets, strict=True))
    )
    inside = (y >= 0) & (y < shape[1]) & (x >= 0) & (x < shape[2])
    rows = (source * shape[1] + y) * shape[2] + x
    columns = to * len(places[0]) + torch.arange(len(places[0]))
    values = weight[tuple(kernel)].expand_as(inside)
    matrix = torch.sparse_coo_tensor(
        torch.stack([rows[inside], columns[inside]]),
        values[inside],
        (shape[0] * shape[1] * shape[2], output[0] * output[1] * output[2]),
        check_invariants=True,
    )
    return _back(matrix, shape)


def _back(weight: Tensor, shape: Sequence[int]) -> Transposed:
    """Multiplies by a matrix ``[inputs, outputs]`` without its zeros."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        matrix = weight.to_sparse_csr()
    return lambda rows: [(matrix @ rows.flatten(1).t()).t().reshape(len(rows), *shape)]
