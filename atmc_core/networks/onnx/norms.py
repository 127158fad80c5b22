"""Rules for normalisations; see ``layers`` for what rules do."""

import numpy as np

from atmc_core.networks.onnx.builder import GraphBuilder, Value, unsupported
from atmc_core.networks.onnx.document import Array, Operation, malformed
from atmc_core.networks.onnx.operands import (
    Operands,
    axis_of,
    constant_of,
    module_name,
    number_of,
    optional_of,
    value_of,
)

# PyTorch's default momentum of batch norms.
_MOMENTUM = 0.1
# The largest number of channels that a local response norm sums over.
_MAX_CHANNELS = 2**12


def batch_norm(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """BatchNormalization: a BatchNorm2d of ``[N, C, H, W]``, or a BatchNorm1d of features."""
    value = value_of(operation, operands)
    if value.ndim not in (2, 3, 4) or len(operation.outputs) > 1:
        raise unsupported(
            operation, "only a norm of [N, C, H, W], [N, C, L] or [N, C] in inference is known"
        )
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = {name: constant_of(operation, operands, i + 1) for i, name in enumerate(names)}
    _require_channels(operation, value, tensors)
    options = {
        "features": value.shape[0],
        "eps": number_of(operation, "epsilon", 1e-5),
        # The file's own momentum is not used: it has no meaning in a file for inference.
        "momentum": _MOMENTUM,
    }
    op = "batch_norm" if value.ndim == 4 else "feature_norm"
    return builder.module(operation, op, value, options, tensors, module_name(operation))


def layer_norm(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """LayerNormalization over the last axes: a LayerNorm."""
    value, scale = value_of(operation, operands), constant_of(operation, operands, 1)
    bias = optional_of(operation, operands, 2)
    axis = axis_of(operation, operation.attributes.get("axis", -1), value.ndim)
    if scale.shape != value.meta.shape[axis:] or len(operation.outputs) > 1:
        raise unsupported(operation, f"a scale of {list(scale.shape)} for {list(value.shape)}")
    options = {
        "shape": list(scale.shape),
        "eps": number_of(operation, "epsilon", 1e-5),
        "bias": int(bias is not None),
    }
    if bias is not None and bias.shape != scale.shape:
        raise malformed(f"{operation.label} has a bias of {list(bias.shape)}", operation.label)
    tensors = {"weight": scale} | ({} if bias is None else {"bias": bias})
    return builder.module(operation, "layer_norm", value, options, tensors, module_name(operation))


def group_norm(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """GroupNormalization: a GroupNorm; opset 18 has a scale per group, opset 21 per channel."""
    value = value_of(operation, operands)
    groups = operation.attributes["num_groups"]
    if value.ndim < 3 or groups < 1 or value.shape[0] % groups:
        raise malformed(
            f"{operation.label} has {groups} groups for {list(value.shape)}", operation.label
        )
    each = value.shape[0] // groups
    tensors = {}
    for place, name in ((1, "weight"), (2, "bias")):
        given = constant_of(operation, operands, place)
        tensors[name] = np.repeat(given, each) if given.shape == (groups,) else given
    return _grouped(builder, operation, value, groups, tensors)


def instance_norm(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """InstanceNormalization: a GroupNorm in which each channel is a group."""
    value = value_of(operation, operands)
    if value.ndim < 3:
        raise unsupported(operation, "only a norm of [N, C, ...] is known")
    tensors = {
        name: constant_of(operation, operands, i) for i, name in ((1, "weight"), (2, "bias"))
    }
    return _grouped(builder, operation, value, value.shape[0], tensors)


def _grouped(
    builder: GraphBuilder,
    operation: Operation,
    value: Value,
    groups: int,
    tensors: dict[str, Array],
) -> Value:
    _require_channels(operation, value, tensors)
    options = {
        "groups": groups,
        "features": value.shape[0],
        "eps": number_of(operation, "epsilon", 1e-5),
    }
    return builder.module(operation, "group_norm", value, options, tensors, module_name(operation))


def response_norm(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """LRN over an odd number of channels: a LocalResponseNorm."""
    value, size = value_of(operation, operands), operation.attributes["size"]
    if value.ndim != 4 or not 1 <= size <= _MAX_CHANNELS or size % 2 == 0:
        raise unsupported(operation, f"size {size}: only odd sizes over [N, C, H, W] are known")
    options = {
        "size": size,
        "alpha": number_of(operation, "alpha", 1e-4),
        "beta": number_of(operation, "beta", 0.75),
        "k": number_of(operation, "bias", 1.0),
    }
    return builder.module(operation, "response_norm", value, options)


def lp_norm(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """LpNormalization with p = 2: each vector along an axis is divided by its norm."""
    value = value_of(operation, operands)
    if operation.attributes.get("p", 2) != 2:
        raise unsupported(operation, "only p = 2 is known")
    axis = axis_of(operation, operation.attributes.get("axis", -1), value.ndim)
    norm = builder.function(operation, "norm", [value], dims=[axis], keepdim=1)
    return builder.function(operation, "div", [value, norm])


def _require_channels(operation: Operation, value: Value, tensors: dict[str, Array]) -> None:
    for name, tensor in tensors.items():
        if tensor.shape != value.shape[:1]:
            raise malformed(
                f"{operation.label}: {name} is {list(tensor.shape)} for {value.shape[0]} channels",
                operation.label,
            )
