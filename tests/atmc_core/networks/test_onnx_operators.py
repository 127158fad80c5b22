"""Each operator, in the forms that exporters write, gives what onnxruntime gives."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from atmc_core import artifact
from atmc_core.errors import InvalidInput
from atmc_core.factors.splitting import plain
from atmc_core.factors.views import dense_weights
from atmc_core.networks.blueprint import ONNX
from atmc_core.networks.classifier import Normalization
from atmc_core.networks.graph import Graph, build_module
from atmc_core.networks.onnx.exporter import export
from atmc_core.networks.onnx.importer import Imported
from atmc_core.networks.onnx.operators import RULES
from atmc_core.networks.onnx.verify import relative_difference, verify
from tests.atmc_core.networks.onnx_files import read_onnx

FORMATS = Path(__file__).parents[3] / "docs" / "formats.md"
CHANNELS, SIDE = 4, 6
RNG = np.random.default_rng(0)


def _node(op: str, inputs: str = "m", output: str = "o", **attributes: Any) -> NodeProto:
    """A node; an input ``-`` is left out."""
    given = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, given, output.split(), **attributes)


def _weights(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


C, F = CHANNELS, CHANNELS * SIDE**2
LARGE = np.float32(1e10)
ONE, A = {"one": np.float32(1)}, {"a": _weights(C, 1, 1)}
# The batch and the channels as they are, and other sides.
SIZES = [
    _node("Shape", "m", "shape"),
    _node("Slice", "shape nought two", "front"),
    _node("Concat", "front sides", "s", axis=0),
]
#: Nodes from the map ``m`` [N, 4, 6, 6] to ``o``; the constants they use; the opset.
FORMS: dict[str, tuple[list[NodeProto], dict[str, np.ndarray], int]] = {
    "Conv": ([_node("Conv", "m w b")], {"w": _weights(6, C, 3, 3), "b": _weights(6)}, 17),
    "Conv in groups, strided, dilated": (
        [_node("Conv", "m w", group=2, strides=[2, 1], dilations=[1, 2], pads=[1, 2, 1, 2])],
        {"w": _weights(6, 2, 3, 3)},
        17,
    ),
    "Conv with uneven pads": (
        [_node("Conv", "m w", pads=[0, 1, 2, 0])],
        {"w": _weights(2, C, 3, 3)},
        17,
    ),
    "Conv padded to the same size": (
        [_node("Conv", "m w", auto_pad="SAME_UPPER", strides=[2, 2])],
        {"w": _weights(2, C, 3, 3)},
        17,
    ),
    "BatchNormalization": (
        [_node("BatchNormalization", "m a b c d", epsilon=1e-3)],
        {"a": _weights(C), "b": _weights(C), "c": _weights(C), "d": np.abs(_weights(C)) + 0.1},
        17,
    ),
    "LayerNormalization": (
        [
            _node("Transpose", "m", "t", perm=[0, 2, 3, 1]),
            _node("LayerNormalization", "t a b", axis=-1),
        ],
        {"a": _weights(C), "b": _weights(C)},
        17,
    ),
    "Relu": ([_node("Relu")], {}, 17),
    "LeakyRelu": ([_node("LeakyRelu", alpha=0.2)], {}, 17),
    "Elu": ([_node("Elu")], {}, 17),
    "Clip by inputs": ([_node("Clip", "m a b")], {"a": np.float32(0), "b": np.float32(0.6)}, 17),
    "Clip by attributes": ([_node("Clip", min=-0.1, max=0.3)], {}, 10),
    "Clip from below": ([_node("Clip", "m a")], {"a": np.float32(0.2)}, 17),
    "HardSwish": ([_node("HardSwish")], {}, 17),
    "HardSwish, spelt out": (
        [
            _node("Add", "m three", "s"),
            _node("Clip", "s zero six", "c"),
            _node("Mul", "m c", "p"),
            _node("Div", "p six"),
        ],
        {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)},
        17,
    ),
    "HardSigmoid": ([_node("HardSigmoid")], {}, 17),
    "HardSigmoid, torch's": ([_node("HardSigmoid", alpha=1 / 6, beta=0.5)], {}, 17),
    "Sigmoid": ([_node("Sigmoid")], {}, 17),
    "SiLU": ([_node("Sigmoid", "m", "s"), _node("Mul", "m s")], {}, 17),
    "Tanh": ([_node("Tanh")], {}, 17),
    "Softplus": ([_node("Softplus")], {}, 17),
    "Gelu": ([_node("Gelu")], {}, 20),
    "Gelu by tanh": ([_node("Gelu", approximate="tanh")], {}, 20),
    "Gelu, spelt out": (
        [
            _node("Div", "m r", "d"),
            _node("Erf", "d", "e"),
            _node("Add", "e one", "f"),
            _node("Mul", "m f", "g"),
            _node("Mul", "g half"),
        ],
        {"r": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)},
        17,
    ),
    "MaxPool": ([_node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])], {}, 17),
    "MaxPool rounded up": (
        [_node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
        {},
        17,
    ),
    "AveragePool": ([_node("AveragePool", kernel_shape=[2, 2], strides=[2, 2])], {}, 17),
    "AveragePool counting its pads": (
        [_node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)],
        {},
        17,
    ),
    "AveragePool not counting them": (
        [_node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
        {},
        17,
    ),
    "GlobalAveragePool": ([_node("GlobalAveragePool")], {}, 17),
    "GlobalMaxPool": ([_node("GlobalMaxPool")], {}, 17),
    "ReduceMean by attribute": ([_node("ReduceMean", axes=[-2, -1], keepdims=0)], {}, 17),
    "ReduceMean by input": ([_node("ReduceMean", "m a")], {"a": _ints(2, 3)}, 18),
    "ReduceSum": ([_node("ReduceSum", "m a")], {"a": _ints(2, 3)}, 17),
    "ReduceMax": ([_node("ReduceMax", axes=[2, 3])], {}, 17),
    "Add, a residual": ([_node("Relu", "m", "r"), _node("Add", "r m")], {}, 17),
    "Add, a constant": ([_node("Add", "a m")], {"a": _weights(C, 1, 1)}, 17),
    "Sub": ([_node("Sub", "a m")], {"a": np.float32(1)}, 17),
    "Mul, a gate": ([_node("GlobalAveragePool", "m", "g"), _node("Mul", "m g")], {}, 17),
    "Mul, a scale": ([_node("Mul", "m a")], {"a": _weights(C, 1, 1)}, 17),
    "Div": ([_node("Div", "m a")], {"a": np.float32(3)}, 17),
    "Pow": ([_node("Pow", "m a")], {"a": np.float32(2)}, 17),
    "Exp": ([_node("Exp")], {}, 17),
    "Sqrt": (
        [_node("Abs", "m", "a"), _node("Add", "a b", "c"), _node("Sqrt", "c")],
        {"b": np.float32(1)},
        17,
    ),
    "Neg": ([_node("Neg")], {}, 17),
    "Reciprocal": ([_node("Exp", "m", "e"), _node("Reciprocal", "e")], {}, 17),
    "Concat": ([_node("Relu", "m", "r"), _node("Concat", "m r", axis=1)], {}, 17),
    "Flatten": ([_node("Flatten")], {}, 17),
    "Reshape": ([_node("Reshape", "m s")], {"s": _ints(0, -1, 3)}, 17),
    "Reshape by the images' own size": (
        [
            _node("Shape", "m", "s"),
            _node("Gather", "s zero", "n"),
            _node("Unsqueeze", "n axis", "u"),
            _node("Concat", "u rest", "shape", axis=0),
            _node("Reshape", "m shape"),
        ],
        {"zero": np.array(0), "axis": _ints(0), "rest": _ints(-1)},
        17,
    ),
    "Transpose": ([_node("Transpose", perm=[0, 2, 3, 1])], {}, 17),
    "Squeeze": (
        [_node("GlobalAveragePool", "m", "g"), _node("Squeeze", "g a")],
        {"a": _ints(2, 3)},
        17,
    ),
    "Unsqueeze": ([_node("Unsqueeze", "m a")], {"a": _ints(2)}, 17),
    "Pad": ([_node("Pad", "m p v")], {"p": _ints(0, 0, 1, 0, 0, 1, 0, 2), "v": np.float32(2)}, 17),
    "Pad by reflection": (
        [_node("Pad", "m p", mode="reflect")],
        {"p": _ints(0, 0, 1, 1, 0, 0, 1, 1)},
        17,
    ),
    "Pad by the edge": (
        [_node("Pad", "m p", mode="edge")],
        {"p": _ints(0, 0, 1, 1, 0, 0, 1, 1)},
        17,
    ),
    "Slice": ([_node("Slice", "m a b c")], {"a": _ints(1), "b": _ints(2**62), "c": _ints(2)}, 17),
    "Gather": ([_node("Gather", "m a", axis=1)], {"a": np.array(2)}, 17),
    "Split": ([_node("Split", "m", "a b", axis=1), _node("Mul", "a b")], {}, 13),
    "MatMul": (
        [
            _node("Transpose", "m", "t", perm=[0, 2, 3, 1]),
            _node("MatMul", "t w", "p"),
            _node("Add", "p b"),
        ],
        {"w": _weights(C, 5), "b": _weights(5)},
        17,
    ),
    "Gemm": (
        [_node("Flatten", "m", "f"), _node("Gemm", "f w b", alpha=0.5, beta=2.0)],
        {"w": _weights(C * SIDE**2, 5), "b": _weights(5)},
        17,
    ),
    "BatchNormalization of features": (
        [_node("Flatten", "m", "f"), _node("BatchNormalization", "f a b c d")],
        {"a": _weights(F), "b": _weights(F), "c": _weights(F), "d": np.abs(_weights(F)) + 0.1},
        17,
    ),
    "BatchNormalization of features in three axes": (
        [
            _node("Flatten", "m", "f"),
            _node("Unsqueeze", "f axis", "u"),
            _node("BatchNormalization", "u a b c d", "n"),
            _node("Squeeze", "n axis"),
        ],
        {"a": _weights(F), "b": _weights(F), "c": _weights(F), "d": np.ones(F, np.float32)}
        | {"axis": _ints(2)},
        17,
    ),
    "GroupNormalization by group": (
        [_node("GroupNormalization", "m a b", num_groups=2, epsilon=1e-3)],
        {"a": _weights(2), "b": _weights(2)},
        18,
    ),
    "GroupNormalization by channel": (
        [_node("GroupNormalization", "m a b", num_groups=2)],
        {"a": _weights(C), "b": _weights(C)},
        21,
    ),
    "GroupNormalization, spelt out": (
        [
            _node("Reshape", "m groups", "g"),
            _node("InstanceNormalization", "g one zero", "n"),
            _node("Shape", "m", "s"),
            _node("Reshape", "n s", "r"),
            _node("Mul", "r a", "p"),
            _node("Add", "p b"),
        ],
        {"groups": _ints(0, 2, -1), "one": np.ones(2, np.float32)}
        | {"zero": np.zeros(2, np.float32), "a": _weights(C, 1, 1), "b": _weights(C, 1, 1)},
        17,
    ),
    "InstanceNormalization": (
        [_node("InstanceNormalization", "m a b")],
        {"a": _weights(C), "b": _weights(C)},
        17,
    ),
    "LRN": ([_node("LRN", size=3, alpha=0.1, beta=0.5, bias=2.0)], {}, 17),
    "LpNormalization": ([_node("LpNormalization", axis=1)], {}, 17),
    "PRelu, one slope": ([_node("PRelu", "m a")], {"a": np.array([0.2], np.float32)}, 17),
    "PRelu, a slope for each channel": ([_node("PRelu", "m a")], {"a": _weights(C, 1, 1)}, 17),
    "PRelu, a slope for each row": ([_node("PRelu", "m a")], {"a": _weights(1, SIDE, 1)}, 17),
    "PRelu of features": (
        [_node("Flatten", "m", "f"), _node("PRelu", "f a")],
        {"a": _weights(F)},
        17,
    ),
    "Selu": ([_node("Selu")], {}, 17),
    "Celu": ([_node("Celu", alpha=0.5)], {}, 17),
    "Mish": ([_node("Mish")], {}, 18),
    "Softsign": ([_node("Softsign")], {}, 17),
    "Log": ([_node("Exp", "m", "e"), _node("Add", "e one", "s"), _node("Log", "s")], ONE, 17),
    "Abs": ([_node("Abs")], {}, 17),
    "Max": ([_node("Neg", "m", "n"), _node("Max", "m n a")], {"a": _weights(C, 1, 1)}, 17),
    "Max, a bound": ([_node("Max", "a m")], {"a": np.float32(0.1)}, 17),
    "Max with nought": ([_node("Max", "m a")], {"a": np.zeros(1, np.float32)}, 17),
    "Min": ([_node("Neg", "m", "n"), _node("Min", "m n")], {}, 17),
    "Min, a bound": ([_node("Min", "m a")], {"a": np.float32(0.1)}, 17),
    "Sum": ([_node("Neg", "m", "n"), _node("Abs", "m", "p"), _node("Sum", "a n m p")], A, 17),
    "Mean": ([_node("Abs", "m", "p"), _node("Mean", "m p")], {}, 17),
    "Clip with a bound of infinity": (
        [_node("Clip", "m a b")],
        {"a": np.float32(-0.3), "b": np.float32(np.inf)},
        17,
    ),
    "Clip far below": ([_node("Clip", "m a b")], {"a": np.float32(-1e12), "b": np.float32(6)}, 17),
    "Mul by a large number": ([_node("Mul", "m a", "p"), _node("Div", "p a")], {"a": LARGE}, 17),
    "MaxPool with uneven pads": (
        [_node("MaxPool", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1])],
        {},
        17,
    ),
    "MaxPool, a wide even padding": (
        [_node("MaxPool", kernel_shape=[3, 3], pads=[2, 2, 2, 2])],
        {},
        17,
    ),
    "MaxPool with uneven pads, rounded up": (
        [_node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1], ceil_mode=1)],
        {},
        17,
    ),
    "MaxPool with uneven pads, dilated": (
        [_node("MaxPool", kernel_shape=[2, 2], dilations=[2, 2], pads=[0, 1, 1, 0])],
        {},
        17,
    ),
    "Pad by the lowest number": (
        [_node("Pad", "m p v", "q"), _node("MaxPool", "q", kernel_shape=[3, 3], strides=[2, 2])],
        {"p": _ints(0, 0, 0, 0, 0, 0, 1, 1), "v": np.finfo(np.float32).min},
        17,
    ),
    "Pad by infinity": (
        [_node("Pad", "m p v", "q"), _node("MaxPool", "q", kernel_shape=[3, 3], strides=[2, 2])],
        {"p": _ints(0, 0, 1, 0, 0, 0, 0, 1), "v": np.float32(-np.inf)},
        17,
    ),
    "Pad of some axes": (
        [_node("Pad", "m p v axes")],
        {"p": _ints(1, 0, 2, 1), "v": np.float32(1), "axes": _ints(3, -2)},
        18,
    ),
    "AveragePool with uneven pads": (
        [_node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 2, 0])],
        {},
        17,
    ),
    "AveragePool with uneven pads that count": (
        [_node("AveragePool", kernel_shape=[3, 2], pads=[0, 1, 2, 0], count_include_pad=1)],
        {},
        17,
    ),
    "ReduceMin": ([_node("ReduceMin", axes=[2, 3])], {}, 17),
    "ReduceL1": ([_node("ReduceL1", axes=[1], keepdims=0)], {}, 17),
    "ReduceL2": ([_node("ReduceL2", "m a")], {"a": _ints(2, 3)}, 18),
    "ReduceSumSquare": ([_node("ReduceSumSquare", axes=[2, 3])], {}, 17),
    "ReduceLogSum": ([_node("Exp", "m", "e"), _node("ReduceLogSum", "e", axes=[1])], {}, 17),
    "ReduceLogSumExp": ([_node("ReduceLogSumExp", axes=[2, 3])], {}, 17),
    "Division by a norm, as torch writes it": (
        [
            _node("ReduceL2", "m", "n", axes=[1], keepdims=1),
            _node("Clip", "n tiny", "c"),
            _node("Shape", "m", "s"),
            _node("Expand", "c s", "e"),
            _node("Div", "m e"),
        ],
        {"tiny": np.float32(1e-12)},
        17,
    ),
    "Expand": (
        [_node("GlobalAveragePool", "m", "g"), _node("Expand", "g s")],
        {"s": _ints(1, 1, SIDE, 2)},
        17,
    ),
    "Resize, nearest": (
        [_node("Resize", "m - s", coordinate_transformation_mode="asymmetric")],
        {"s": np.array([1, 1, 2, 2], np.float32)},
        17,
    ),
    "Resize, nearest, the mode floor": (
        [
            *SIZES,
            _node(
                "Resize",
                "m - - s",
                nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            ),
        ],
        {"two": _ints(2), "nought": _ints(0), "sides": _ints(9, 4)},
        17,
    ),
    "Resize, linear": (
        [_node("Resize", "m - s", mode="linear")],
        {"s": np.array([1, 1, 2, 0.5], np.float32)},
        17,
    ),
    "Resize, linear, by its corners": (
        [
            *SIZES,
            _node(
                "Resize",
                "m - - s",
                mode="linear",
                coordinate_transformation_mode="align_corners",
            ),
        ],
        {"two": _ints(2), "nought": _ints(0), "sides": _ints(11, 7)},
        17,
    ),
    "Resize, cubic": (
        [_node("Resize", "m - s", mode="cubic", cubic_coeff_a=-0.75)],
        {"s": np.array([1, 1, 2, 2], np.float32)},
        17,
    ),
    "Resize of opset 10": (
        [_node("Resize", "m s")],
        {"s": np.array([1, 1, 2, 2], np.float32)},
        10,
    ),
    "Upsample": ([_node("Upsample", "m s")], {"s": np.array([1, 1, 2, 3], np.float32)}, 9),
    "DepthToSpace": ([_node("DepthToSpace", blocksize=2)], {}, 17),
    "DepthToSpace by columns": ([_node("DepthToSpace", blocksize=2, mode="CRD")], {}, 17),
    "SpaceToDepth": ([_node("SpaceToDepth", blocksize=3)], {}, 17),
    "Gather of a list": ([_node("Gather", "m a", axis=1)], {"a": _ints(3, -2, 0, 1)}, 17),
    "Slice backwards": (
        [_node("Slice", "m a b c d")],
        {"a": _ints(-1), "b": _ints(-(2**62)), "c": _ints(3), "d": _ints(-2)},
        17,
    ),
    "Identity": ([_node("Identity")], {}, 17),
    "Cast": ([_node("Cast", to=TensorProto.FLOAT)], {}, 17),
    "Dropout": ([_node("Dropout")], {}, 17),
}


# What TensorFlow and Keras write for padding="same": odd and even windows, strides, both sides.
FORMS |= {
    f"{op} padded by {mode} by {window} at every {stride}": (
        [
            _node(
                op, "m w" if op == "Conv" else "m", auto_pad=mode, strides=[stride, stride],
                **({} if op == "Conv" else {"kernel_shape": window}), **more,
            )
        ],
        {"w": _weights(2, C, *window)} if op == "Conv" else {},
        17,
    )
    for op, more in (
        ("Conv", {}),
        ("MaxPool", {}),
        ("AveragePool", {}),
        ("AveragePool", {"count_include_pad": 1}),
    )
    for mode, window, stride in (
        ("SAME_UPPER", [2, 3], 2),
        ("SAME_LOWER", [3, 2], 2),
        ("SAME_UPPER", [4, 5], 1),
    )
}  # fmt: skip


def _model(
    nodes: list[NodeProto], weights: dict[str, np.ndarray], opset: int, output: str
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def onnx_file(name: str, path: Path) -> Path:
    """A classifier: a convolution to ``m``, the form, and a layer that weighs all of ``o``."""
    nodes, constants, opset = FORMS[name]
    nodes = [_node("Conv", "x w0", "m", name="first", pads=[1, 1, 1, 1]), *nodes]
    weights = {"w0": _weights(C, 1, 3, 3)} | constants
    session = onnxruntime.InferenceSession(_model(nodes, weights, opset, "o").SerializeToString())
    (made,) = session.run(None, {"x": np.zeros((1, 1, SIDE, SIDE), np.float32)})
    nodes += [_node("Flatten", "o", "flat"), _node("MatMul", "flat w9", "y", name="last")]
    weights["w9"] = _weights(made.size, 3)
    onnx.save(_model(nodes, weights, opset, "y"), path)
    return path


def _through_an_artifact(network: nn.Module, imported: Imported, path: Path) -> nn.Module:
    """The network as it is read from an artifact with all of its weights."""
    factors = plain(dense_weights(network))
    model = artifact.CompressedModel(
        architecture=ONNX,
        num_classes=imported.num_classes,
        normalization=Normalization(),
        factors=factors,
        others=artifact.float_state(network, factors),
        bits=32,
        k=sum(weight.numel() for weight, _ in dense_weights(network).values()),
        graph=imported.graph,
    )
    artifact.save(model, path)
    return artifact.load(path).classifier()


@pytest.mark.parametrize("name", FORMS)
def test_an_operator_comes_in_trains_and_goes_out_and_in_again(name: str, tmp_path: Path) -> None:
    path, again = onnx_file(name, tmp_path / "net.onnx"), tmp_path / "again.onnx"
    imported = read_onnx(path)
    graph = Graph.from_text(imported.graph.to_text())
    network = build_module(graph)
    network.load_state_dict(imported.tensors, strict=False)
    assert verify(network, path, imported) < 1e-5

    images = torch.rand(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    images.requires_grad_()
    network.train()(images).square().sum().backward()
    for tensor in (images, *network.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert images.grad is not None
    assert images.grad.any()

    network.load_state_dict(imported.tensors, strict=False)  # the norms' statistics have moved
    compressed = _through_an_artifact(network.eval(), imported, tmp_path / "model.atmc")
    assert export(compressed, (1, SIDE, SIDE), again, input_name="7", output_name="y") < 1e-5
    theirs = read_onnx(again)
    assert theirs.graph.input_name == "7"
    came_back = build_module(theirs.graph)
    came_back.load_state_dict(theirs.tensors, strict=False)
    with torch.no_grad():
        ours = network(images)
        assert relative_difference(compressed.eval()(images), ours) < 1e-6
        assert relative_difference(came_back.eval()(images), ours) < 1e-5


def test_every_operator_that_is_known_is_among_them() -> None:
    tried = {node.op_type for nodes, _, _ in FORMS.values() for node in nodes}
    assert set(RULES) - tried == {"Softmax", "LogSoftmax"}
    table = FORMATS.read_text().partition("### Operators")[2].partition("###")[0]
    assert set(RULES) <= set(re.findall(r"\w+", table))


@pytest.mark.parametrize(
    ("op", "inputs", "remedy"),
    [
        ("Sin", "m", "export the network with other layers in its place"),
        ("ArgMax", "m", "cut the graph before it"),
        ("OneHot", "m k k", "cut the graph before it"),
        ("Round", "m", "has no gradient"),
        ("LSTM", "m k k", "recurrent layers are not supported"),
        ("ConvTranspose", "m w9", "export the network with other layers in its place"),
    ],
)
def test_an_operator_that_is_not_known_is_refused_with_what_to_do(
    op: str, inputs: str, remedy: str, tmp_path: Path
) -> None:
    nodes = [_node("Conv", "x w0", "m"), _node(op, inputs, "y", name="odd")]
    weights = {"w0": _weights(C, 1, 3, 3), "k": _ints(1), "w9": _weights(C, 1, 3, 3)}
    path = tmp_path / "net.onnx"
    onnx.save(_model(nodes, weights, 12, "y"), path)
    with pytest.raises(InvalidInput, match=remedy) as refused:
        read_onnx(path)
    assert refused.value.code == "unsupported_operator"
    assert f"{op} node 'odd'" in refused.value.message


REFUSED: dict[str, tuple[list[NodeProto], dict[str, np.ndarray], str]] = {
    "a window within the padding": (
        [_node("MaxPool", kernel_shape=[2, 2], pads=[0, 0, 3, 3])],
        {},
        "unsupported_operator",
    ),
    "an infinite factor": ([_node("Mul", "m a")], {"a": np.float32(np.inf)}, "non_finite_weights"),
    "a bound that is no number": (
        [_node("Clip", "m a")],
        {"a": np.float32(np.nan)},
        "non_finite_weights",
    ),
    "an infinite slope": ([_node("LeakyRelu", alpha=float("inf"))], {}, "malformed_model"),
    "an infinite gain of one channel": (
        [
            _node("ReduceMax", "m", "r", axes=[1]),
            _node("InstanceNormalization", "r a b"),
        ],
        {"a": np.array([np.inf], np.float32), "b": np.zeros(1, np.float32)},
        "non_finite_weights",
    ),
    "groups that do not divide the channels": (
        [_node("GroupNormalization", "m a a", num_groups=3)],
        {"a": _weights(C)},
        "malformed_model",
    ),
    "a resize to nothing": (
        [_node("Resize", "m - s")],
        {"s": np.array([1, 1, 0, 2], np.float32)},
        "unsupported_operator",
    ),
    "a resize of billions": (
        [_node("Resize", "m - s")],
        {"s": np.array([1, 1, 1e9, 1e9], np.float32)},
        "unsupported_operator",
    ),
    "an expansion of billions": (
        [_node("GlobalAveragePool", "m", "g"), _node("Expand", "g s")],
        {"s": _ints(1, C, 2**20, 2**20)},
        "malformed_model",
    ),
    "blocks of nothing": (
        [_node("SpaceToDepth", blocksize=0)],
        {},
        "unsupported_operator",
    ),
    "a norm over billions of channels": (
        [_node("LRN", size=2**40 + 1)],
        {},
        "unsupported_operator",
    ),
    "a range of billions": (
        [_node("Range", "a b c", "r"), _node("Mul", "m r")],
        {"a": np.array(0), "b": np.array(2**40), "c": np.array(1)},
        "malformed_model",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_operation_is_refused(name: str, tmp_path: Path) -> None:
    nodes, weights, code = REFUSED[name]
    nodes = [_node("Conv", "x w0", "m", pads=[1, 1, 1, 1]), *nodes]
    opset = 21 if nodes[-1].op_type == "GroupNormalization" else 17
    path = tmp_path / "net.onnx"
    onnx.save(_model(nodes, {"w0": _weights(C, 1, 3, 3)} | weights, opset, "o"), path)
    with pytest.raises(InvalidInput) as refused:
        read_onnx(path)
    assert refused.value.code == code
