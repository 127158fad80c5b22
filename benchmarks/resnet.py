"""The time and memory that ATMC adds to the training of a large network: ResNet-34, 21 M weights.

    python -m benchmarks.resnet [--batch 128] [--bits 8]

Time: a PGD-7 training step of ATMC is timed, and in the same run its l0 projection (every step) and
its codebook projections of all tensors (every ``dual_interval`` steps). ``projection_share`` is the
share of a step that projections take on average.

Memory: dense training and ATMC's run in a process each, on a small batch. The following figures are
ATMC's peak minus the dense one's, in float32 numbers per dense weight: ``floats_above_dense`` at
the final budget, ``floats_while_shrinking`` while nearly all entries are still there, and
``floats_in_the_end_game`` with frozen supports (including the memory that choosing them took).
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from atmc_core.factors.splitting import interpolative
from atmc_core.factors.views import dense_weights
from atmc_core.networks.architectures import build
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.solver.admm import AdmmOptions, AdmmWeights
from atmc_core.solver.shared import SharedWeights
from atmc_core.solver.support import Structure
from atmc_core.solver.weights import DenseWeights, Trainable
from atmc_core.training.step import Step
from atmc_core.training.trainer import adversarial_step, training_attack
from benchmarks.timing import print_result

ATTACK = training_attack("linf", 8 / 255, 7)
AT_BUDGET = AdmmOptions(shrink_fraction=0)
SHRINKING = AdmmOptions(shrink_fraction=1)
DENSITY, MEMORY_BATCH, MEMORY_STEPS = 0.01, 4, 2
SIDES = ("dense", "atmc", "shrinking", "finishing")


Net = TypeVar("Net", bound=Trainable)


@dataclass
class Held(Generic[Net]):
    """A classifier, and the object that holds its weights."""

    classifier: Classifier
    net: Net


def atmc(bits: int, options: AdmmOptions = AT_BUDGET, steps: int = 1) -> Held[AdmmWeights]:
    """ResNet-34 held as U, V and C; by default at its final budget."""
    classifier = Classifier(build("resnet34", 10), Normalization(), channels=3)
    weights = dense_weights(classifier.network)
    total = sum(weight.numel() for weight, _ in weights.values())
    factors = interpolative(weights)
    k = round(DENSITY * total)
    net = AdmmWeights(classifier.network, factors, k=k, bits=bits, steps=steps, options=options)
    return Held(classifier, net)


def finishing(bits: int) -> Held[SharedWeights]:
    """ResNet-34 in the end game."""
    classifier = Classifier(build("resnet34", 10), Normalization(), channels=3)
    weights = dense_weights(classifier.network)
    factors = interpolative(weights)
    Structure().shrink(factors, round(DENSITY * sum(w.numel() for w, _ in weights.values())))
    return Held(classifier, SharedWeights(classifier.network, factors, bits=bits))


def step(held: Held[Any], batch: int) -> None:
    """One training step on random images."""
    images, labels = torch.rand(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    generator = torch.Generator().manual_seed(0)
    once = Step(held.classifier, ATTACK)
    adversarial_step(held.net, once, images, labels, 0.01, generator)


def timed(run: Callable[[], object], repeats: int) -> float:
    """The mean CPU time of a call, in seconds; other processes do not count."""
    began = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - began) / repeats


def peak(side: str, bits: int) -> int:
    """The peak resident memory of training one side in a process of its own, in bytes."""
    command = [sys.executable, "-m", "benchmarks.resnet", "--side", side, "--bits", str(bits)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(json.loads(done.stdout)["peak_bytes"])


def train_side(side: str, bits: int) -> None:
    """Train one side for a few steps and print the process's peak memory; ``peak`` starts this."""
    if side == "dense":
        classifier = Classifier(build("resnet34", 10), Normalization(), channels=3)
        held: Held[Any] = Held(classifier, DenseWeights(classifier.network))
    elif side == "finishing":
        held = finishing(bits)
    else:
        held = atmc(bits) if side == "atmc" else atmc(bits, SHRINKING, steps=1000)
        held.net.steps_done = AT_BUDGET.dual_interval - 1  # the first step renews the duals, too
    for _ in range(MEMORY_STEPS):
        step(held, MEMORY_BATCH)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak_bytes": peak_bytes}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--bits", type=int, default=8, choices=range(1, 9))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.side:
        train_side(arguments.side, arguments.bits)
        return
    dense, own, shrinking, end = (peak(side, arguments.bits) for side in SIDES)
    held = atmc(arguments.bits)
    net = held.net
    total = sum(f.view.rows * f.view.columns * f.view.groups for f in net.factors.values())
    net.steps_done = 10 * AT_BUDGET.dual_interval  # long after the budget was reached
    moves = 1e-4 * torch.randn_like(net.pool.flat)

    def project() -> None:
        net.pool.flat.add_(moves)  # as in a step, every entry moves
        net._project(net.k)

    with torch.no_grad():
        sparsity = timed(project, 3)
        codebooks = timed(net._renew_duals, 1)
    whole = timed(lambda: step(held, arguments.batch), 1)
    share = (sparsity + codebooks / AT_BUDGET.dual_interval) / (
        whole + codebooks / AT_BUDGET.dual_interval
    )
    print_result(
        {
            "projection_share": share,
            "step_cpu_s": whole,
            "sparsity_cpu_s": sparsity,
            "codebooks_cpu_s": codebooks,
            "floats_above_dense": (own - dense) / 4 / total,
            "floats_while_shrinking": (shrinking - dense) / 4 / total,
            "floats_in_the_end_game": (end - dense) / 4 / total,
            "dense_peak_mib": dense / 2**20,
            "atmc_peak_mib": own / 2**20,
            "weights": total,
            "batch": arguments.batch,
            "threads": arguments.threads,
        }
    )


if __name__ == "__main__":
    main()
