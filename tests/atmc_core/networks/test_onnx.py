"""ONNX files that torch's exporters write are read, trained, and exported again."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from atmc_core.errors import InvalidInput
from atmc_core.factors.views import compressible_weights
from atmc_core.networks.architectures import build
from atmc_core.networks.blueprint import ONNX, Blueprint
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.graph import Graph, build_module
from atmc_core.networks.onnx.exporter import export
from atmc_core.networks.onnx.runtime import runner
from atmc_core.networks.onnx.verify import verify
from tests.atmc_core.networks.onnx_files import read_onnx


def _export(
    network: nn.Module,
    path: Path,
    shape: tuple[int, int, int] = (3, 32, 32),
    dynamo: bool = False,
    channels_last: bool = False,
    fixed: int = 0,
) -> Path:
    """Export by one of torch's exporters; ``fixed`` is the size of the batch, 0 leaves it open."""
    memory = torch.channels_last if channels_last else torch.contiguous_format
    dtype = next(network.parameters()).dtype
    images = torch.rand(fixed or 2, *shape).to(dtype).contiguous(memory_format=memory)
    network = network.eval().to(memory_format=memory)  # type: ignore[call-overload]
    names = {"input_names": ["pixels"], "output_names": ["scores"]}
    if dynamo:
        dynamic = None if fixed else ({0: torch.export.Dim.DYNAMIC},)
        torch.onnx.export(
            network, (images,), path, dynamo=True, opset_version=18,
            dynamic_shapes=dynamic, external_data=False, verbose=False, **names,
        )  # fmt: skip
    else:
        torch.onnx.export(
            network, (images,), path, dynamo=False, opset_version=17,
            dynamic_axes={} if fixed else {"pixels": {0: "n"}}, **names,
        )  # fmt: skip
    return path


def _import_and_train(path: Path) -> tuple[float, float]:
    """Difference to onnxruntime, and by how much one step lowers the loss."""
    imported = read_onnx(path)
    network = build_module(imported.graph)
    network.load_state_dict(imported.tensors, strict=False)
    difference = verify(network, path, imported)
    assert compressible_weights(network)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, *imported.graph.input_shape, generator=generator)
    labels = torch.arange(4) % imported.num_classes
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    before = nn.functional.cross_entropy(network(images), labels)
    before.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    optimizer.step()
    after = nn.functional.cross_entropy(network(images), labels)
    return difference, float(before.detach() - after.detach())


@pytest.mark.parametrize("dynamo", [False, True])
def test_an_exported_network_comes_in_trains_and_goes_out(dynamo: bool, tmp_path: Path) -> None:
    path = _export(build("digits_cnn", 10), tmp_path / "net.onnx", (1, 8, 8), dynamo)
    difference, gain = _import_and_train(path)
    assert difference < 1e-4
    assert gain > 0

    imported = read_onnx(path)
    graph = Graph.from_text(imported.graph.to_text())
    blueprint = Blueprint(ONNX, 10, graph.input_shape, graph)
    network = blueprint.build()
    network.load_state_dict(imported.tensors)
    classifier = Classifier(network, Normalization((0.4,), (0.3,)), 1).eval()
    out = tmp_path / "out.onnx"
    names = {"input_name": blueprint.input_name, "output_name": blueprint.output_name}
    assert export(classifier, (1, 8, 8), out, **names) < 1e-5
    written = onnx.load(out).graph
    assert (written.input[0].name, written.output[0].name) == ("pixels", "scores")
    images = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(runner(out)(images), classifier(images), atol=1e-5)


@pytest.mark.parametrize(("map_size", "pooled"), [(1, 7), (2, 7), (5, 3)])
def test_adaptive_pools_of_any_size_come_in_and_go_out_and_in_again(
    map_size: int, pooled: int, tmp_path: Path
) -> None:
    """VGG pools to 7 x 7 whatever comes, which at 32 x 32 is a single pixel."""
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(pooled),
        nn.Flatten(),
        nn.Linear(4 * pooled**2, 3),
    )
    shape = (1, map_size, map_size)
    theirs = _export(network, tmp_path / "theirs.onnx", shape, dynamo=True)
    assert _import_and_train(theirs)[0] < 1e-4
    assert "adaptive_average_pool" in [node.op for node in read_onnx(theirs).graph.nodes]
    ours = tmp_path / "ours.onnx"
    assert export(network, shape, ours, input_name="pixels", output_name="scores") < 1e-5
    assert _import_and_train(ours)[0] < 1e-4
    assert read_onnx(ours).graph.nodes == read_onnx(theirs).graph.nodes


FAMILIES = (
    "resnet18",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "densenet121",
    "regnet_y_400mf",
    "convnext_tiny",
    "vgg11_bn",
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
)


@pytest.mark.slow
@pytest.mark.parametrize("fixed", [0, 2], ids=["batch open", "batch fixed"])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("dynamo", [False, True], ids=["older exporter", "newer exporter"])
@pytest.mark.parametrize("family", FAMILIES)
def test_nine_families_come_in_however_they_are_exported(
    family: str, dynamo: bool, last: bool, fixed: int, tmp_path: Path
) -> None:
    # The older exporter cannot pool a single pixel to VGG's 7 x 7.
    size = 224 if family == "vgg11_bn" and not dynamo else 32
    network = build(f"torchvision/{family}", 10)
    path = _export(network, tmp_path / "net.onnx", (3, size, size), dynamo, last, fixed)
    assert _import_and_train(path)[0] < 1e-4


