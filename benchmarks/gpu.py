"""The speed of a training step of ATMC on a GPU.

    python -m benchmarks.gpu [--batch 512] [--rounds 7]

The network is ResNet-18 for 32x32 images, with PGD-7, linf 8/255, density 0.01 and 8 bits. Each
side is a whole training step, and the sides are timed in turn in one run:

- ``dense``: dense adversarial training as PyTorch runs it by default: float32 (convolutions in
  TF32), channels first, nothing compiled or recorded. It does none of ATMC's work.
- ``eager``: ATMC's step with all its projections, run in the same way.
- ``own``: ATMC's step as a job runs it: bfloat16 autocast, channels last, compiled, recorded as a
  CUDA graph.

It prints these figures, among others:

- ``speedup`` and ``speedup_over_dense``: the times of ``eager`` and of ``dense``, divided by that
  of ``own``.
- ``matrix_share``: the rate of multiply-adds of ``own``, whose step is worth 20 forward passes,
  divided by the card's rate in bfloat16, which is measured on a product of two 8192x8192 matrices.
- ``lenet_...``: the same figures for LeNet with PGD-16 and batch size 256, where ``own`` is in
  float32, recorded but not compiled.
- ``projection_share``: the share of a step of ResNet-34 that the l0 projection and, every tenth
  step, the codebook projections take. The benchmark fails if an update waits for the device.
- ``floats_above_dense``: the peak memory of ATMC's update minus that of the dense one, in float32
  numbers per weight of ResNet-34.
"""

import argparse
import gc
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from atmc_core.attacks import PGD
from atmc_core.factors.splitting import interpolative
from atmc_core.factors.views import dense_weights
from atmc_core.networks.architectures import build
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.solver.admm import AdmmOptions, AdmmWeights
from atmc_core.solver.weights import DenseWeights, Trainable
from atmc_core.training.step import PAPERS_MIX, PLAIN, Speed, Step, can_compile, make_step
from atmc_core.training.trainer import adversarial_step, training_attack
from benchmarks.resnet import Held
from benchmarks.throughput import plain_step
from benchmarks.timing import print_result, say

DENSITY, BITS = 0.01, 8
# The side of the matrices whose product is timed.
MATRIX = 8192
# The batch size of LeNet.
LENET_BATCH = 256
# Calls of a side: before it is timed, and in a round.
WARM_UPS, CALLS = 3, 10
LEARNING_RATE = 0.01
CIFAR, MNIST = training_attack("linf", 8 / 255, 7), training_attack("linf", 76 / 255, 16)
OPTIONS = AdmmOptions(shrink_fraction=0)
#: The arithmetic of a step for one image, in forward passes: two for each of the seven steps of
#: PGD, then three each for training on the clean and on the adversarial image.
PASSES = 7 * 2 + 2 * 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: there is no GPU", file=sys.stderr)
        raise SystemExit(0)
    torch.manual_seed(0)
    figures = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    rate = matrix_rate()
    speed = Speed(bfloat16=True, compiled=can_compile(torch.device("cuda")))
    large = compared("resnet18", (3, 32, 32), CIFAR, arguments.batch, speed, arguments.rounds)
    say(f"ResNet-18: {large}")
    small = compared("lenet", (1, 28, 28), MNIST, LENET_BATCH, PLAIN, arguments.rounds)
    say(f"LeNet: {small}")
    needed = PASSES * forward_flops("resnet18", (3, 32, 32)) * arguments.batch
    print_result(
        figures
        | {
            "speedup": large["eager"] / large["own"],
            "speedup_over_dense": large["dense"] / large["own"],
            "images_per_s": arguments.batch / large["own"],
            "eager_images_per_s": arguments.batch / large["eager"],
            "dense_images_per_s": arguments.batch / large["dense"],
            "batch": arguments.batch,
            "compiled": speed.compiled,
            "matrix_tflops": rate / 1e12,
            "matrix_share": needed / large["own"] / rate,
            "lenet_speedup": small["eager"] / small["own"],
            "lenet_speedup_over_dense": small["dense"] / small["own"],
            "lenet_images_per_s": LENET_BATCH / small["own"],
            "rounds": arguments.rounds,
        }
        | projections(arguments.batch, speed, arguments.rounds)
    )


def matrix_rate() -> float:
    """The multiplications and additions per second of a large matrix product in bfloat16."""
    a, b = torch.randn(2, MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16)
    return 2 * MATRIX**3 / timed({"product": lambda: a @ b}, rounds=10)["product"]


def forward_flops(architecture: str, shape: tuple[int, ...]) -> float:
    """The floating-point operations of a forward pass of one image."""
    network = build(architecture, 10)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.rand(1, *shape))
    return float(counter.get_total_flops())


