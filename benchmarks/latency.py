"""Times sparse networks as C files, and int8, against the dense float32 networks in onnxruntime.

    python -m benchmarks.latency

All sides of a network run in one process, in turns, on one core, one image at a time, with nothing
copied to or from Python. LeNet is the kept network of ``benchmarks/results/networks`` with 1/400 of
the dense bytes; ResNet-18 has 1 % of its weights, drawn at random, since where they lie hardly
changes the time. ``int8_speedup`` is ResNet-18's, quantised by onnxruntime on random images. The
last line is one JSON object: the speedups, the times behind them in microseconds, and how far from
the machine's limit the C files are (``..._of_limit``: how long its multiply-adds alone would take
at the rate that a loop over data in the first cache reaches here, over the time that it took).
"""

import argparse
import ctypes
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from atmc_core import artifact
from atmc_core.codegen import Compiled, c_source, compile_c
from atmc_core.evaluation.latency import in_onnxruntime, interleaved
from atmc_core.networks.architectures import build
from atmc_core.networks.multiply_adds import multiply_adds
from atmc_core.networks.onnx.exporter import export
from atmc_core.networks.onnx.quantized import quantize
from atmc_core.networks.onnx.runtime import runner
from benchmarks.machine import commit, hardware
from benchmarks.timing import print_result, say

LENET = Path(__file__).parent / "results" / "networks" / "mnist-0.0025-seed0.atmc"
DENSITY = 0.01
# How many images the int8 network is calibrated on.
_CALIBRATED = 32
# Weighs eight maps of 256 floats, again and again, as the C files' loop does.
_LIMIT = """
#include <math.h>
void limit(float *restrict y, const float *restrict x, const int *o, const float *w, int times) {
    const float *a = x + o[0], *b = x + o[1], *c = x + o[2], *d = x + o[3];
    const float *e = x + o[4], *f = x + o[5], *g = x + o[6], *h = x + o[7];
    for (int t = 0; t < times; t++)
        for (int p = 0; p < 256; p++)
            y[p] = fmaf(w[0], a[p], fmaf(w[1], b[p], fmaf(w[2], c[p], fmaf(w[3], d[p],
                   fmaf(w[4], e[p], fmaf(w[5], f[p], fmaf(w[6], g[p], fmaf(w[7], h[p], y[p]))))))));
}
"""
_LIMIT_TIMES, _LIMIT_LENGTH, _LIMIT_PLANES = 2000, 256, 8


def sparse_resnet18(density: float) -> nn.Module:
    """A ResNet-18 for images of 32x32 with so many of its weights, drawn at random."""
    torch.manual_seed(0)
    network = build("resnet18", 10)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data *= (torch.rand_like(module.weight) < density) / density**0.5
    return network.eval()


def compare(
    name: str, network: nn.Module, shape: tuple[int, int, int], folder: Path, seconds: float
) -> dict[str, Any]:
    """The times of a network's C file, its ONNX file, and that in int8, and what they make."""
    source, onnx, int8 = (folder / each for each in ("model.c", "model.onnx", "int8.onnx"))
    export(network, shape, onnx, input_name="images", output_name="logits")
    source.write_text(c_source(network, shape))
    images = torch.rand(_CALIBRATED, *shape, generator=torch.Generator().manual_seed(0))
    theirs = runner(onnx)(images[:4])
    compiled = Compiled(compile_c(source, folder / "model.so"), theirs.shape[1])
    difference = float((compiled(images[:4]) - theirs).abs().max() / theirs.abs().max())
    quantize(onnx, int8, images)
    limit = _limit(folder)
    times = interleaved(
        {
            "onnxruntime": in_onnxruntime(onnx, 1)(1, shape),
            "c": compiled.bound(images[0].numpy()),
            "int8": in_onnxruntime(int8, 1)(1, shape),
            "limit": limit,
        },
        seconds,
        most=2000,
    )
    counts = multiply_adds(network, shape)
    rate = _LIMIT_TIMES * _LIMIT_LENGTH * _LIMIT_PLANES / times["limit"].median_s
    dense, sparse = times["onnxruntime"], times["c"]
    for side, time in times.items():
        say(f"{name} {side}: {1e6 * time.median_s:.1f} us, p95 {1e6 * time.p95_s:.1f}")
    return {
        f"{name}_speedup": dense.median_s / sparse.median_s,
        f"{name}_int8_speedup": dense.median_s / times["int8"].median_s,
        f"{name}_onnxruntime_us": 1e6 * dense.median_s,
        f"{name}_onnxruntime_p95_us": 1e6 * dense.p95_s,
        f"{name}_c_us": 1e6 * sparse.median_s,
        f"{name}_c_p95_us": 1e6 * sparse.p95_s,
        f"{name}_int8_us": 1e6 * times["int8"].median_s,
        f"{name}_multiply_adds": counts.dense,
        f"{name}_nonzero_multiply_adds": counts.nonzero,
        f"{name}_c_of_limit": counts.nonzero / rate / sparse.median_s,
        f"{name}_onnxruntime_of_limit": counts.dense / rate / dense.median_s,
        f"{name}_c_bytes": source.stat().st_size,
        f"{name}_difference": difference,
    }


def _limit(folder: Path) -> Callable[[], None]:
    """A function that weighs maps which lie in the first cache."""
    source, library = folder / "limit.c", folder / "limit.so"
    source.write_text(_LIMIT)
    function = ctypes.CDLL(str(compile_c(source, library))).limit
    offsets = np.arange(_LIMIT_PLANES, dtype=np.int32) * _LIMIT_LENGTH
    floats = [np.full(_LIMIT_PLANES * _LIMIT_LENGTH, 1e-3, np.float32) for _ in range(3)]
    arrays = [floats[0], floats[1], offsets, floats[2]]
    pointers = [each.ctypes.data_as(ctypes.c_void_p) for each in arrays]

    def run(kept: object = arrays) -> None:
        function(*pointers, _LIMIT_TIMES)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing each network")
    options = parser.parse_args()
    torch.set_num_threads(1)
    networks = (
        ("lenet", artifact.load(LENET).classifier(), (1, 28, 28)),
        ("resnet18", sparse_resnet18(DENSITY), (3, 32, 32)),
    )
    figures: dict[str, Any] = {}
    for name, network, shape in networks:
        with TemporaryDirectory() as folder:
            figures |= compare(name, network, shape, Path(folder), options.seconds)
    order = ("lenet_speedup", "resnet18_speedup")
    print_result(
        {each: figures[each] for each in order}
        | {"int8_speedup": figures.pop("resnet18_int8_speedup")}
        | figures
        | {"hardware": hardware(), "commit": commit()}
    )


if __name__ == "__main__":
    main()
