"""What linear bounds prove of a published network, beside the published figures.

    python -m benchmarks.crown [--images 1000] [--epsilons 1/255 2/255] [--network FILE] [--write]

The network is the residual one of CIFAR-10 (``resnet2b_cifar10.onnx``, adversarially trained at
2/255), whose publication has CROWN at 26.88 % of the 10,000 test images at 2/255, and at 57.16 % at
1/255; or an ATMC file that was made from it. What PGD takes is not tried, since no bound proves it.
An image takes about a second of one core at 2/255, without the zeros of a compressed one less.

Prints one JSON line with a row for each radius: ``clean_accuracy``, ``standing`` (what PGD with 20
steps leaves), ``crown_accuracy`` (proven by intervals and lines), ``proven_accuracy`` (with
optimised slopes, too), the number of images by each bound, ``images`` and ``proof_seconds``.
``--write`` puts the rows into ``benchmarks/results/cifar10-proven.json``.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from atmc_core import artifact
from atmc_core.attacks import PGD, ball
from atmc_core.certification import BOUNDS, Certifier
from atmc_core.data import Split
from atmc_core.networks.classifier import Classifier, Normalization, frozen_model
from atmc_core.networks.upload import ModelInput, open_upload
from benchmarks.accuracy import first_images
from benchmarks.datasets import data_folder, unpacked
from benchmarks.machine import commit
from benchmarks.options import count, number
from benchmarks.table import RESULTS
from benchmarks.timing import print_result, say

RESIDUAL = "resnet2b_cifar10.onnx"
NORMALIZATION = Normalization((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
#: The published shares of 10,000 images that CROWN proves, by radius.
PUBLISHED = {1 / 255: 0.5716, 2 / 255: 0.2688}
TABLE = RESULTS / "cifar10-proven.json"
_STEPS = 20
# Images in a batch of proofs, after each of which progress is printed.
_AT_ONCE = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", type=Path, help=f"default: the published {RESIDUAL}")
    parser.add_argument("--images", type=count, default=1000, help="the first N test images")
    parser.add_argument("--epsilons", nargs="+", type=number, default=list(PUBLISHED))
    parser.add_argument("--write", action="store_true", help=f"the rows into {TABLE.name}, too")
    parser.add_argument("--threads", type=count, default=torch.get_num_threads())
    arguments = parser.parse_args()
    folder = data_folder()
    if folder is None:
        parser.error("name the data sets' folder in ATMC_DATA_DIR")
    torch.set_num_threads(arguments.threads)
    path = arguments.network or folder / "networks" / RESIDUAL
    classifier = read(path)
    test = first_images(unpacked("cifar10"), arguments.images)
    rows = [
        {
            "network": path.stem,
            **row(classifier, test, each),
            "published_crown_accuracy": None if arguments.network else PUBLISHED.get(each),
        }
        for each in arguments.epsilons
    ]
    if arguments.write:
        write(rows)
    print_result({"rows": rows})


def read(path: Path) -> Classifier:
    """The network of an ONNX or ATMC file."""
    if path.suffix == ".atmc":
        return artifact.load(path).classifier().eval()
    upload = open_upload(ModelInput(path, "onnx", NORMALIZATION))
    return upload.load((3, 32, 32)).classifier(NORMALIZATION).eval()


def row(classifier: Classifier, test: Split, epsilon: float) -> dict[str, Any]:
    """What is proven at one radius, in linf, in pixel values."""
    images, labels = test.batch(torch.arange(len(test)))
    say(f"epsilon {255 * epsilon:.4g}/255: PGD")
    model = frozen_model(classifier)
    attack = PGD(ball("linf", epsilon), _STEPS, 2.5 * epsilon / _STEPS)
    clean, standing = [], []
    for some, truth in zip(torch.split(images, 250), torch.split(labels, 250), strict=True):
        right = model(some).argmax(1) == truth
        found = attack.run(model, some, truth, generator=torch.Generator().manual_seed(0))
        clean.append(right)
        standing.append(right & (model(found).argmax(1) == truth))
    left = torch.cat(standing).nonzero()[:, 0]
    certifier, by, began = Certifier(classifier, images.shape[1:]), Counter[str](), time.monotonic()
    for some in torch.split(left, _AT_ONCE):
        by.update(filter(None, certifier.prove(images[some], labels[some], epsilon)))
        say(f"  of the first {int(some[-1]) + 1} images: {dict(by)}")
    return {
        "epsilon_255": round(255 * epsilon, 4),
        "clean_accuracy": int(torch.cat(clean).sum()) / len(test),
        "standing": len(left) / len(test),
        "crown_accuracy": (by.total() - by["alpha-crown"]) / len(test),
        "proven_accuracy": by.total() / len(test),
        "bounds": {bound: by[bound] for bound in BOUNDS},
        "images": len(test),
        "proof_seconds": round(time.monotonic() - began, 1),
        "threads": torch.get_num_threads(),
        "commit": commit(),
    }


def write(rows: list[dict[str, Any]]) -> None:
    """Put rows into the file of results, in place of older ones of the same network and radius."""
    before = json.loads(TABLE.read_text())["rows"] if TABLE.exists() else []
    merged = {(each["network"], each["epsilon_255"]): each for each in [*before, *rows]}
    TABLE.write_text(json.dumps({"rows": [merged[key] for key in sorted(merged)]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
