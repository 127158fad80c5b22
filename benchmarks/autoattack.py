"""The time of the standard AutoAttack on a robust MNIST network: ours and its authors' code.

    python -m benchmarks.autoattack [--images 1000] [--epsilon 0.15] [--norm linf] [--threads 2]

MNIST is read from the folder that ATMC_DATA_DIR names, or from ``../shared/data`` next to the
repository; without it the benchmark says so and measures nothing. First a small convolutional
network is trained against PGD (and kept in the temporary folder, by seed and epsilon), so that most
images stand and the attacks take all of their steps. Both sides get the same network and images.
They take turns slice by slice, so that noise affects both alike; ``pyautoattack`` runs with its
default batch size. Prints

- ``time_ratio``, our time divided by theirs;
- ``cpu_time_ratio``, the same for CPU time, on which other load on the machine has little effect
  (use it with one thread);
- both robust accuracies, and the passes through the network for each image.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pyautoattack.autoattack import AutoAttack as PublishedAutoAttack
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_core.attacks import PGD, AutoAttack, Ball, CountingModel, ball
from benchmarks.datasets import unpacked
from benchmarks.timing import print_result

# The training of the network, the names of norms in pyautoattack, and the least robust accuracy
# with which the times mean something.
TRAINING_IMAGES, EPOCHS, BATCH, PGD_STEPS = 20_000, 4, 128, 5
PEER_NORMS = {"linf": "Linf", "l2": "L2"}
REQUIRED_ROBUST_ACCURACY = 0.6


def load_mnist(split: str) -> tuple[Tensor, Tensor]:
    """The images, float32 ``[N, 1, 28, 28]`` in [0, 1], and labels, ``[N]``, of a split.

    Args:
        split: ``train`` or ``test``.
    """
    with np.load(unpacked("mnist")) as arrays:
        images, labels = (torch.from_numpy(arrays[f"{kind}_{split}"]) for kind in "xy")
    return images.permute(0, 3, 1, 2).float().contiguous() / 255, labels


def network() -> nn.Module:
    """Two 5x5 convolutions with pooling and two linear layers; 46,000 weights."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def robust_network(norm: str, epsilon: float, seed: int) -> nn.Module:
    """The network trained against PGD, from the temporary folder if it was trained before."""
    name = f"atmc-autoattack-16-32-{norm}-{epsilon}-{seed}-{TRAINING_IMAGES}x{EPOCHS}.pt"
    path = Path(tempfile.gettempdir()) / name
    net = network()
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
    else:
        _train(net, *load_mnist("train"), norm, epsilon, seed)
        torch.save(net.state_dict(), path)
    return net.eval()


