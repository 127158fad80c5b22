"""Adaptive average pools to sizes that do not divide the map's, which ONNX has no operator for.

torch's newer exporter writes one as ``images.permute(2, 3, 0, 1)[windows]`` and what takes the mean
of each window, sums and masks included; we write it as a product with a matrix on either side. What
is recognised here is held against onnxruntime later, as the rest of the network is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from atmc_core.networks.onnx.builder import Operand
from atmc_core.networks.onnx.document import Array, Operation

_PIXELS_FIRST = [2, 3, 0, 1]


@dataclass(frozen=True)
class WindowMeans:
    """Operations that together are one adaptive average pool.

    Attributes:
        places: of the operations; the last one makes the pooled map.
        size: height and width of the pooled map.
        pooled: which input of the first operation the map is.
    """

    places: tuple[int, ...]
    size: tuple[int, int]
    pooled: int


def find_window_means(
    operations: Sequence[Operation], place: int, values: Mapping[str, Operand]
) -> WindowMeans | None:
    """The pool that begins with the operation at ``place``, if one does."""
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
            # [height, rows of a window, width, columns of a window, 2]: where its pixels are.
            if operation.op != "GatherND" or len(arrays) != 1 or arrays[0].ndim != 5:
                return None
            size = (arrays[0].shape[0], arrays[0].shape[2])
        elif operation.op in ("ReduceMean", "Div"):
            return WindowMeans(tuple(places), size, 0)
    return None


def _find_products(
    operations: Sequence[Operation], place: int, values: Mapping[str, Operand]
) -> WindowMeans | None:
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
        and np.allclose(matrix, window_means(matrix.shape[1], matrix.shape[0]), atol=1e-6)
    )


def window_means(own: int, size: int) -> Array:
    """``[size, own]``: the share that each of ``own`` entries has in the mean of each window."""
    shares = np.zeros((size, own), np.float32)
    for window in range(size):
        begin, end = window * own // size, -(-(window + 1) * own // size)
        shares[window, begin:end] = 1 / (end - begin)
    return shares
