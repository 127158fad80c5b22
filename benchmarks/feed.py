"""Training images per second, with the images on the device and streamed from a memory map.

    python -m benchmarks.feed [--architecture lenet] [--images 4096] [--rounds 15]

Both sides train the same network on the same images, flipped and shifted, on the GPU if there is
one; they differ only in where the images are. Training is on clean images, because it is the
fastest kind and leaves the feed the least time. ``ratio`` is the streamed side's images per second
divided by the other's. ``cpu_ratio`` is the same per second of CPU time, which does not depend on
other processes. ``feed_ratio`` is ``ratio`` without any network.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from atmc_core.data import Augmentation, Split, training_batches
from atmc_core.networks.architectures import ARCHITECTURES, build
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.solver.weights import DenseWeights
from atmc_core.training.step import make_step
from atmc_core.training.trainer import adversarial_step
from benchmarks.timing import interleaved, print_result

AUGMENTATION = Augmentation(flip=True, shift=4)
LEARNING_RATE = 0.01


def sides(shape: tuple[int, ...], device: torch.device, folder: Path) -> dict[str, Split]:
    """Random images on the device, and the same in a memory map; ``shape`` is ``[N, C, H, W]``."""
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    labels = torch.randint(0, 10, shape[:1]).to(device)
    np.save(folder / "images.npy", images.numpy())
    mapped = torch.from_numpy(np.load(folder / "images.npy", mmap_mode="r+"))
    return {
        "resident": Split(images.to(device), labels),
        "streamed": Split(mapped, labels, mapped=True),
    }


def epoch(split: Split, batch: int, classifier: Classifier | None) -> Callable[[], None]:
    """A function that goes through a split once, and trains ``classifier`` if there is one."""
    device = split.labels.device
    order, noise = torch.Generator(), torch.Generator(device)
    net, step = None, None
    if classifier is not None:
        net, step = DenseWeights(classifier.network), make_step(classifier, attack=None)

    def run() -> None:
        for images, labels in training_batches(split, batch, order, AUGMENTATION):
            if net is not None and step is not None:
                adversarial_step(net, step, images, labels, LEARNING_RATE, noise)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def images_per_second(
    splits: dict[str, Split], batch: int, classifier: Classifier | None, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """The images per second of each side, and the same per second of CPU time.

    The sides take turns, an epoch each.
    """
    busy = dict.fromkeys(splits, 0.0)

    def counted(name: str) -> Callable[[], None]:
        run = epoch(splits[name], batch, classifier)

        def run_and_count() -> None:
            began = time.process_time()
            run()
            busy[name] += time.process_time() - began

        return run_and_count

    seconds = interleaved({name: counted(name) for name in splits}, rounds)
    return (
        {name: len(split) / seconds[name] for name, split in splits.items()},
        # The warm-up is one more epoch.
        {name: (rounds + 1) * len(split) / busy[name] for name, split in splits.items()},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="lenet", choices=sorted(ARCHITECTURES))
    parser.add_argument("--images", type=int, help="default: 4096, on a GPU 65536")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    channels, height, width = ARCHITECTURES[arguments.architecture].input_shape
    # The rounds are short, so that noise affects both sides alike.
    count = arguments.images or (65_536 if device.type == "cuda" else 4_096)
    shape = (count, channels, height or 32, width or 32)
    network = build(arguments.architecture, 10)
    classifier = Classifier(network, Normalization(), channels=channels).to(device)
    with tempfile.TemporaryDirectory() as folder:
        splits = sides(shape, device, Path(folder))
        alone, _ = images_per_second(splits, arguments.batch, None, arguments.rounds)
        trained, by_cpu = images_per_second(splits, arguments.batch, classifier, arguments.rounds)
    print_result(
        {
            "ratio": trained["streamed"] / trained["resident"],
            "resident_images_per_s": trained["resident"],
            "streamed_images_per_s": trained["streamed"],
            "cpu_ratio": by_cpu["streamed"] / by_cpu["resident"],
            "feed_ratio": alone["streamed"] / alone["resident"],
            "resident_feed_images_per_s": alone["resident"],
            "streamed_feed_images_per_s": alone["streamed"],
            "architecture": arguments.architecture,
            "images": count,
            "rounds": arguments.rounds,
            "device": device.type,
            "threads": arguments.threads,
        }
    )


if __name__ == "__main__":
    main()
