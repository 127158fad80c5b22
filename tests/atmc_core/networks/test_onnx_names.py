"""Any name that ONNX allows survives the way in and out, or is replaced."""

import re
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from atmc_core.errors import InvalidInput
from atmc_core.networks.graph import Graph, build_module
from atmc_core.networks.graph.ir import Node
from atmc_core.networks.onnx.exporter import export
from atmc_core.networks.onnx.runtime import runner
from tests.atmc_core.networks.onnx_files import read_onnx

SHAPE = (1, 8, 8)


def _file(path: Path, input_name: str, output_name: str, weight: str = "conv.weight") -> Path:
    kernel = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    graph = helper.make_graph(
        [
            helper.make_node("Conv", [input_name, weight], ["between"]),
            helper.make_node("Flatten", ["between"], [output_name]),
        ],
        "net",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(kernel, weight)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def _out_again(path: Path, out: Path) -> tuple[str, str]:
    """Import a file, export it, and return the names of the export's input and output."""
    imported = read_onnx(path)
    graph = Graph.from_text(imported.graph.to_text())
    network = build_module(graph)
    network.load_state_dict(imported.tensors)
    names = {"input_name": graph.input_name, "output_name": graph.output_name}
    assert export(network, SHAPE, out, **names) < 1e-5
    written = onnx.load(out)
    onnx.checker.check_model(written)
    images = torch.rand(2, *SHAPE)
    assert torch.allclose(runner(out)(images), runner(path)(images), atol=1e-5)
    return written.graph.input[0].name, written.graph.output[0].name


@pytest.mark.parametrize(
    ("input_name", "output_name"),
    [
        ("input.1", "33"),
        ("0", "1"),
        ("x:0", "Identity:0"),
        ("serving_default/images", "a b"),
        ("conv_weight", "0.weight"),
        ("images.1", "images"),
        ("画像", "ü"),
        ("%x", 'a "name"'),
        ("atmc_logits", "atmc_images"),
        ("a\x00b", "y\n"),
        ("/Flatten_output_0", "onnx::Conv_0"),
    ],
)
def test_the_names_of_input_and_output_survive(
    input_name: str, output_name: str, tmp_path: Path
) -> None:
    path = _file(tmp_path / "net.onnx", input_name, output_name)
    assert _out_again(path, tmp_path / "out.onnx") == (input_name, output_name)


def test_names_that_are_too_long_are_replaced(tmp_path: Path) -> None:
    path = _file(tmp_path / "net.onnx", "x" * 2000, "y" * 2000)
    assert _out_again(path, tmp_path / "out.onnx") == ("images", "logits")
    path = _file(tmp_path / "net.onnx", "logits", "y" * 2000)
    assert _out_again(path, tmp_path / "out.onnx") == ("logits", "outputs")


def test_a_name_that_the_exported_file_uses_itself_survives(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 8), nn.ReLU(), nn.Flatten())
    out = tmp_path / "out.onnx"
    names = {"input_name": "0.weight", "output_name": "/0/Conv_output_0"}
    assert export(network, SHAPE, out, **names) < 1e-5
    graph = onnx.load(out).graph
    onnx.checker.check_model(onnx.load(out))
    assert (graph.input[0].name, graph.output[0].name) == tuple(names.values())


@pytest.mark.parametrize(
    "name",
    [
        *("conv", "graph", "code", "meta", "_code", "recompile", "self", "forward", "training"),
        *("33", "class", "images", "a-b", "graph.code", "torch", "weights.graph", "x" * 500),
    ],
)
def test_a_weight_may_have_any_name(name: str, tmp_path: Path) -> None:
    path = _file(tmp_path / "net.onnx", "images", "logits", f"{name}.weight")
    _out_again(path, tmp_path / "out.onnx")
    (key,) = read_onnx(path).tensors
    kept = name in ("conv", "images", "torch", "weights.graph")
    assert key == f"{name}.weight" if kept else re.fullmatch(r"conv_\d+\.weight", key)


def test_an_artifact_cannot_take_the_names_of_the_module_itself() -> None:
    options = {"inputs": 1, "outputs": 1, "bias": 0}
    for name in ("graph", "code.x", "self", "recompile"):
        graph = Graph((Node("linear", (-1,), options, name),), (1, 1, 1), "x", "y")
        with pytest.raises(InvalidInput, match="is reserved"):
            build_module(graph)


@pytest.mark.parametrize("value", [1e10, -3.4e38, 2**31, 0.5])
def test_a_graph_holds_any_float32_and_sizes(value: float) -> None:
    graph = Graph((Node("clamp", (-1,), {"low": value}),), (1, 1, 1), "x", "y")
    assert Graph.from_text(graph.to_text()) == graph


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e39, 2**31 + 1, 10**400])
def test_a_graph_holds_no_other_number(value: float) -> None:
    graph = Graph((Node("clamp", (-1,), {"low": value}),), (1, 1, 1), "x", "y")
    with pytest.raises(InvalidInput, match="has the option 'low'"):
        graph.check()
