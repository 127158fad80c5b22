"""Evaluates the networks that are kept in the repository, as their files hold them.

    python -m benchmarks.proof [NAME ...] [--images 1000] [--write]

All networks in ``benchmarks/results/networks`` (or the named ones) are attacked on the first test
images of their data set, by the attacks of ``benchmarks.accuracy.worst_case``. With the same number
of images on a CPU, the figures are the same to the last image. A network takes 5 to 15 minutes on
one core. What interval bounds prove of the same images stands beside it.

Networks that were trained for proof (``proven-``) are treated the other way round, on all test
images: first those are found of which interval bounds, by which they were trained, prove that no
attack takes them; the others are attacked by PGD (40 steps, 2 random starts) and PGD on smooth
backward passes (4 runs). PGD also attacks the proven ones, and must not take one.

Prints all rows as one JSON line; ``--write`` also puts them into
``benchmarks/results/mnist-truth.json`` and ``mnist-proven.json``, where rows of other networks
stay.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from atmc_core import artifact, certify, evaluate
from atmc_core.attacks import PGD, ball
from atmc_core.data import Split
from atmc_core.determinism import compute_repeatably
from atmc_core.factors.views import dense_weights
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.removal import compact
from atmc_core.networks.upload import ModelInput, open_upload
from benchmarks.accuracy import first_images, standing_after, worst_case
from benchmarks.datasets import unpacked
from benchmarks.machine import commit
from benchmarks.options import count
from benchmarks.table import RESULTS
from benchmarks.timing import print_result, say

NETWORKS = RESULTS / "networks"
TRUTH, PROVEN = RESULTS / "mnist-truth.json", RESULTS / "mnist-proven.json"
_IMAGES = 1000
# The number of images in a batch of PGD on the proven ones.
_AT_ONCE = 500


@dataclass(frozen=True)
class Kind:
    """What kept networks were trained for.

    Attributes:
        dataset: the data set.
        architecture: the architecture of the dense ones.
        epsilon: the radius in linf, in pixel values.
        provable: whether they were trained for proof.
    """

    dataset: str
    architecture: str
    epsilon: float
    provable: bool = False

    @property
    def table(self) -> Path:
        """The file of their rows."""
        return PROVEN if self.provable else TRUTH


#: By what the names of their files begin with.
KINDS = {
    "mnist": Kind("mnist", "lenet", 76 / 255),
    "proven": Kind("mnist", "clipped_cnn", 0.3, provable=True),
    "trades": Kind("mnist", "onnx", 0.3),
    "resnet2b": Kind("cifar10", "onnx", 2 / 255),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all there are")
    parser.add_argument(
        "--images", type=count, help="default: 1,000, and all of those that were trained for proof"
    )
    parser.add_argument("--write", action="store_true", help="the rows into the results, too")
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


def row(path: Path, images: int | None) -> dict[str, Any]:
    """The sizes and accuracies of a network.

    Args:
        path: the network's file, whose name has ``-seedN`` in it.
        images: how many of the first test images count; None: as many as are usual for its kind.
    """
    kind = kind_of(path)
    classifier, sizes = read(path)
    if images is None and not kind.provable:
        images = _IMAGES
    test = first_images(unpacked(kind.dataset), images)
    figures = (proven_and_attacked if kind.provable else attacked)(classifier, test, kind.epsilon)
    return {
        "network": path.stem,
        **sizes,
        "seed": int(path.stem.rpartition("seed")[2].partition("-")[0]),
        **figures,
        "images": len(test),
        "commit": commit(),
    }


def attacked(classifier: Classifier, test: Split, epsilon: float) -> dict[str, Any]:
    """The accuracies under attack, and what intervals prove."""
    figures = worst_case(classifier, test, epsilon)
    found = certify(classifier, *_all(test), epsilon, method="ibp")
    return {**figures, "proven_accuracy": float(found.proven.double().mean())}


def proven_and_attacked(classifier: Classifier, test: Split, epsilon: float) -> dict[str, Any]:
    """What is proven, and what is left of the rest under attack.

    Returns:
        ``clean_accuracy``, ``attacked_accuracy`` and ``proven_accuracy``; ``proof_seconds`` on
        ``threads`` threads; ``proven_and_broken``: how many proven images PGD (40 steps) took
        nevertheless.
    """
    images, labels = _all(test)
    say("  proof")
    found = certify(
        classifier, images, labels, epsilon, method="ibp", batch_size=_AT_ONCE, progress=_show
    )
    with torch.no_grad():
        right = classifier.eval()(images).argmax(1) == labels
    proven, unsure = found.proven, right & ~found.proven
    (rest,) = evaluate(
        compact(classifier),
        images[unsure],
        labels[unsure],
        epsilons=[epsilon],
        attacks=("pgd", "pgd_smooth"),
        batch_size=_AT_ONCE,
        progress=lambda line: say(f"  {line}"),
        pgd_steps=40,
        pgd_restarts=2,
        smooth_restarts=4,
    )
    standing = int(torch.stack(list(rest.right_under.values())).all(0).sum())
    sure = Split(test.images[proven], test.labels[proven])
    pgd = PGD(ball("linf", epsilon), 40, 2.5 * epsilon / 40)
    (kept_up,) = standing_after(classifier, sure, (pgd,), path=(0,), at_once=_AT_ONCE)
    count = len(test)
    return {
        "clean_accuracy": int(right.sum()) / count,
        "attacked_accuracy": (int(proven.sum()) + standing) / count,
        "proven_accuracy": int(proven.sum()) / count,
        "proven_and_broken": round((1 - kept_up) * len(sure)),
        "proof_seconds": round(found.seconds, 1),
        "threads": torch.get_num_threads(),
    }


def _all(test: Split) -> tuple[torch.Tensor, torch.Tensor]:
    return test.batch(torch.arange(len(test)))


def _show(done: int, proven: int) -> None:
    if done % 1000 == 0:
        say(f"    at image {done}, {proven} proven so far")


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
    """Put rows into the files of results, in place of older ones of the same networks."""
    for row in rows:
        table = KINDS[row["network"].split("-")[0]].table
        merged = {**recorded(table), row["network"]: row}
        text = json.dumps({"rows": [merged[name] for name in sorted(merged)]}, indent=1)
        table.write_text(text + "\n")


def recorded(table: Path) -> dict[str, dict[str, Any]]:
    """The rows of a file of results by network; none if there is no file."""
    rows = json.loads(table.read_text())["rows"] if table.exists() else []
    return {each["network"]: each for each in rows}


if __name__ == "__main__":
    main()
