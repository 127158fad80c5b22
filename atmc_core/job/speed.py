"""What a job measures of speed: the uploaded network and the compressed one, in turns."""

import copy
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from atmc_core.artifact.export import C_FILE, NO_C, ONNX_FILE
from atmc_core.codegen import Compiled, NoCompiler, compile_c
from atmc_core.evaluation.latency import in_onnxruntime, interleaved, peak_memory
from atmc_core.events import Emit
from atmc_core.job.inputs import Inputs
from atmc_core.job.int8 import INT8_FILE
from atmc_core.networks.classifier import Classifier
from atmc_core.networks.multiply_adds import multiply_adds
from atmc_core.networks.onnx.exporter import ExportFailed, export
from atmc_core.networks.onnx.verify import relative_difference

#: The sizes of the batches that are timed.
BATCHES = (1, 32)
# About how long the timing may take, in seconds.
_BUDGET_S = 0.6
# How long a compiler may take, in seconds; a result that it has no time for is not timed.
_COMPILER_S = 30.0
#: The largest difference of the C file's logits from PyTorch's, as a share of the largest.
TOLERANCE = 1e-5
_IMAGES = 4


@dataclass
class _Measured:
    """What is timed, and what could not be.

    Attributes:
        sides: the functions to time, each with its network, batch and threads.
        reasons: why a network was not timed, by its name.
        memory: the peak memory of a batch of 32, by the network's name.
    """

    sides: dict[tuple[str, int, int], Callable[[], object]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    memory: dict[str, int | None] = field(default_factory=dict)


def measure_speed(inputs: Inputs, after: Classifier | None, emit: Emit) -> dict[str, Any] | None:
    """Measure latency, multiply-adds and memory, as the report has them.

    Latency is that of the exported ONNX files in onnxruntime, and of the C file on one core where
    there is a compiler. A C file whose logits differ from PyTorch's is deleted, with a warning.

    Args:
        inputs: the job's inputs; the uploaded network is timed with its weights of now, on which
            its time does not depend.
        after: the compressed classifier, on the CPU, whose exports are in the folder of results;
            None for a job that only evaluates.
        emit: receives the warning, as an event.

    Returns:
        None if the spec leaves it out.
    """
    if not inputs.spec.evaluation.speed:
        return None
    before = copy.deepcopy(inputs.classifier).cpu().eval()
    shape = inputs.blueprint.input_shape
    measured = _Measured()
    with TemporaryDirectory() as name:
        folder = Path(name)
        _time_onnx(measured, "before", _exported(before, inputs, folder, measured), shape)
        if after is not None:
            _time_onnx(measured, "after", _written(inputs.results, measured), shape)
            if (inputs.results / INT8_FILE).exists():
                _time_onnx(measured, "int8", inputs.results / INT8_FILE, shape)
            _time_c(measured, inputs.results / C_FILE, after, shape, folder, emit)
        keys = {
            f"{network} {batch} {threads}": (network, batch, threads)
            for network, batch, threads in measured.sides
        }
        times = interleaved({label: measured.sides[key] for label, key in keys.items()}, _BUDGET_S)
    counts = multiply_adds(before, shape)
    own = multiply_adds(after, shape) if after is not None else None
    return {
        "threads": _all_threads(),
        "latency": [
            dict(zip(("network", "batch", "threads"), keys[label], strict=True)) | asdict(time)
            for label, time in times.items()
        ],
        "multiply_adds": {
            "before": counts.dense,
            "after": own.dense if own else None,
            "nonzero": own.nonzero if own else None,
        },
        "peak_memory_bytes": measured.memory,
        "not_measured": measured.reasons,
    }


def _all_threads() -> int:
    """How many threads this process may run at once."""
    return len(os.sched_getaffinity(0))


def _exported(before: Classifier, inputs: Inputs, folder: Path, measured: _Measured) -> Path | None:
    path = folder / "before.onnx"
    names = {"input_name": "images", "output_name": "logits"}
    try:
        export(before, inputs.blueprint.input_shape, path, **names)
    except ExportFailed as error:
        measured.reasons["before"] = str(error)
        return None
    return path


def _written(results: Path, measured: _Measured) -> Path | None:
    path = results / ONNX_FILE
    if path.exists():
        return path
    measured.reasons["after"] = f"there is no {ONNX_FILE}"
    return None


def _time_onnx(
    measured: _Measured, network: str, file: Path | None, shape: tuple[int, int, int]
) -> None:
    if file is None:
        return
    for threads in sorted({1, _all_threads()}):
        batch = in_onnxruntime(file, threads)
        for count in BATCHES:
            measured.sides[network, count, threads] = batch(count, shape)
    measured.memory[network] = peak_memory(file, (max(BATCHES), *shape))


def _time_c(
    measured: _Measured,
    file: Path,
    after: Classifier,
    shape: tuple[int, int, int],
    folder: Path,
    emit: Emit,
) -> None:
    """Compile the C file, hold it against PyTorch, and time it on one image."""
    if not file.exists():
        measured.reasons["c"] = f"there is no {C_FILE}"
        return
    images = torch.rand(_IMAGES, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected: Tensor = after(images)
    try:
        library = compile_c(file, folder / "model.so", timeout_s=_COMPILER_S)
        compiled = Compiled(library, expected.shape[1])
        difference = relative_difference(compiled(images), expected)
        if not difference <= TOLERANCE:
            raise RuntimeError(f"its logits differ by {difference:.2g} as it is compiled here")
    except NoCompiler as error:
        measured.reasons["c"] = f"{error}, so {C_FILE} was not tried"
    except RuntimeError as error:
        file.unlink()
        measured.reasons["c"] = f"no {C_FILE}: {error}"
        emit({"type": "warning", "code": NO_C, "message": measured.reasons["c"]})
    else:
        measured.sides["c", 1, 1] = compiled.bound(images[0].numpy())
