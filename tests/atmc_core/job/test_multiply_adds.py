"""A budget of multiply-adds is kept, on an ONNX network with residual and depthwise parts."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from atmc_core import artifact
from atmc_core.errors import InvalidInput
from atmc_core.factors.splitting import plain
from atmc_core.factors.views import dense_weights
from atmc_core.networks.architectures import build
from atmc_core.networks.multiply_adds import layer_positions, multiply_adds
from atmc_core.networks.upload import ModelInput
from atmc_core.solver.support import Channels
from tests.atmc_core.job.test_bare_networks import QUICK, images
from tests.atmc_core.job.whole_jobs import THREAT, read_report, run_job

__all__ = ["images"]  # the fixture


class _Residual(nn.Module):
    """A stem, and two blocks like MobileNet's whose outputs are added to their inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(8, 24, 1),
                nn.ReLU6(),
                nn.Conv2d(24, 24, 3, padding=1, groups=24),
                nn.ReLU6(),
                nn.Conv2d(24, 8, 1),
            )
            for _ in range(2)
        )
        self.last = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(32, 3))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(images)
        for block in self.blocks:
            maps = maps + block(maps)
        result: Tensor = self.last(maps)
        return result


def _run(images: Path, folder: Path, method: str, macs: float) -> Any:
    path = folder / "model.onnx"
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Residual().eval(), (torch.rand(1, 1, 8, 8),), path, dynamo=False, opset_version=17
        )
    document = {
        "method": method,
        "threat": THREAT | {"steps": 1},
        "target": {"macs": macs, "bits": 8, "structure": "channel"}
        | ({"int8": True, "int8_drop": 1.0} if method == "atmc" else {}),
        "training": {"robust_epochs": 1, "compression_epochs": 2, "finish_epochs": 1},
        "evaluation": QUICK | {"speed": method == "atmc"},
    }
    return run_job(document, ModelInput(path, "onnx"), images, folder / "job")


@pytest.mark.parametrize("method", ["atmc", "nap"])
def test_the_network_has_at_most_that_share(method: str, images: Path, tmp_path: Path) -> None:
    headline, _ = _run(images, tmp_path, method, 0.4)
    model = artifact.load(tmp_path / "job" / "results" / "model.atmc")
    whole = multiply_adds(_Residual(), (1, 8, 8)).dense
    left = multiply_adds(model.network(), (1, 8, 8)).dense
    # Not much less than may be: one channel of the stem is a twelfth of all.
    assert 0.25 * whole < left <= 0.4 * whole
    assert headline["nonzeros"] <= headline["k"]
    if method == "atmc":
        assert headline["multiply_adds_before"] == whole
        assert headline["multiply_adds_after"] == left
        session = onnxruntime.InferenceSession(tmp_path / "job" / "results" / "model.onnx")
        pixels = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
        (logits,) = session.run(None, {session.get_inputs()[0].name: pixels})
        with torch.no_grad():
            expected = model.classifier()(torch.from_numpy(pixels))
        assert np.allclose(logits, expected, atol=1e-4)
        # What came in through ONNX goes out in every form, and each is timed.
        results, report = tmp_path / "job" / "results", read_report(tmp_path / "job")
        assert (results / "model.c").stat().st_size > 0
        assert report["int8"]["figures"]["bytes"] == (results / "model.int8.onnx").stat().st_size
        timed = {each["network"] for each in report["speed"]["latency"]}
        assert {"before", "after", "int8"} <= timed, timed


def test_less_than_one_channel_a_layer_is_refused_with_what_is_possible(
    images: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="one channel a layer") as refused:
        _run(images, tmp_path, "nap", 0.005)
    assert (refused.value.code, refused.value.param) == ("k_out_of_range", "target.macs")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "torchvision/mobilenet_v2"])
def test_large_networks_are_thinned_to_just_below_the_share(name: str) -> None:
    torch.manual_seed(0)
    network, shape = build(name, 10), (3, 32, 32)
    counts = layer_positions(network, shape)
    positions = {
        f"{own}.weight": counts[module]
        for own, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    channels, factors = Channels(network, positions), plain(dense_weights(network))
    assert channels.total == multiply_adds(network, shape).dense
    channels.shrink(factors, channels.weights // 4)
    left = sum(side.size(channels.alive) for side in channels.sides.values())
    assert 0.245 * channels.total < left <= 0.25 * channels.total