@pytest.mark.parametrize("fixed", [0, 1, 2], ids=["batch open", "one image", "two images"])
@pytest.mark.parametrize("dynamo", [False, True], ids=["older exporter", "newer exporter"])
def test_a_network_in_channels_last_memory_comes_in(
    dynamo: bool, fixed: int, tmp_path: Path
) -> None:
    """The newer exporter writes its pool as a gather over the entries of the whole batch."""
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)
    )
    path = _export(network, tmp_path / "net.onnx", (3, 8, 8), dynamo, True, fixed)
    assert _import_and_train(path)[0] < 1e-5
    assert "mean" in [node.op for node in read_onnx(path).graph.nodes]


@pytest.mark.parametrize("dynamo", [False, True])
def test_a_network_in_half_precision_comes_in(dynamo: bool, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).half()
    path = _export(network, tmp_path / "half.onnx", (1, 8, 8), dynamo)
    imported = read_onnx(path)
    assert {tensor.dtype for tensor in imported.tensors.values()} == {torch.float32}
    assert _import_and_train(path)[0] < 2e-2
    assert [code for code, _ in imported.notes] == ["half_precision_widened"]


def test_a_softmax_at_the_end_is_dropped_and_said(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Softmax(1))
    imported = read_onnx(_export(network, tmp_path / "net.onnx", (1, 8, 8)))
    assert [code for code, _ in imported.notes] == ["softmax_dropped"]
    assert [node.op for node in imported.graph.nodes] == ["reshape", "linear"]


def _model(nodes: list[onnx.NodeProto], **weights: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def _flat_linear(product: str = "y", images: str = "x") -> list[onnx.NodeProto]:
    return [
        helper.make_node("Flatten", [images], ["f"]),
        helper.make_node("Gemm", ["f", "w"], [product], name="fc", transB=1),
    ]


WEIGHT = np.ones((3, 16), np.float32)


def _external() -> onnx.ModelProto:
    model = _model(_flat_linear(), w=WEIGHT)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    return model


def _enormous() -> onnx.ModelProto:
    model = _model(_flat_linear(), w=WEIGHT)
    model.graph.initializer[0].dims[:] = [2**40, 2**40]
    return model


def _cycle() -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    return _model([*nodes, *_flat_linear(images="b")], w=WEIGHT)


REFUSED = {
    "external data": (_external(), "external_data"),
    "enormous dimensions": (_enormous(), "malformed_model"),
    "a cycle": (_cycle(), "malformed_model"),
    "a missing initializer": (_model(_flat_linear()), "malformed_model"),
    "an unknown operator": (
        _model(
            [*_flat_linear("h"), helper.make_node("Einsum", ["h"], ["y"], name="e", equation="ab")],
            w=WEIGHT,
        ),
        "unsupported_operator",
    ),
    "another domain": (
        _model([helper.make_node("Run", ["x"], ["y"], domain="evil")]),
        "unsupported_operator",
    ),
    "a padding of billions": (
        _model(
            [
                helper.make_node("Pad", ["x", "p"], ["q"]),
                helper.make_node("Flatten", ["q"], ["f"]),
                helper.make_node("Gemm", ["f", "w"], ["y"], transB=1),
            ],
            p=np.array([0, 0, 2**40, 0, 0, 0, 0, 0]),
            w=WEIGHT,
        ),
        "malformed_model",
    ),
    "a constant of billions": (
        _model(
            [helper.make_node("ConstantOfShape", ["s"], ["w"]), *_flat_linear()],
            s=np.array([2**30, 2**30]),
        ),
        "malformed_model",
    ),
}

REFUSED |= {
    "constants that double and double": (
        _model(
            [helper.make_node("Concat", [f"c{i}"] * 16, [f"c{i + 1}"], axis=0) for i in range(9)]
            + [*_flat_linear("h"), helper.make_node("Add", ["h", "c9"], ["y"])],
            c0=np.ones(2, np.float32),
            w=WEIGHT,
        ),
        "malformed_model",
    ),
    "a gather of too much": (
        _model(
            [
                helper.make_node("Gather", ["w", "at"], ["g"]),
                *_flat_linear("h"),
                helper.make_node("Add", ["h", "g"], ["y"]),
            ],
            at=np.zeros(2**24 + 1, np.int64),
            w=np.ones((3, 16), np.float32),
        ),
        "malformed_model",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    model, code = REFUSED[name]
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidInput) as refused:
        read_onnx(path)
    assert refused.value.code == code
    if name == "an unknown operator":
        assert "Einsum node 'e'" in refused.value.message


def test_constants_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [helper.make_node("ConstantOfShape", ["s"], [f"c{i}"]) for i in range(20)]
    added = [helper.make_node("Add", ["h" if i == 0 else f"h{i}", f"c{i}"],
                              ["y" if i == 19 else f"h{i + 1}"]) for i in range(20)]  # fmt: skip
    model = _model([*nodes, *_flat_linear("h"), *added], s=np.array([1, 3]), w=WEIGHT)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    read_onnx(path)
    monkeypatch.setattr("atmc_core.networks.onnx.importer.MAX_ELEMENTS", 50)
    with pytest.raises(InvalidInput, match="too many constants"):
        read_onnx(path)


def test_mutated_files_are_refused_or_read_and_nothing_else(tmp_path: Path) -> None:
    good = _model(_flat_linear(), w=WEIGHT).SerializeToString()
    rng = np.random.default_rng(0)
    path = tmp_path / "net.onnx"
    refusals = 0
    for _ in range(400):
        content = bytearray(good)
        for place in rng.integers(0, len(content), rng.integers(1, 5)):
            content[place] = rng.integers(0, 256)
        path.write_bytes(bytes(content[: rng.integers(len(content) // 2, len(content) + 1)]))
        try:
            build_module(read_onnx(path).graph)
        except InvalidInput:
            refusals += 1
    assert refusals > 100
