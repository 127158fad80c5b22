"""The C file of a network computes what onnxruntime computes."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from atmc_core import artifact
from atmc_core.artifact import export as exports
from atmc_core.codegen import NotCovered, c_source, compile_c
from atmc_core.codegen.compiler import Compiled
from atmc_core.networks.architectures import build
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.graph import build_module
from atmc_core.networks.onnx.exporter import export
from atmc_core.networks.onnx.runtime import runner
from atmc_core.networks.onnx.verify import relative_difference
from tests.atmc_core.networks.onnx_files import read_onnx
from tests.atmc_core.networks.test_onnx_operators import FORMS, SIDE, onnx_file

compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)")
STRICT = ("-Wall", "-Wextra", "-Werror")
LENET = Path(__file__).parents[3] / "benchmarks/results/networks/mnist-0.0025-seed0.atmc"
#: Of each kind of kernel one.
KINDS = [
    "Conv in groups, strided, dilated",
    "LayerNormalization",
    "LRN",
    "PRelu, a slope for each channel",
    "MaxPool with uneven pads, rounded up",
    "AveragePool not counting them",
    "ReduceLogSumExp",
    "Resize, cubic",
    "Pad by reflection",
    "DepthToSpace",
    "Concat",
    "MatMul",
]


def _images(*shape: int) -> Tensor:
    return torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))


def _sparse(network: nn.Module, density: float) -> nn.Module:
    """The network with so many of its weights, and statistics of norms that are not trivial."""
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            kept = torch.rand(module.weight.shape, generator=generator) < density
            module.weight.data *= kept / density**0.5
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.data.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


def _held_to_onnxruntime(network: nn.Module, shape: tuple[int, int, int], folder: Path) -> str:
    """Compile the network's C file, compare it with its ONNX file, and return the C file."""
    source, onnx = folder / "model.c", folder / "model.onnx"
    source.write_text(c_source(network, shape))
    export(network, shape, onnx, input_name="images", output_name="logits")
    theirs = runner(onnx)(_images(*shape))
    library = compile_c(source, folder / "model.so", *STRICT)
    ours = Compiled(library, theirs.shape[1])(_images(*shape))
    assert relative_difference(ours, theirs) < 1e-5
    assert theirs.std() > 1e-3  # the logits say something
    return source.read_text()


@compiler
def test_the_kept_lenet_computes_in_c_what_it_computes_in_onnxruntime(tmp_path: Path) -> None:
    network = artifact.load(LENET).classifier()
    text = _held_to_onnxruntime(network, (1, 28, 28), tmp_path)
    nonzeros = sum(int(p.count_nonzero()) for n, p in network.named_parameters() if "weight" in n)
    dense = sum(p.numel() for n, p in network.named_parameters() if "weight" in n)
    # Two numbers for each weight at most; all weights would be 46 times as many.
    assert text.count(",") < 3 * nonzeros < dense / 10


