"""What a GPU makes of a training step of ATMC; needs one.

    python -m benchmarks.gpu [--batch 512] [--rounds 7]

ResNet-18 for 32x32, PGD-7, linf 8/255, density 0.01, 8 bits. All sides are whole training steps
and are timed in turn in one run:

- ``dense``: plain dense adversarial training as PyTorch runs it by default: float32 (convolutions
  in TF32), channels first, nothing compiled or recorded. It has none of ATMC's work.
- ``eager``: the same step of ATMC with all its projections, run in the same way.
- ``own``: that step as a job runs it: bfloat16 autocast, channels last, compiled, recorded as a
  graph.

``speedup`` is eager's time over ours, ``speedup_over_dense`` the dense one's. ``matrix_share`` is
the rate of our step's 20 forward passes' worth of multiply-adds over the card's bfloat16 rate,
measured here on a product of two 8192-square matrices. The ``lenet_`` figures are the same for
LeNet with PGD-16 at batch 256, ours in float32, recorded and not compiled. ``projection_share`` is
what l0 and codebook projections, the latter every tenth step, take of a step of ResNet-34; no
update may wait for the device, or the benchmark fails. ``floats_above_dense`` is the peak of memory
of ATMC's update over the dense one's, in float32 numbers a weight of ResNet-34.
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

DENSITY, BITS, MATRIX = 0.01, 8, 8192
CIFAR, MNIST = training_attack("linf", 8 / 255, 7), training_attack("linf", 76 / 255, 16)
OPTIONS = AdmmOptions(shrink_fraction=0)
#: Forward passes' worth of arithmetic in a step per image: seven of PGD with two passes each, then
#: the clean and the adversarial image with three each.
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
    small = compared("lenet", (1, 28, 28), MNIST, 256, PLAIN, arguments.rounds)
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
            "lenet_images_per_s": 256 / small["own"],
            "rounds": arguments.rounds,
        }
        | projections(arguments.batch, speed, arguments.rounds)
    )


def matrix_rate() -> float:
    """Multiplications and additions a second of a large product in bfloat16."""
    a, b = torch.randn(2, MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16)
    return 2 * MATRIX**3 / timed({"product": lambda: a @ b}, rounds=10)["product"]


def forward_flops(architecture: str, shape: tuple[int, ...]) -> float:
    """Of one image."""
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
    """Seconds of a step of each side."""
    images = torch.rand(batch, *shape, device="cuda")
    labels = torch.randint(0, 10, (batch,), device="cuda")
    network = build(architecture, 10).cuda()
    slow = atmc(architecture, shape[0])
    slow.classifier.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    eager = Step(slow.classifier, attack)
    generator = torch.Generator("cuda").manual_seed(0)
    sides = {
        "dense": plain_step(network, images, labels, attack),
        "eager": lambda: adversarial_step(slow.net, eager, images, labels, 0.01, generator),
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
    """The step that a job runs."""
    step = make_step(held.classifier, attack, PAPERS_MIX, speed)
    generator = torch.Generator("cuda").manual_seed(0)
    return lambda: adversarial_step(held.net, step, images, labels, 0.01, generator)


def timed(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds on the device of ten calls of each side in turn, for one call."""
    for run in sides.values():
        for _ in range(3):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            begin, end = (_event() for _ in range(2))
            begin.record()
            for _ in range(10):
                run()
            end.record()
            torch.cuda.synchronize()
            seconds[name].append(begin.elapsed_time(end) / 1e4)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def projections(batch: int, speed: Speed, rounds: int) -> dict[str, float]:
    """Time and memory of what ATMC adds to ResNet-34."""
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
            net.update(0.01)
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
    """Peak bytes of a network and its updates, once round the codebooks' interval."""
    gc.collect()  # graphs and their memory that earlier measurements left
    before = torch.cuda.memory_allocated()
    net = make()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(OPTIONS.dual_interval + 1):
        fill_gradients(net)
        net.update(0.01)
    return torch.cuda.max_memory_allocated() - before


def fill_gradients(net: Trainable) -> None:
    """Stand in for a backward pass."""
    for parameter in net.network.parameters():
        parameter.grad = torch.randn_like(parameter).mul_(1e-3)


@contextmanager
def never_waiting() -> Iterator[None]:
    """Whatever waits for the device inside raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


if __name__ == "__main__":
    main()
