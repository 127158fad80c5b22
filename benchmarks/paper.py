"""The paper's table on real images: every system at every size, trained and evaluated here.

    python -m benchmarks.paper --dataset mnist --methods al0 atmc --densities 0.05 0.01 --bits 8 32

The data sets are read as their authors publish them, where they are (``benchmarks.datasets``).
The dense network (the row DA) is trained once, or given by ``--robust``. The methods that compress
a robust network start from it; NAP starts from its own clean training. ``--bits`` applies to ATMC;
the other systems are float32, as in the paper.

Each row is a whole job in a folder of its own, and resumes where it stopped. Finished rows are
kept. Several runs may share a folder if they compute different rows. Every compressed network is
read back from its artifact. It is evaluated on the test split under the paper's PGD (with the
paper's number of steps, from a random start). The images that this left standing are also attacked
by PGD-40 with 5 restarts (or as the options say). With ``--worst-images N`` the first N images are
also attacked by PGD, smooth PGD and AutoAttack (see ``accuracy.worst_case``).

Without a GPU the defaults are 20,000 training images, 4 PGD steps and few epochs; with a GPU they
are all images and the paper's steps. The file contains the settings. The benchmark writes
``benchmarks/results/DATASET-NAME.json`` and ``.svg``, and prints the table as one JSON line.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import safetensors.torch
import torch

from atmc_core import artifact
from atmc_core.determinism import compute_repeatably
from atmc_core.errors import InvalidInput
from atmc_core.job import run as job
from atmc_core.networks.architectures import build
from atmc_core.networks.classifier import Normalization
from atmc_core.networks.upload import ModelInput
from atmc_core.training.intervals import proven_share
from atmc_spec import JobSpec, read_spec
from atmc_spec.defaults import BACKWARD
from atmc_spec.names import Backward
from benchmarks.accuracy import first_images, papers_attacks, standing_after, worst_case
from benchmarks.datasets import SETS, unpacked
from benchmarks.machine import commit, device, has_gpu
from benchmarks.options import count, number
from benchmarks.table import METHODS, rows, table_path, work_folder, write
from benchmarks.timing import say

FIGURES = (
    "k",
    "nonzeros",
    "nonzeros_u",
    "nonzeros_v",
    "nonzeros_c",
    "max_distinct_values",
    "file_bytes",
    "nominal_ratio",
    "file_ratio",
)


@dataclass(frozen=True)
class Setting:
    """The paper's setting for a data set, and how it is run here.

    Fashion-MNIST is not in the paper: it gets MNIST's network and a radius of 0.1.

    Attributes:
        architecture: the network.
        epsilon: the radius of the attack in linf, in pixel values.
        steps: the number of PGD steps.
        precision: the precision of training. LeNet's kernels are too small to gain from bfloat16.
        gpu_batch: the batch size of training on a GPU.
        evaluated_at_once: the batch size of the evaluation on a GPU.
        augmentation: the settings of random changes of training images.
        classes: the number of classes.
    """

    architecture: str
    epsilon: float
    steps: int
    precision: str
    gpu_batch: int
    evaluated_at_once: int
    augmentation: dict[str, Any]
    classes: int = 10


_PHOTOGRAPHS = {"flip": True, "shift": 4}
SETTINGS = {
    "mnist": Setting("lenet", 76 / 255, 16, "float32", 256, 5000, {}),
    "cifar10": Setting("resnet34", 4 / 255, 7, "auto", 512, 1000, _PHOTOGRAPHS),
    "cifar100": Setting("resnet34", 4 / 255, 7, "auto", 512, 1000, _PHOTOGRAPHS, classes=100),
    # Neither flip nor shift: a digit is no digit in the mirror, and beside many a digit of a house
    # number lies its neighbour, which a shift would bring towards the middle.
    "svhn": Setting("wide_resnet_16_8", 4 / 255, 7, "auto", 512, 1000, {}),
    "fashion_mnist": Setting("lenet", 0.1, 7, "float32", 256, 5000, {}),
}


#: What a row's name says of each kind of target.
_KINDS = {"density": "", "nominal_ratio": "nominal-", "max_bytes": "bytes-"}


@dataclass(frozen=True)
class System:
    """One row of the table.

    Attributes:
        method: the method.
        size: the kind of the target, ``density``, ``nominal_ratio`` or ``max_bytes``, and its
            value.
        bits: the bits of a non-zero.
    """

    method: str
    size: tuple[str, float | int]
    bits: int

    @property
    def name(self) -> str:
        """The row's name, which is unique and can be a folder's."""
        kind, value = self.size
        return f"{self.method}-{_KINDS[kind]}{value}-{self.bits}"


#: The evaluation's place in the run, for random numbers.
EVALUATED = 99
# The defaults without a GPU: training images, PGD steps, and the batch sizes of training and
# evaluation.
_CPU_IMAGES, _CPU_STEPS, _CPU_BATCH, _CPU_AT_ONCE = 20_000, 4, 128, 250

DENSE = System("da", ("density", 1.0), 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_training_arguments(parser)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, metavar="METHOD")
    parser.add_argument("--densities", nargs="*", type=float, default=[0.05, 0.01, 0.0025])
    parser.add_argument(
        "--nominal-ratios", nargs="*", type=float, default=[], help="more sizes, of atmc"
    )
    parser.add_argument("--max-bytes", nargs="*", type=count, default=[], help="more, of atmc")
    parser.add_argument("--bits", nargs="+", type=int, default=[8, 4, 32], help="of atmc")
    parser.add_argument("--epochs", type=int, default=30 if has_gpu() else 3, help="of compression")
    parser.add_argument("--finish-epochs", type=int, default=10 if has_gpu() else 1)
    parser.add_argument(
        "--training", type=_document, default={}, help="more of a job's training, as JSON"
    )
    parser.add_argument("--draw", action="store_true", help="only draw what is there")
    arguments = parser.parse_args()
    if arguments.draw and not table_path(arguments).exists():
        parser.error(f"there is no {table_path(arguments)} to draw: run it without --draw first")
    prepare(arguments)
    try:
        if not arguments.draw:
            run(arguments)
    except InvalidInput as refused:
        parser.error(f"{refused.message} ({refused.param})" if refused.param else refused.message)
    print(json.dumps(write(arguments)))


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options on which the dense network, and so everything after it, depends."""
    parser.set_defaults(training={})
    parser.add_argument("--dataset", choices=SETS, default="mnist")
    parser.add_argument("--architecture", help="default: the paper's; such as small_cnn")
    parser.add_argument("--epsilon", type=number, help="such as 8/255; default: the paper's")
    parser.add_argument("--train-images", type=count, default=None if has_gpu() else _CPU_IMAGES)
    parser.add_argument("--test-images", type=count, help="the first N only; default: all")
    parser.add_argument(
        "--steps", type=count, help="PGD steps in training; default 4, on a GPU the paper's"
    )
    parser.add_argument(
        "--backward",
        choices=get_args(Backward),
        default=BACKWARD,
        help="the gradients that training's attack climbs (default: %(default)s)",
    )
    parser.add_argument("--clean-weight", type=float, default=0.25, help="in the training loss")
    parser.add_argument("--dense-epochs", type=int, default=60 if has_gpu() else 40)
    parser.add_argument(
        "--robust",
        type=_file,
        help="start from this state dict, or with --architecture onnx this file, not from our DA",
    )
    parser.add_argument("--mean", nargs="+", type=float, default=[], help="of a normalisation")
    parser.add_argument("--std", nargs="+", type=float, default=[], help="of a normalisation")
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--batch-size", type=count, help="default 128, more on a GPU")
    parser.add_argument("--validation-fraction", type=float, default=0.1)
    parser.add_argument(
        "--worst-images", type=count, help="attack the first N by everything there is, too"
    )
    parser.add_argument("--strong-steps", type=count, default=40, help="of the harder PGD")
    parser.add_argument("--strong-restarts", type=count, default=5, help="of the harder PGD")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=count, default=torch.get_num_threads())
    parser.add_argument("--name", default="table")
    parser.add_argument("--work", type=Path, default=Path("build") / "paper")


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}; left out, one is trained")
    return path


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise argparse.ArgumentTypeError(f"a JSON object is needed, not {text}")
    return document


