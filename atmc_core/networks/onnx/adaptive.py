"""Adaptive average pools to sizes that do not divide the map's size.

ONNX has no operator for them. torch's newer exporter writes such a pool as
``images.permute(2, 3, 0, 1)[windows]``, followed by the operations that take the mean of each
window, with sums and masks. Our exporter writes it as a product with one matrix on each side. Both
forms are recognised here. Like the rest of an imported network, the result is later compared with
onnxruntime's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from atmc_core.networks.onnx.builder import Operand
from atmc_core.networks.onnx.document import Array, Operation

# The permutation from [N, C, H, W] to [H, W, N, C].
_PIXELS_FIRST = [2, 3, 0, 1]
# Entries of a matrix of means may differ from the exact ones by this much.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class WindowMeans:
    """Operations that together are one adaptive average pool.

    Attributes:
        places: the operations' indices in the graph; the last one makes the pooled map.
        size: the height and width of the pooled map.
        pooled: the index of the map among the inputs of the first operation.
    """

    places: tuple[int, ...]
    size: tuple[int, int]
    pooled: int


def find_window_means(
    operations: Sequence[Operation], place: int, values: Mapping[str, Operand]
) -> WindowMeans | None:
    """Find the adaptive pool that begins with a certain operation.

    Args:
        operations: the operations of the graph.
        place: the index of the operation.
        values: the constants and values so far, by name.

    Returns:
        The pool, or None if none begins there.
    """
    if operations[place].op == "MatMul":
        return _find_products(operations, place, values)
    if operations[place].attributes.get("perm") != _PIXELS_FIRST:
        return None
    inside, places, size = set(operations[place].outputs), [place], None
    for later, operation in enumerate(operations[place + 1 :], start=place + 1):
        given = [name for name in operation.inputs if name]
        if not inside.intersection(given):
            continue
        constants = [values.get(name) for name in given if name not in inside]
        arrays = [each for each in constants if isinstance(each, np.ndarray)]
        if len(arrays) < len(constants):
            return None
        places.append(later)
        inside.update(operation.outputs)
        if size is None:
            # The indices of the windows' pixels, of the shape
            # [height, rows of a window, width, columns of a window, 2].
            if operation.op != "GatherND" or len(arrays) != 1 or arrays[0].ndim != 5:
                return None
            size = (arrays[0].shape[0], arrays[0].shape[2])
        elif operation.op in ("ReduceMean", "Div"):
            return WindowMeans(tuple(places), size, 0)
    return None


def _find_products(
    operations: Sequence[Operation], place: int, values: Mapping[str, Operand]
) -> WindowMeans | None:
    """Recognise a pool that is written as two products with constant matrices."""
    left, product = operations[place].inputs[:1], operations[place].outputs[:1]
    for later, operation in enumerate(operations[place + 1 :], start=place + 1):
        if operation.op == "MatMul" and operation.inputs[:1] == product:
            rows, columns = (values.get(name) for name in (*left, *operation.inputs[1:]))
            if _are_means(rows) and isinstance(columns, np.ndarray) and _are_means(columns.T):
                return WindowMeans((place, later), (rows.shape[0], columns.shape[1]), 1)
    return None


def _are_means(matrix: Operand | None) -> TypeGuard[Array]:
    return (
        isinstance(matrix, np.ndarray)
        and matrix.ndim == 2
        and min(matrix.shape) > 0
        and np.allclose(matrix, window_means(matrix.shape[1], matrix.shape[0]), atol=_TOLERANCE)
    )


def window_means(own: int, size: int) -> Array:
    """The matrix that maps ``own`` entries of an axis to the means of ``size`` windows.

    Returns:
        The weight of each entry in each mean, float32 ``[size, own]``.
    """
    shares = np.zeros((size, own), np.float32)
    for window in range(size):
        begin, end = window * own // size, -(-(window + 1) * own // size)
        shares[window, begin:end] = 1 / (end - begin)
    return shares
