"""What stands behind the logits is left out where it keeps the order of the scores."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper

from atmc_core.errors import InvalidInput
from atmc_core.networks.graph import build_module
from atmc_core.networks.onnx.verify import verify
from tests.atmc_core.networks.onnx_files import read_onnx

CLASSES = 5


def _nodes(text: str) -> list[NodeProto]:
    """Nodes, one a line: ``output = Operator input input attribute=3``."""
    nodes = []
    for line in text.strip().splitlines():
        output, _, call = line.partition(" = ")
        op, *words = call.split()
        inputs = [word for word in words if "=" not in word]
        pairs = [word.split("=") for word in words if "=" in word]
        attributes = {
            key: [int(value)] if key == "axes" else float(value) if "." in value else int(value)
            for key, value in pairs
        }
        nodes.append(helper.make_node(op, inputs, [output.strip()], **attributes))
    return nodes


def _file(path: Path, tail: str, **constants: float | np.ndarray) -> Path:
    """A network that flattens 1 x 4 x 4 images into ``f`` and makes the logits ``z`` of them."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(0, 0.5, (CLASSES, 16)).astype(np.float32),
        "bias": rng.normal(0, 0.5, CLASSES).astype(np.float32),
        "w1": rng.normal(0, 0.5, (1, 16)).astype(np.float32),
        "axis": np.array([1]),
    } | {name: np.asarray(value, np.float32) for name, value in constants.items()}
    graph = helper.make_graph(
        [*_nodes("f = Flatten x\nz = Gemm f w bias transB=1"), *_nodes(tail)],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


ONE, HALF, MANY = {"c": 1.0}, {"c": 0.5}, {"c": 1000.0}
#: What follows the logits ``z`` and is left out, with its constants.
DROPPED: dict[str, tuple[str, dict[str, float | np.ndarray]]] = {
    "Sigmoid": ("y = Sigmoid z", {}),
    "Tanh": ("y = Tanh z", {}),
    "Exp": ("y = Exp z", {}),
    "Softplus": ("y = Softplus z", {}),
    "Erf": ("y = Erf z", {}),
    "LeakyRelu": ("y = LeakyRelu z", {}),
    "PRelu of one slope": ("y = PRelu z c", {"c": np.array([0.1])}),
    "a temperature": ("y = Div z c", HALF),
    "the same for each class": ("y = Mul z c", {"c": np.full(CLASSES, 3.0)}),
    "a factor that makes Exp infinite": ("a = Mul z c\ny = Exp a", MANY),
    "a number added": ("y = Add c z", ONE),
    "a cap": ("a = Div z c\nb = Tanh a\ny = Mul b c", MANY),
    "Sigmoid, spelled out": ("a = Neg z\nb = Exp a\nd = Add b c\ny = Div c d", ONE),
    "one minus Sigmoid of the negative": ("a = Neg z\nb = Sigmoid a\ny = Sub c b", ONE),
    "Softmax twice": ("a = Softmax z\ny = Softmax a", {}),
    "a power of probabilities": ("a = Softmax z\ny = Pow a c", HALF),
    "a root": ("a = Softmax z\ny = Sqrt a", {}),
    "a logarithm of clipped probabilities": (
        "a = Softmax z\nb = Clip a low high\ny = Log b",
        {"low": 1e-7, "high": 1 - 1e-7},
    ),
    "Softmax, spelled out": (
        "m = ReduceMax z axes=1\na = Sub z m\ne = Exp a\ns = ReduceSum e axis\ny = Div e s",
        {},
    ),
    "Softmax, spelled out with a product": (
        "e = Exp z\ns = ReduceSum e axis\nr = Reciprocal s\ny = Mul e r",
        {},
    ),
    "Softmax, spelled out without the axis": (
        "e = Exp z\ns = ReduceSum e axis keepdims=0\nu = Unsqueeze s axis\ny = Div e u",
        {},
    ),
    "LogSoftmax, spelled out": ("e = Exp z\ns = ReduceSum e axis\nl = Log s\ny = Sub z l", {}),
    "LogSoftmax by ReduceLogSumExp": ("s = ReduceLogSumExp z axes=1\ny = Sub z s", {}),
    "logits of length one": (
        "n = ReduceL2 z axes=1\nl = Clip n c\ns = Shape z\ne = Expand l s\ny = Div z e",
        {"c": 1e-12},
    ),
    "a temperature for each image": (
        "t = Gemm f w1 transB=1\ns = Softplus t\ny = Div z s",
        {},
    ),
}


@pytest.mark.parametrize("name", DROPPED)
def test_what_keeps_the_order_of_the_scores_is_left_out(name: str, tmp_path: Path) -> None:
    tail, constants = DROPPED[name]
    path = _file(tmp_path / "net.onnx", tail, **constants)
    plain = read_onnx(_file(tmp_path / "plain.onnx", "y = Identity z"))
    imported = read_onnx(path)
    assert imported.graph.nodes == plain.graph.nodes
    assert imported.tensors.keys() == plain.tensors.keys()
    assert all(torch.equal(plain.tensors[key], each) for key, each in imported.tensors.items())
    (code, sentence), *others = imported.notes
    assert code == (
        "softmax_dropped" if "y = Softmax" in tail or "= Softmax" in tail else "head_dropped"
    )
    assert "left out" in sentence
    assert not others
    network = build_module(imported.graph)
    network.load_state_dict(imported.tensors)
    assert verify(network, path, imported) < 1e-5


#: What follows the logits and stays, with the operations behind the linear layer and the notes.
KEPT: dict[str, tuple[str, dict[str, float | np.ndarray], list[str], list[str]]] = {
    "HardSigmoid": ("y = HardSigmoid z", {}, ["affine_clamp"], ["head_kept"]),
    "Clip": ("y = Clip z low high", {"low": -1, "high": 1}, ["clip"], ["head_kept"]),
    "Relu": ("y = Relu z", {}, ["relu"], ["head_kept"]),
    "Max": ("y = Max z c", ONE, ["clamp"], ["head_kept"]),
    "a softmax in a form that is not known": (
        "e = Exp z\ns = MatMul e c\ny = Div e s",
        {"c": np.ones((CLASSES, CLASSES))},
        ["exp", "linear", "div"],
        ["head_kept"],
    ),
    "a Relu behind which scores are normalised": (
        "r = Relu z\ns = ReduceSum r axis\ny = Div r s",
        {},
        ["relu"],
        ["head_dropped", "head_kept"],
    ),
    "a factor for each class": ("y = Mul z c", {"c": np.arange(1.0, 6)}, ["parameter", "mul"], []),
    "a bias of zeros": ("y = Add z c", {"c": np.zeros(CLASSES)}, ["parameter", "add"], []),
    "a negative factor": ("y = Mul z c", {"c": -2.0}, ["number", "mul"], []),
    "LeakyRelu that folds": ("y = LeakyRelu z alpha=-0.5", {}, ["leaky_relu"], []),
    "a swish": ("s = Sigmoid z\ny = Mul z s", {}, ["sigmoid", "mul"], []),
    "a square": ("y = Pow z c", {"c": 2.0}, ["number", "pow"], []),
    "a reciprocal of any sign": ("y = Reciprocal z", {}, ["reciprocal"], []),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_may_change_the_order_stays_and_flat_ends_are_warned_of(
    name: str, tmp_path: Path
) -> None:
    tail, constants, nodes, codes = KEPT[name]
    path = _file(tmp_path / "net.onnx", tail, **constants)
    imported = read_onnx(path)
    assert [node.op for node in imported.graph.nodes] == ["reshape", "linear", *nodes]
    assert [code for code, _ in imported.notes] == codes
    network = build_module(imported.graph)
    network.load_state_dict(imported.tensors)
    assert verify(network, path, imported) < 1e-5


def test_a_softmax_over_the_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="along the classes"):
        read_onnx(_file(tmp_path / "net.onnx", "y = Softmax z axis=0"))


def test_a_long_head_is_left_out_in_time_and_named_shortly(tmp_path: Path) -> None:
    """Sums that double are looked at once each, and a note names some operations only."""
    sums = "\n".join(f"s{i + 1} = Add s{i} s{i}" for i in range(200))
    tail = "\n".join(f"a{i + 1} = Sigmoid a{i}" for i in range(400))
    text = f"s0 = Exp z\n{sums}\na0 = Div z s200\n{tail}\ny = Identity a400"
    imported = read_onnx(_file(tmp_path / "net.onnx", text))
    assert len(imported.head.operations) == 400
    assert max(len(sentence) for _, sentence in imported.notes) < 600