def prepare(arguments: argparse.Namespace) -> None:
    """Fill in the paper's settings, and make results repeatable."""
    setting = SETTINGS[arguments.dataset]
    arguments.architecture = arguments.architecture or setting.architecture
    if arguments.epsilon is None:
        arguments.epsilon = setting.epsilon
    arguments.steps = arguments.steps or (setting.steps if has_gpu() else _CPU_STEPS)
    batch_size = setting.gpu_batch if has_gpu() else _CPU_BATCH
    arguments.batch_size = arguments.batch_size or batch_size
    torch.set_num_threads(arguments.threads)
    if not has_gpu():
        compute_repeatably()
    work_folder(arguments).mkdir(parents=True, exist_ok=True)


def run(arguments: argparse.Namespace) -> None:
    """Train and evaluate all requested rows that are not finished yet."""
    for system in systems(arguments):
        start = (fresh_network if starts_fresh(arguments, system) else robust_network)(arguments)
        try:
            _row(arguments, system, start)
        except InvalidInput as refused:
            if refused.code != "k_out_of_range":
                raise
            say(f"{system.name} cannot be: {refused.message}")
        write(arguments)


def systems(arguments: argparse.Namespace) -> Iterator[System]:
    """Yield the requested rows in running order."""
    for method in arguments.methods:
        if method == "da":
            yield DENSE
            continue
        sizes: list[tuple[str, float | int]]
        sizes = [("density", density) for density in arguments.densities]
        if method == "atmc":
            sizes += [("nominal_ratio", ratio) for ratio in arguments.nominal_ratios]
            sizes += [("max_bytes", limit) for limit in arguments.max_bytes]
        for size in sizes:
            for bits in arguments.bits if method == "atmc" else [32]:
                yield System(method, size, bits)


