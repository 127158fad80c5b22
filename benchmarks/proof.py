"""Evaluates the MNIST networks that are kept in the repository.

    python -m benchmarks.proof [NAME ...] [--images 10000] [--autoattack-images 1000]

All networks in ``benchmarks/results/networks`` (or the named ones) are evaluated: the compressed
ones, and the dense one that they started from. The evaluation on the first test images is that of
``benchmarks.paper`` with seed 0; with all 10,000 images on a CPU, the figures are the same to the
last image. The first thousand images are also attacked by AutoAttack, if PGD left them standing.
The first part takes about five minutes for a network on one core, AutoAttack about seven more.
Prints the sizes and accuracies of all networks as one JSON line.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from atmc_core import artifact
from atmc_core.attacks import AutoAttack, ball
from atmc_core.determinism import compute_repeatably
from atmc_core.factors.views import dense_weights
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.upload import ModelInput, open_upload
from benchmarks.accuracy import first_images, papers_attacks, standing_after
from benchmarks.datasets import unpacked
from benchmarks.options import count
from benchmarks.paper import EVALUATED, SETTINGS
from benchmarks.table import RESULTS
from benchmarks.timing import print_result, say

NETWORKS = RESULTS / "networks"
# The number of images in a batch.
AT_ONCE = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all there are")
    parser.add_argument("--images", type=count, default=10_000)
    parser.add_argument("--autoattack-images", type=count, default=1000)
    parser.add_argument("--no-autoattack", action="store_true", help="it takes the longest")
    parser.add_argument("--threads", type=count, default=torch.get_num_threads())
    arguments = parser.parse_args()
    known = {path.stem: path for path in sorted(NETWORKS.glob("mnist-*"))}
    if unknown := set(arguments.names) - set(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    torch.set_num_threads(arguments.threads)
    compute_repeatably()
    data = unpacked("mnist")
    found = {}
    for name in arguments.names or known:
        say(name)
        classifier, sizes = read(known[name])
        few = None if arguments.no_autoattack else arguments.autoattack_images
        found[name] = sizes | accuracies(classifier, data, arguments.images, few)
    print_result({"images": arguments.images, "networks": found})


def read(path: Path) -> tuple[Classifier, dict[str, Any]]:
    """Read a network from its file; returns it with its sizes."""
    sizes: dict[str, Any] = {"file_bytes": path.stat().st_size}
    if path.suffix == ".atmc":
        model = artifact.load(path)
        return model.classifier(), sizes | {
            "bits": model.bits,
            "nonzeros": sum(model.nonzeros()),
            "nominal_ratio": model.nominal_ratio(),
        }
    upload = open_upload(ModelInput(path, SETTINGS["mnist"].architecture))
    classifier = upload.load((1, 28, 28)).classifier(Normalization())
    weights = sum(weight.numel() for weight, _ in dense_weights(classifier.network).values())
    return classifier, sizes | {"bits": 32, "nonzeros": weights, "nominal_ratio": 1.0}


def accuracies(
    classifier: Classifier, data: Path, images: int, autoattack_images: int | None
) -> dict[str, float]:
    """The accuracies of a network.

    Args:
        classifier: the network.
        data: the file of the data set.
        images: how many of the first test images are attacked by PGD.
        autoattack_images: how many of them also by AutoAttack; None leaves AutoAttack out.
    """
    setting = SETTINGS["mnist"]
    attacks = papers_attacks(setting.epsilon, setting.steps)
    path = (0, EVALUATED)
    clean, paper, strong = standing_after(
        classifier, first_images(data, images), attacks, path=path, at_once=AT_ONCE
    )
    found = {"clean_accuracy": clean, "paper_pgd_accuracy": paper, "pgd_accuracy": strong}
    if autoattack_images:
        few = first_images(data, autoattack_images)
        ensemble = AutoAttack(ball("linf", setting.epsilon))
        *_, before, worst = standing_after(
            classifier, few, (*attacks, ensemble), path=path, at_once=AT_ONCE
        )
        found |= {
            "autoattack_images": len(few),
            "pgd_accuracy_of_these": before,
            "autoattack_accuracy": worst,
        }
    return found


if __name__ == "__main__":
    main()
