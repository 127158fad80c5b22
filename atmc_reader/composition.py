"""The weights that a network's factors compose."""

import numpy as np

from atmc_reader.layout import Tensors, Weight
from atmc_reader.network import Contents, Sparse
from atmc_reader.values import Floats


def state_dict(tensors: Tensors, contents: Contents) -> dict[str, Floats]:
    """The float tensors of the network's state dict, with the weights composed, by name."""
    state = {
        weight.name: compose(weight, *contents.factors[3 * index : 3 * index + 3])
        for index, weight in enumerate(tensors.weights)
    }
    others = zip(tensors.others, contents.others, strict=True)
    return state | {other.name: values for other, values in others}


def compose(weight: Weight, u: Sparse, v: Sparse, c: Sparse) -> Floats:
    """W = (I+U) V + C, or U (V+I) + C of a tall weight, in the weight's own shape."""
    left, right = u.dense(), v.dense()
    matrices = left @ right + c.dense() + (right if weight.wide else left)
    if len(weight.shape) != 4:
        return matrices.reshape(weight.shape)
    out, channels, height, width = weight.shape
    folded = matrices.reshape(out, height, width, channels)
    return np.ascontiguousarray(folded.transpose(0, 3, 1, 2))