def starts_fresh(arguments: argparse.Namespace, system: System) -> bool:
    """Whether a row starts from an untrained network.

    The row DA does not if the dense network is given: then the network itself is the row.
    """
    return system.method == "nap" or (system.method == "da" and not arguments.robust)


def fresh_network(arguments: argparse.Namespace) -> Path:
    """The file of the untrained network."""
    path = work_folder(arguments) / "fresh.safetensors"
    if not path.exists():
        torch.manual_seed(arguments.seed)
        network = build(arguments.architecture, SETTINGS[arguments.dataset].classes)
        _save(network.state_dict(), path)
    return path


def robust_network(arguments: argparse.Namespace) -> Path:
    """The file of the dense network after adversarial training (DA); it is trained if needed."""
    if arguments.robust:
        return Path(arguments.robust)
    path = work_folder(arguments) / "robust.safetensors"
    if not path.exists():
        folder = _compressed(arguments, DENSE, fresh_network(arguments))
        dense = artifact.load(folder / "results" / "model.atmc").classifier()
        weights = {name: t.contiguous() for name, t in dense.network.state_dict().items()}
        _save(weights, path)
    return path


def images(arguments: argparse.Namespace) -> Path:
    """The file of the data set, with the requested number of first images of both splits."""
    path = work_folder(arguments) / "data.npz"
    if not path.exists():
        limits = {"train": arguments.train_images, "test": arguments.test_images}
        with np.load(unpacked(arguments.dataset)) as arrays:
            cut = {name: arrays[name][: limits[name.split("_")[1]]] for name in arrays}
        aside = path.with_name(f"{os.getpid()}.npz")
        np.savez(aside, **cut)
        aside.rename(path)  # other runs may share the folder
    return path


def _save(weights: dict[str, torch.Tensor], path: Path) -> None:
    aside = path.with_suffix(f".{os.getpid()}")
    safetensors.torch.save_file(weights, aside)
    aside.rename(path)


def _row(arguments: argparse.Namespace, system: System, start: Path) -> None:
    """Compute a row: run the job, read its artifact back and evaluate that."""
    if any(row["name"] == system.name for row in rows(arguments)):
        return
    say(system.name)
    folder = _compressed(arguments, system, start)
    headline = json.loads((folder / "headline.json").read_text())
    began = time.monotonic()
    model = artifact.load(folder / "results" / "model.atmc")
    kind, value = system.size
    weights = sum(math.prod(factors.view.shape) for factors in model.factors.values())
    row: dict[str, Any] = {"name": system.name, "method": system.method, "bits": system.bits}
    row["commit"] = commit()
    row["density"] = value if kind == "density" else round(headline["k"] / weights, 5)
    row |= {name: headline[name] for name in FIGURES}
    row |= evaluate(arguments, model)
    if arguments.worst_images:
        few = first_images(images(arguments), arguments.worst_images)
        found = worst_case(model.classifier().to(device()), few, arguments.epsilon)
        row["worst_case"] = found | {"images": len(few)}
    row["seconds"] = round(headline["seconds"], 1)
    row["evaluation_seconds"] = round(time.monotonic() - began, 1)
    (folder / "row.json").write_text(json.dumps(row))


