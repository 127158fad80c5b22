"""The speed of the codebook projection, compared with k-means on an N x K distance matrix.

    python -m benchmarks.projection [--values 400000] [--bits 8]

Both sides quantise the same normally distributed values to 2^bits centres and a fixed zero, in one
run. The distance matrix iterates until its error is within 1 % of ours, at most a hundred times.
Prints ``speedup`` (the matrix's time divided by ours) and ``error_ratio`` (our squared error
divided by the matrix's).
"""

import argparse
import statistics
import time

import torch
from torch import Tensor

from atmc_core.solver.projection import quantize
from benchmarks.timing import print_result

MAX_ITERATIONS = 100
# The matrix's squared error has to come down to ours times this.
ENOUGH = 1.01


def by_distance_matrix(values: Tensor, size: int, enough: float) -> tuple[Tensor, int]:
    """Lloyd's k-means with a dense distance matrix and one centre fixed at zero.

    It starts from centres spread evenly over the range, as is usual for weights (Han et al., 2016).

    Args:
        values: float32 ``[N]``.
        size: the number of centres besides the one at zero.
        enough: the squared error at which to stop.

    Returns:
        The quantised values, and the number of iterations.
    """
    start = torch.linspace(float(values.min()), float(values.max()), size)
    centres = torch.cat([start, torch.zeros(1)])
    for iteration in range(MAX_ITERATIONS + 1):
        distance, nearest = (values[:, None] - centres[None, :]).abs().min(1)
        if iteration == MAX_ITERATIONS or float(distance.double().square().sum()) <= enough:
            break
        sums = torch.zeros_like(centres).index_add_(0, nearest, values)
        counts = torch.bincount(nearest, minlength=size + 1)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
        centres[-1] = 0
    return centres[nearest], iteration


def _error(values: Tensor, quantised: Tensor) -> float:
    return float((values - quantised).double().square().sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--values", type=int, default=400_000)
    parser.add_argument("--bits", type=int, default=8, choices=range(1, 9))
    parser.add_argument("--repeats", type=int, default=5, help="of our side; the median counts")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    values = torch.randn(arguments.values)
    quantize(values[:10_000], arguments.bits)

    seconds = []
    for _ in range(arguments.repeats):
        began = time.perf_counter()
        ours = quantize(values, arguments.bits)
        seconds.append(time.perf_counter() - began)
    own_seconds = statistics.median(seconds)
    own_error = _error(values, ours.values)

    began = time.perf_counter()
    matrix, iterations = by_distance_matrix(values, 2**arguments.bits, ENOUGH * own_error)
    matrix_seconds = time.perf_counter() - began
    matrix_error = _error(values, matrix)
    print_result(
        {
            "speedup": matrix_seconds / own_seconds,
            "error_ratio": own_error / matrix_error,
            "seconds": own_seconds,
            "matrix_seconds": matrix_seconds,
            "matrix_iterations": iterations,
            "values": arguments.values,
            "bits": arguments.bits,
        }
    )


if __name__ == "__main__":
    main()