def compared(
    architecture: str,
    shape: tuple[int, int, int],
    attack: PGD,
    batch: int,
    speed: Speed,
    rounds: int,
) -> dict[str, float]:
    """The seconds that a step of each side takes."""
    images = torch.rand(batch, *shape, device="cuda")
    labels = torch.randint(0, 10, (batch,), device="cuda")
    network = build(architecture, 10).cuda()
    slow = atmc(architecture, shape[0])
    slow.classifier.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    eager = Step(slow.classifier, attack)
    generator = torch.Generator("cuda").manual_seed(0)
    sides = {
        "dense": plain_step(network, images, labels, attack),
        "eager": lambda: adversarial_step(
            slow.net, eager, images, labels, LEARNING_RATE, generator
        ),
        "own": step_of(atmc(architecture, shape[0]), attack, images, labels, speed),
    }
    return timed(sides, rounds)


def atmc(architecture: str, channels: int) -> Held[AdmmWeights]:
    """A network held as U, V and C at its final budget."""
    classifier = Classifier(build(architecture, 10), Normalization(), channels).cuda()
    weights = dense_weights(classifier.network)
    k = round(DENSITY * sum(weight.numel() for weight, _ in weights.values()))
    factors = interpolative(weights)
    net = AdmmWeights(classifier.network, factors, k=k, bits=BITS, steps=1, options=OPTIONS)
    return Held(classifier, net)


def step_of(
    held: Held[Any], attack: PGD, images: Tensor, labels: Tensor, speed: Speed
) -> Callable[[], object]:
    """A function that runs the training step of a job."""
    step = make_step(held.classifier, attack, PAPERS_MIX, speed)
    generator = torch.Generator("cuda").manual_seed(0)
    return lambda: adversarial_step(held.net, step, images, labels, LEARNING_RATE, generator)


def timed(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median time of a call of each side on the device, in seconds; the sides take turns."""
    for run in sides.values():
        for _ in range(WARM_UPS):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            begin, end = (_event() for _ in range(2))
            begin.record()
            for _ in range(CALLS):
                run()
            end.record()
            torch.cuda.synchronize()
            # CUDA's times are in milliseconds.
            seconds[name].append(begin.elapsed_time(end) / (1e3 * CALLS))
    return {name: statistics.median(values) for name, values in seconds.items()}


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def projections(batch: int, speed: Speed, rounds: int) -> dict[str, float]:
    """The time and the memory that ATMC adds to the training of ResNet-34."""
    dense_bytes = update_peak(lambda: DenseWeights(classifier_of("resnet34").network))
    own_bytes = update_peak(lambda: atmc("resnet34", 3).net)
    held = atmc("resnet34", 3)
    net = held.net
    weights = sum(f.view.rows * f.view.columns * f.view.groups for f in net.factors.values())
    images = torch.rand(batch, 3, 32, 32, device="cuda")
    labels = torch.randint(0, 10, (batch,), device="cuda")
    sides = {
        "step": step_of(held, CIFAR, images, labels, speed),
        "sparsity": lambda: net._project(net.k),
        "codebooks": lambda: net._renew_duals(),
    }
    seconds = timed({"step": sides["step"]}, rounds)
    net.steps_done = 10 * OPTIONS.dual_interval  # well after the budget was reached
    with torch.no_grad():
        seconds |= timed({name: sides[name] for name in ("sparsity", "codebooks")}, rounds)
    with never_waiting():
        for _ in range(OPTIONS.dual_interval):
            fill_gradients(net)
            net.update(LEARNING_RATE)
    own = seconds["sparsity"] + seconds["codebooks"] / OPTIONS.dual_interval
    return {
        "projection_share": own / seconds["step"],
        "sparsity_ms": 1e3 * seconds["sparsity"],
        "codebooks_ms": 1e3 * seconds["codebooks"],
        "resnet34_step_ms": 1e3 * seconds["step"],
        "floats_above_dense": (own_bytes - dense_bytes) / 4 / weights,
        "weights": weights,
    }


def classifier_of(architecture: str) -> Classifier:
    return Classifier(build(architecture, 10), Normalization(), channels=3).cuda()


def update_peak(make: Callable[[], Trainable]) -> int:
    """The peak bytes of a network and its updates, for as many as include codebook projections."""
    gc.collect()  # frees graphs of earlier measurements
    before = torch.cuda.memory_allocated()
    net = make()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(OPTIONS.dual_interval + 1):
        fill_gradients(net)
        net.update(LEARNING_RATE)
    return torch.cuda.max_memory_allocated() - before


def fill_gradients(net: Trainable) -> None:
    """Set random gradients, in place of a backward pass."""
    for parameter in net.network.parameters():
        parameter.grad = torch.randn_like(parameter).mul_(1e-3)


@contextmanager
def never_waiting() -> Iterator[None]:
    """Let operations that wait for the device raise inside the context."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


if __name__ == "__main__":
    main()