def _compressed(arguments: argparse.Namespace, system: System, start: Path) -> Path:
    """The folder of a row's job, which is run if it has not finished."""
    folder = work_folder(arguments) / system.name
    if not (folder / "headline.json").exists():
        headline = job.run(
            _spec(arguments, system),
            ModelInput(
                start,
                arguments.architecture,
                Normalization(tuple(arguments.mean), tuple(arguments.std)),
            ),
            images(arguments),
            folder,
            device=device(),
            emit=_show,
        )
        (folder / "headline.json").write_text(json.dumps(headline))
    return folder


def _spec(arguments: argparse.Namespace, system: System) -> JobSpec:
    training = {
        "robust_epochs": arguments.dense_epochs if starts_fresh(arguments, system) else 0,
        "learning_rate": arguments.learning_rate,
        "batch_size": arguments.batch_size,
        "validation_fraction": arguments.validation_fraction,
        "precision": SETTINGS[arguments.dataset].precision,
        **SETTINGS[arguments.dataset].augmentation,
    }
    if system.method != "nap" and arguments.training.get("loss", "mix") == "mix":
        training["clean_weight"] = arguments.clean_weight
    if system.method != "da":
        training |= {
            "compression_epochs": arguments.epochs,
            "finish_epochs": arguments.finish_epochs,
        }
    training |= arguments.training
    return read_spec(
        {
            "method": system.method,
            "target": {system.size[0]: system.size[1], "bits": system.bits},
            "threat": {
                "norm": "linf",
                "epsilon": arguments.epsilon,
                "steps": arguments.steps,
                "backward": arguments.backward,
            },
            "training": training,
            # The benchmark evaluates the artifact itself, so the job's evaluation is short.
            "evaluation": {
                "attacks": ["fgsm"],
                "max_images": 100,
                "curve_images": 10,
                "curve_steps": 2,
            },
            "seed": arguments.seed,
        },
    )


def evaluate(
    arguments: argparse.Namespace, model: artifact.CompressedModel
) -> dict[str, float | int]:
    """The accuracies on the test split: clean, and under both attacks.

    ``paper_pgd_accuracy`` is the accuracy under the paper's attack. For ``pgd_accuracy`` an image
    has to be classified correctly under both attacks. ``proven_accuracy``, which stands in the rows
    of training for proof, is the share that interval bounds prove, in float32.
    """
    test = first_images(images(arguments)).to(device())
    classifier = model.classifier().to(device())
    setting = SETTINGS[arguments.dataset]
    clean, paper, worst = standing_after(
        classifier,
        test,
        papers_attacks(
            arguments.epsilon, setting.steps, arguments.strong_steps, arguments.strong_restarts
        ),
        path=(arguments.seed, EVALUATED),
        at_once=setting.evaluated_at_once if has_gpu() else _CPU_AT_ONCE,
    )
    found: dict[str, float | int] = {
        "clean_accuracy": clean,
        "paper_pgd_accuracy": paper,
        "pgd_accuracy": worst,
        "test_images": len(test),
    }
    if arguments.training.get("loss") == "ibp":
        found["proven_accuracy"] = proven_share(
            classifier, {}, test, arguments.epsilon, arguments.batch_size
        )
    return found


def _show(event: dict[str, Any]) -> None:
    if event["type"] == "progress" and event.get("eta_s") is not None:
        figures = ("stage", "epoch", "epochs", "progress", "eta_s")
        stage, epoch, epochs, progress, eta = (event[name] for name in figures)
        say(f"  {stage} {epoch}/{epochs}  {progress:.1%}  {eta:.0f} s left")
    elif event["type"] == "metric" and "validation_accuracy" in event:
        say(f"  loss {event['loss']:.3f}  validation {event['validation_accuracy']:.4f}")


if __name__ == "__main__":
    main()
