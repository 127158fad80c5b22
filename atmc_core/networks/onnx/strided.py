"""Gathers from all images at once that leave each image to itself.

torch's newer exporter writes a view of another memory format (a pool of a channels-last map, for
one) as ``maps.reshape(-1)[indices]``, with the indices of each image's entries counted over the
whole batch.
"""

import numpy as np

from atmc_core.networks.onnx.builder import BATCH, GraphBuilder, Value, unsupported
from atmc_core.networks.onnx.document import Array, Operation


def is_flat(value: Value, sizes: Array, batch: int | None) -> bool:
    """Whether a reshape puts the entries of all images into one row.

    Args:
        value: what is reshaped.
        sizes: the new shape.
        batch: the size of the batch; None if it is open.
    """
    count = int(np.prod(value.shape))
    row = {-1, BATCH * count} | ({batch * count} if batch else set())
    return count > 1 and sizes.shape == (1,) and int(sizes[0]) in row


def gather_per_image(
    builder: GraphBuilder, operation: Operation, value: Value, indices: Array
) -> Value:
    """Gather entries of ``value``, as one row of all images' entries, at constant indices.

    Args:
        builder: the graph.
        operation: the Gather.
        value: the maps, ``[N, ...]``.
        indices: the index of each entry in the row, integers ``[N, ...]``; N may be any, since the
            indices of all images have to be alike.

    Raises:
        InvalidInput: ``unsupported_operator`` if the entries of one image come from another, or are
            no view of its own.
    """
    count = int(np.prod(value.shape))
    if indices.ndim > 1 and indices.shape[0] > 0 and indices[0].size == count:
        own = indices[0]
        first = np.arange(len(indices)).reshape(-1, *[1] * own.ndim) * count
        if np.array_equal(indices - first, np.broadcast_to(own, indices.shape)):
            view = _as_view(own)
            if view is not None:
                sizes, dims = view
                made = builder.function(operation, "reshape", [value], shape=sizes)
                if dims != sorted(dims):
                    made = builder.function(operation, "permute", [made], dims=[0, *dims])
                return builder.function(operation, "reshape", [made], shape=list(own.shape))
    raise unsupported(operation, "it mixes the images of a batch, or the entries of an image")


def _as_view(indices: Array) -> tuple[list[int], list[int]] | None:
    """Explain indices as a row that is reshaped and permuted.

    Returns:
        The sizes to reshape to, and the axes in their new order, from 1; None if that does not
        explain them.
    """
    axes = [axis for axis, size in enumerate(indices.shape) if size > 1]
    # The step of an axis is the index next to the first one along it.
    steps = {axis: int(np.moveaxis(indices, axis, 0)[1].reshape(-1)[0]) for axis in axes}
    by_step = sorted(axes, key=lambda axis: -steps[axis])
    sizes = [indices.shape[axis] for axis in by_step] or [1]
    dims = [by_step.index(axis) + 1 for axis in axes] or [1]
    explained = np.arange(indices.size).reshape(sizes).transpose([dim - 1 for dim in dims])
    fits = np.array_equal(explained.reshape(indices.shape), indices)
    return (sizes, dims) if fits else None