def _train(
    net: nn.Module, images: Tensor, labels: Tensor, norm: str, epsilon: float, seed: int
) -> None:
    torch.manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    generator = torch.Generator().manual_seed(seed)
    attack = PGD(ball(norm, epsilon), PGD_STEPS, epsilon / 3)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(net.parameters())
    steps = EPOCHS * (TRAINING_IMAGES // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(TRAINING_IMAGES, generator=generator)
        for chosen in order[: TRAINING_IMAGES // BATCH * BATCH].view(-1, BATCH):
            adversarial = attack.run(net, images[chosen], labels[chosen], generator=generator)
            optimizer.zero_grad()
            loss = F.cross_entropy(net(adversarial), labels[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        _say(f"trained epoch {epoch + 1} of {EPOCHS}, loss {loss.item():.3f}")
    # Both sides get the network in PyTorch's default memory format.
    net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


@dataclass
class Outcome:
    """The result of one side on a slice of the images.

    Attributes:
        adversarial: the perturbed images, ``[N, C, H, W]``.
        forward: the number of images that went forward through the network.
        backward: the number of images for which a gradient was computed.
    """

    adversarial: Tensor
    forward: int
    backward: int


def ours(net: nn.Module, images: Tensor, labels: Tensor, limits: Ball, seed: int) -> Outcome:
    """Run ``atmc_core.attacks.AutoAttack`` with its default settings."""
    attack = AutoAttack(limits)
    generator = torch.Generator().manual_seed(seed)
    state = attack.begin(net, images, labels, generator=generator)
    survivors: dict[str, int] = {}
    for _ in attack.run_batches(net, images, labels, state):
        if state.survivors != survivors:
            survivors = dict(state.survivors)
            _say(f"  ours: {survivors}")
    forward, backward = state.forward_images.values(), state.backward_images.values()
    return Outcome(state.adversarial, sum(forward), sum(backward))


def theirs(net: nn.Module, images: Tensor, labels: Tensor, limits: Ball, seed: int) -> Outcome:
    """Run ``pyautoattack`` with its default settings."""
    model = CountingModel(net)
    attack = PublishedAutoAttack(model, eps=limits.epsilon, norm=PEER_NORMS[limits.norm], seed=seed)
    adversarial = attack.run_standard_evaluation(images, labels)[0]
    return Outcome(adversarial, model.forward_images, model.backward_images)


@dataclass
class Total:
    """The sums over all slices of one side so far."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    correct: int = 0
    forward: int = 0
    backward: int = 0

    def add(self, outcome: Outcome, net: nn.Module, labels: Tensor) -> None:
        with torch.no_grad():
            self.correct += int((net(outcome.adversarial).argmax(1) == labels).sum())
        self.forward += outcome.forward
        self.backward += outcome.backward

    def figures(self, prefix: str, images: int) -> dict[str, float]:
        return {
            f"{prefix}robust_accuracy": self.correct / images,
            f"{prefix}forward_passes_per_image": self.forward / images,
            f"{prefix}backward_passes_per_image": self.backward / images,
            f"{prefix}seconds": self.seconds,
            f"{prefix}cpu_seconds": self.cpu_seconds,
        }


def compare(
    net: nn.Module, images: Tensor, labels: Tensor, limits: Ball, seed: int, slice_size: int
) -> dict[str, float]:
    """Attack slice by slice with both sides in turn; returns the figures of both."""
    sides = {"": (ours, Total()), "peer_": (theirs, Total())}
    for start in range(0, len(images), slice_size):
        x, y = images[start : start + slice_size], labels[start : start + slice_size]
        for prefix, (attack, total) in sides.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            outcome = attack(net, x, y, limits, seed)
            total.seconds += time.perf_counter() - began
            total.cpu_seconds += time.process_time() - cpu_began
            total.add(outcome, net, y)
            side = "theirs" if prefix else "ours"
            _say(
                f"{side}: {start + len(x)} images in {total.seconds:.0f} s, "
                f"{total.cpu_seconds:.0f} s of CPU"
            )
    mine, peer = sides[""][1], sides["peer_"][1]
    figures = {
        "time_ratio": mine.seconds / peer.seconds,
        "cpu_time_ratio": mine.cpu_seconds / peer.cpu_seconds,
    }
    for prefix, (_, total) in sides.items():
        figures |= total.figures(prefix, len(images))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--slice", type=int, default=250, help="images a side takes at a turn")
    parser.add_argument("--norm", choices=list(PEER_NORMS), default="linf")
    parser.add_argument("--epsilon", type=float, default=0.15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    net = robust_network(arguments.norm, arguments.epsilon, arguments.seed)
    images, labels = (tensor[: arguments.images] for tensor in load_mnist("test"))
    limits = ball(arguments.norm, arguments.epsilon)
    figures = compare(net, images, labels, limits, arguments.seed, arguments.slice)
    if figures["robust_accuracy"] < REQUIRED_ROBUST_ACCURACY:
        _say("the network is too weak at this epsilon: early exits are timed, not budgets")
    settings = {"images": len(images), "norm": limits.norm, "epsilon": limits.epsilon}
    print_result({**figures, **settings, "threads": arguments.threads})


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
