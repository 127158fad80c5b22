"""Evaluates the networks that are kept in the repository, as their files hold them.

    python -m benchmarks.proof [NAME ...] [--images 1000] [--write]

All networks in ``benchmarks/results/networks`` (or the named ones) are attacked on the first test
images of their data set, by the attacks of ``benchmarks.accuracy.worst_case``. With the same number
of images on a CPU, the figures are the same to the last image. A network takes 5 to 15 minutes on
one core.

Prints all rows as one JSON line; ``--write`` also puts them into
``benchmarks/results/mnist-truth.json``, where rows of other networks stay.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from atmc_core import artifact
from atmc_core.determinism import compute_repeatably
from atmc_core.factors.views import dense_weights
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.upload import ModelInput, open_upload
from benchmarks.accuracy import first_images, worst_case
from benchmarks.datasets import unpacked
from benchmarks.machine import commit
from benchmarks.options import count
from benchmarks.table import RESULTS
from benchmarks.timing import print_result, say

NETWORKS = RESULTS / "networks"
TRUTH = RESULTS / "mnist-truth.json"


@dataclass(frozen=True)
class Kind:
    """What kept networks were trained for.

    Attributes:
        dataset: the data set.
        architecture: the architecture of the dense ones.
        epsilon: the radius in linf, in pixel values.
    """

    dataset: str
    architecture: str
    epsilon: float


#: By what the names of their files begin with.
KINDS = {
    "mnist": Kind("mnist", "lenet", 76 / 255),
    "trades": Kind("mnist", "onnx", 0.3),
    "resnet2b": Kind("cifar10", "onnx", 2 / 255),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all there are")
    parser.add_argument("--images", type=count, default=1000)
    parser.add_argument("--write", action="store_true", help=f"the rows into {TRUTH.name}, too")
    parser.add_argument("--threads", type=count, default=torch.get_num_threads())
    arguments = parser.parse_args()
    known = kept()
    if unknown := set(arguments.names) - set(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    torch.set_num_threads(arguments.threads)
    compute_repeatably()
    rows = []
    for name in arguments.names or known:
        say(name)
        rows.append(row(known[name], arguments.images))
        if arguments.write:
            write(rows)
    print_result({"rows": rows})


def kept() -> dict[str, Path]:
    """The files of all kept networks by name."""
    return {path.stem: path for path in sorted(NETWORKS.iterdir())}


def kind_of(path: Path) -> Kind:
    """What a kept network was trained for."""
    return KINDS[path.stem.split("-")[0]]


def row(path: Path, images: int) -> dict[str, Any]:
    """The sizes and accuracies of a network.

    Args:
        path: the network's file, whose name ends in ``-seedN``.
        images: how many of the first test images are attacked.
    """
    kind = kind_of(path)
    classifier, sizes = read(path)
    test = first_images(unpacked(kind.dataset), images)
    return {
        "network": path.stem,
        **sizes,
        "seed": int(path.stem.rpartition("seed")[2]),
        **worst_case(classifier, test, kind.epsilon),
        "images": len(test),
        "commit": commit(),
    }


def read(path: Path) -> tuple[Classifier, dict[str, float]]:
    """Read a network from its file; returns it with its sizes."""
    sizes: dict[str, float] = {"file_bytes": path.stat().st_size}
    if path.suffix == ".atmc":
        model = artifact.load(path)
        return model.classifier(), {
            "nominal_ratio": model.nominal_ratio(),
            "bits": model.bits,
            "nonzeros": sum(model.nonzeros()),
            **sizes,
        }
    upload = open_upload(ModelInput(path, kind_of(path).architecture))
    classifier = upload.load((1, 28, 28)).classifier(Normalization())
    weights = sum(weight.numel() for weight, _ in dense_weights(classifier.network).values())
    return classifier, {"nominal_ratio": 1.0, "bits": 32, "nonzeros": weights, **sizes}


def write(rows: Sequence[dict[str, Any]]) -> None:
    """Put rows into the file of results, in place of older ones of the same networks."""
    before = json.loads(TRUTH.read_text())["rows"] if TRUTH.exists() else []
    merged = {each["network"]: each for each in [*before, *rows]}
    text = json.dumps({"rows": [merged[name] for name in sorted(merged)]}, indent=1)
    TRUTH.write_text(text + "\n")


if __name__ == "__main__":
    main()
