"""How long networks take for a batch of images here, measured in turns."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atmc_core.evaluation import memory_probe

# The fewest times that each side runs, after twice to warm up.
_LEAST = 3
# onnxruntime logs fatal errors only.
_FATAL_ONLY = 4
# How long a process may take to tell its memory.
_PROBE_S = 120.0


@dataclass(frozen=True)
class Latency:
    """How long a batch took, in seconds.

    Attributes:
        median_s: the median.
        p95_s: the 95th percentile.
        runs: of how many runs.
    """

    median_s: float
    p95_s: float
    runs: int


def interleaved(
    sides: Mapping[str, Callable[[], object]], budget_s: float, most: int = 300
) -> dict[str, Latency]:
    """Time several functions in turns, so that what else the machine does slows all of them alike.

    Args:
        sides: the functions, by name.
        budget_s: about how long all of it may take, in seconds; each runs three times at least.
        most: how many times each runs at most.
    """
    for _ in range(2):  # the first round is slower than those that follow
        began = time.perf_counter()
        for run in sides.values():
            run()
    warm = time.perf_counter() - began
    rounds = max(_LEAST, min(most, int(budget_s / max(warm, 1e-9))))
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {
        name: Latency(statistics.median(found), float(np.quantile(found, 0.95)), len(found))
        for name, found in seconds.items()
    }


def in_onnxruntime(file: Path, threads: int) -> Callable[[int, Sequence[int]], Callable[[], None]]:
    """Open an ONNX file whose batch is open, for timing.

    Args:
        file: the file.
        threads: how many threads onnxruntime computes on.

    Returns:
        A function from the number of images and the shape of each to a function that runs a batch
        of random images, with nothing copied to or from Python.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = _FATAL_ONLY
    # Or the threads of one session would go on spinning while the next one is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def batch(count: int, shape: Sequence[int]) -> Callable[[], None]:
        images = np.random.default_rng(0).random((count, *shape), np.float32)
        binding = session.io_binding()
        binding.bind_cpu_input(session.get_inputs()[0].name, images)
        binding.bind_output(session.get_outputs()[0].name)

        def run(kept: object = images) -> None:
            session.run_with_iobinding(binding)

        return run

    return batch


def peak_memory(file: Path, shape: Sequence[int]) -> int | None:
    """The bytes that a fresh process needs to open an ONNX file and run a batch, on one thread.

    Args:
        file: the file.
        shape: that of the batch, ``(N, C, H, W)``.

    Returns:
        The peak above what the interpreter and onnxruntime take; None where it cannot be told.
    """
    command = [sys.executable, "-I", str(memory_probe.__file__), str(file), *map(str, shape)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return int(done.stdout)
