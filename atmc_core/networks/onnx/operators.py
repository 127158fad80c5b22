"""The table of ONNX operators that can be imported."""

from collections.abc import Mapping

from atmc_core.networks.onnx import layers, norms, pointwise, pooling, resizing, shapes
from atmc_core.networks.onnx.operands import Rule

#: The rule for each operator, by its name.
RULES: Mapping[str, Rule] = {
    "Conv": layers.conv,
    "Gemm": layers.gemm,
    "MatMul": layers.matmul,
    "BatchNormalization": norms.batch_norm,
    "LayerNormalization": norms.layer_norm,
    "GroupNormalization": norms.group_norm,
    "InstanceNormalization": norms.instance_norm,
    "LRN": norms.response_norm,
    "LpNormalization": norms.lp_norm,
    "Relu": pointwise.module("relu"),
    "LeakyRelu": pointwise.module("leaky_relu", slope=("alpha", 0.01)),
    "Elu": pointwise.module("elu", alpha=("alpha", 1.0)),
    "Celu": pointwise.module("celu", alpha=("alpha", 1.0)),
    "Selu": pointwise.selu,
    "PRelu": pointwise.prelu,
    "Mish": pointwise.module("mish"),
    "Softsign": pointwise.softsign,
    "Clip": pointwise.clip,
    "HardSwish": pointwise.module("hard_swish"),
    "HardSigmoid": pointwise.hard_sigmoid,
    "Sigmoid": pointwise.module("sigmoid"),
    "Tanh": pointwise.module("tanh"),
    "Softplus": pointwise.module("softplus"),
    "Gelu": pointwise.module("gelu", approximate=("approximate", "none")),
    "Softmax": pointwise.softmax_within,
    "LogSoftmax": pointwise.softmax_within,
    "MaxPool": pooling.pool,
    "AveragePool": pooling.pool,
    "GlobalAveragePool": pooling.global_pool,
    "GlobalMaxPool": pooling.global_pool,
    **dict.fromkeys(pooling.REDUCTIONS, pooling.reduce),
    "Max": pointwise.extreme("maximum"),
    "Min": pointwise.extreme("minimum"),
    "Sum": pointwise.total,
    "Mean": pointwise.total,
    "Add": pointwise.function("add"),
    "Sub": pointwise.function("sub"),
    "Mul": pointwise.function("mul"),
    "Div": pointwise.function("div"),
    "Pow": pointwise.function("pow"),
    "Erf": pointwise.function("erf"),
    "Exp": pointwise.function("exp"),
    "Log": pointwise.function("log"),
    "Sqrt": pointwise.function("sqrt"),
    "Neg": pointwise.function("neg"),
    "Abs": pointwise.function("abs"),
    "Reciprocal": pointwise.function("reciprocal"),
    "Concat": shapes.concat,
    "Flatten": shapes.flatten,
    "Reshape": shapes.reshape,
    "Transpose": shapes.transpose,
    "Squeeze": shapes.squeeze,
    "Unsqueeze": shapes.squeeze,
    "Expand": shapes.expand,
    "Resize": resizing.resize,
    "Upsample": resizing.resize,
    "DepthToSpace": resizing.depth_to_space,
    "SpaceToDepth": resizing.space_to_depth,
    "Pad": shapes.pad,
    "Slice": shapes.slice_axes,
    "Gather": shapes.gather,
    "Split": shapes.split,
    "Shape": shapes.shape,
    "Identity": pointwise.same,
    "Cast": pointwise.same,
    "Dropout": pointwise.same,
}

_NO_GRADIENT = "it has no gradient, so nothing before it can be trained"
_RECURRENT = "recurrent layers are not supported, only feed-forward convolutional classifiers are"
_CONTROL_FLOW = (
    "a graph within the graph is not supported: export the network by tracing, in evaluation mode"
)
_DECODING = (
    "this decodes or sorts scores: cut the graph before it, so that the output is the scores, "
    "[N, classes] (onnx.utils.extract_model does that)"
)
_QUANTISED = "a quantised network cannot be trained: send the float32 model"

# Why an operator is not supported, where more can be said than that.
_REASONS: Mapping[str, str] = {
    **dict.fromkeys(("Floor", "Ceil", "Round", "Sign", "IsNaN", "Not", "And", "Or"), _NO_GRADIENT),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _RECURRENT),
    **dict.fromkeys(("Loop", "If", "Scan"), _CONTROL_FLOW),
    **dict.fromkeys(("ArgMax", "ArgMin", "TopK", "NonMaxSuppression", "OneHot"), _DECODING),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "QLinearConv"), _QUANTISED),
    **dict.fromkeys(("QLinearMatMul", "ConvInteger", "MatMulInteger"), _QUANTISED),
}


def why_not(op: str) -> str:
    """Why an operator without a rule cannot be imported, and what to do."""
    return _REASONS.get(
        op,
        "this operator is not supported: export the network with other layers in its place; "
        "docs/formats.md lists the operators that are known",
    )