@compiler
@pytest.mark.parametrize(
    ("name", "shape", "density"),
    [
        ("digits_cnn", (1, 8, 8), 0.2),
        ("strided_cnn", (1, 28, 28), 0.05),
        pytest.param("mobilenet_v2", (3, 32, 32), 0.02, marks=pytest.mark.slow),
        pytest.param("resnet18", (3, 32, 32), 0.01, marks=pytest.mark.slow),
        pytest.param("wide_resnet_16_8", (3, 32, 32), 0.01, marks=pytest.mark.slow),
        pytest.param("vgg16_bn", (3, 32, 32), 0.01, marks=pytest.mark.slow),
        *(
            pytest.param(f"torchvision/{name}", (3, 64, 64), 0.03, marks=pytest.mark.slow)
            for name in ("convnext_tiny", "densenet121", "efficientnet_b0", "mobilenet_v3_small")
        ),
        *(
            pytest.param(f"torchvision/{name}", (3, 64, 64), 0.03, marks=pytest.mark.slow)
            for name in ("regnet_y_400mf", "shufflenet_v2_x0_5", "squeezenet1_0", "resnext50_32x4d")
        ),
    ],
)
def test_an_architecture_computes_in_c_what_it_computes_in_onnxruntime(
    name: str, shape: tuple[int, int, int], density: float, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    channels = shape[0]
    normalization = Normalization((0.4,) * channels, (0.3,) * channels)
    network = _sparse(build(name, 10), density)
    _held_to_onnxruntime(Classifier(network, normalization, channels).eval(), shape, tmp_path)


def _hold_all(names: Sequence[str], folder: Path, *options: str) -> None:
    """Compile the C files of ONNX files as one, and compare each with its file."""
    text, expected = "", []
    images = _images(1, SIDE, SIDE)
    for number, name in enumerate(names):
        path = onnx_file(name, folder / "net.onnx")
        imported = read_onnx(path)
        network = build_module(imported.graph)
        network.load_state_dict(imported.tensors, strict=False)
        text += c_source(network, (1, SIDE, SIDE), f"model_{number}")
        expected.append(runner(path)(images))
    (folder / "all.c").write_text(text)
    library = compile_c(folder / "all.c", folder / "all.so", *STRICT, *options)
    for number, (name, theirs) in enumerate(zip(names, expected, strict=True)):
        ours = Compiled(library, theirs.shape[1], f"model_{number}")(images)
        assert relative_difference(ours, theirs) < 1e-5, name


@compiler
def test_operators_of_each_kind_compute_in_c_what_the_uploaded_file_computes(
    tmp_path: Path,
) -> None:
    _hold_all(KINDS, tmp_path, "-O0")


@compiler
@pytest.mark.slow
def test_every_operator_computes_in_c_what_the_uploaded_file_computes(tmp_path: Path) -> None:
    _hold_all(list(FORMS), tmp_path)


@compiler
@pytest.mark.parametrize(("channels", "magic"), [(1, "P5"), (3, "P6")])
def test_the_program_reads_an_image_and_prints_the_logits(
    channels: int, magic: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(channels, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5))
    source, program = tmp_path / "model.c", tmp_path / "model"
    source.write_text(c_source(network, (channels, 6, 8)))
    command = ["cc", "-std=c99", *STRICT, "-DATMC_MAIN", str(source), "-o", str(program), "-lm"]
    subprocess.run(command, check=True)
    pixels = torch.randint(0, 256, (6, 8, channels), dtype=torch.uint8)
    image = tmp_path / "image"
    image.write_bytes(f"{magic}\n8 6\n255\n".encode() + pixels.numpy().tobytes())
    printed = subprocess.run([program, image], capture_output=True, text=True, check=True).stdout
    logits = torch.tensor([float(line) for line in printed.splitlines()])
    with torch.no_grad():
        expected = network(pixels.permute(2, 0, 1)[None] / 255)[0]
    assert torch.allclose(logits, expected, atol=1e-5)

    image.write_bytes(f"{magic}\n8 6\n255\n".encode() + bytes(3))
    refused = subprocess.run([program, image], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "of 8x6" in refused.stderr


def test_an_operation_that_is_not_covered_is_named(tmp_path: Path) -> None:
    class Inverse(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.linalg.inv(images[:, 0]).flatten(1)

    with pytest.raises(NotCovered, match="linalg_inv"):
        c_source(Inverse(), (1, 4, 4))


def test_a_file_that_would_be_too_large_is_left_out_and_the_job_told_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, events = artifact.load(LENET), list[dict[str, Any]]()
    monkeypatch.setattr("atmc_core.codegen.source.MAX_CONSTANTS", 1000)
    exports.write_exports(model, tmp_path, events.append)
    (event,) = events
    assert event["code"] == "c_not_exported"
    assert "constants" in event["message"]
    assert not (tmp_path / "model.c").exists()
    assert (tmp_path / "model.onnx").exists()


class _InPlace(nn.Module):
    """Writes into a part of a result, and runs a layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3 * 36, 4)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        maps[:, :2].mul_(2)
        maps = maps + torch.relu_(self.conv(maps))
        result: Tensor = self.last(maps.flatten(1))
        return result


@compiler
def test_what_is_written_in_place_and_layers_of_zeros_come_out_right(tmp_path: Path) -> None:
    torch.manual_seed(0)
    zeros = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))
    for parameter in zeros.parameters():
        parameter.data.zero_()
    zeros[3].bias.data += torch.arange(4.0)
    images = _images(3, 6, 6)
    for number, network in enumerate((_InPlace(), zeros)):
        source = tmp_path / f"{number}.c"
        source.write_text(c_source(network, (3, 6, 6)))
        compiled = Compiled(compile_c(source, tmp_path / f"{number}.so", *STRICT, "-O0"), 4)
        with torch.no_grad():
            assert relative_difference(compiled(images), network(images)) < 1e-6
