"""The paper's table on real images: every system at every size, trained and evaluated here.

    python -m benchmarks.paper --dataset mnist --methods al0 atmc --densities 0.05 0.01 --bits 8

The dense network is trained once (DA); the methods that compress it start there, NAP from its own
clean training. Each row is a whole job in a folder of its own and resumes where it stopped;
finished rows are kept. Writes ``benchmarks/results/DATASET-NAME.json`` and prints it as one JSON
line.
"""

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from atmc_core import artifact, job, schema
from atmc_core.architectures import build
from atmc_core.config import JobSpec
from benchmarks.datasets import SETS, unpacked

RESULTS = Path(__file__).resolve().parent / "results"
# Architecture, epsilon and training PGD steps, as the paper has them.
SETTINGS = {"mnist": ("lenet", 76 / 255, 16), "cifar10": ("resnet34", 4 / 255, 7)}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=SETS, default="mnist")
    parser.add_argument(
        "--methods", nargs="+", default=["da", "nap", "ap", "al0", "alr", "atmc"], metavar="METHOD"
    )
    parser.add_argument("--densities", nargs="+", type=float, default=[0.05, 0.01, 0.0025])
    parser.add_argument("--bits", nargs="+", type=int, default=[32, 8])
    parser.add_argument("--train-images", type=int, help="the first N only; default: all")
    parser.add_argument("--test-images", type=int, help="the first N only; default: all")
    parser.add_argument("--steps", type=int, help="PGD steps in training; default: the paper's")
    parser.add_argument("--dense-epochs", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=30, help="of compression; a third to finish")
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--name", default="table")
    parser.add_argument("--work", type=Path, default=Path("build") / "paper")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Train and evaluate every row that is asked for and not there yet."""
    folder = arguments.work / f"{arguments.dataset}-{arguments.name}"
    folder.mkdir(parents=True, exist_ok=True)
    data = _slice(arguments, folder / "data.npz")
    fresh, robust = folder / "fresh.safetensors", folder / "robust.safetensors"
    torch.manual_seed(arguments.seed)
    network = build(SETTINGS[arguments.dataset][0], 10)
    safetensors.torch.save_file(network.state_dict(), fresh)

    rows = [_row(arguments, "da", 1.0, 32, fresh, data, folder)]
    dense = artifact.load(folder / "da-1.0-32" / "results" / "model.atmc").classifier()
    weights = {name: t.contiguous() for name, t in dense.network.state_dict().items()}
    safetensors.torch.save_file(weights, robust)
    for method in arguments.methods:
        start = fresh if method == "nap" else robust
        for density in arguments.densities:
            for bits in arguments.bits:
                if method != "da":
                    rows.append(_row(arguments, method, density, bits, start, data, folder))
                    _write(arguments, rows)
    print(json.dumps(_write(arguments, rows)))


def _row(
    arguments: argparse.Namespace,
    method: str,
    density: float,
    bits: int,
    start: Path,
    data: Path,
    folder: Path,
) -> dict[str, Any]:
    """One system at one size, from its finished folder or by running the job."""
    own = folder / f"{method}-{density}-{bits}"
    done = own / "row.json"
    if done.exists():
        row: dict[str, Any] = json.loads(done.read_text())
        return row
    architecture, epsilon, steps = SETTINGS[arguments.dataset]
    spec = schema.from_json(
        JobSpec,
        {
            "method": method,
            "target": {"density": density, "bits": bits},
            "threat": {"norm": "linf", "epsilon": epsilon, "steps": arguments.steps or steps},
            "training": {
                "robust_epochs": arguments.dense_epochs if method in ("da", "nap") else 0,
                "compression_epochs": arguments.epochs,
                "finish_epochs": max(1, arguments.epochs // 3),
                "learning_rate": arguments.learning_rate,
                "batch_size": 256,
            },
            "evaluation": {"pgd_steps": 40, "pgd_restarts": 5, "max_images": 1_000_000},
            "seed": arguments.seed,
        },
    )
    print(f"{method} at density {density}, {bits} bits", file=sys.stderr)
    figures = job.run(
        spec,
        job.ModelInput(start, architecture),
        data,
        own,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        emit=_show,
    )
    row = {"method": method, "bits": bits, "density": density, "seed": arguments.seed}
    row |= {name: figures[name] for name in FIGURES}
    row |= {
        f"{name}_accuracy": figures[f"{name}_accuracy_after"] for name in ("clean", "fgsm", "pgd")
    }
    row["seconds"] = figures["seconds"]
    done.write_text(json.dumps(row))
    return row


def _show(event: dict[str, Any]) -> None:
    if event["type"] == "progress":
        figures = ("stage", "epoch", "epochs", "progress", "eta_s")
        stage, epoch, epochs, progress, eta = (event[name] for name in figures)
        print(f"  {stage} {epoch}/{epochs}  {progress:.1%}  {eta:.0f} s left", file=sys.stderr)


def _slice(arguments: argparse.Namespace, path: Path) -> Path:
    """The asked-for first images of both splits, as a file of their own."""
    limits = {"train": arguments.train_images, "test": arguments.test_images}
    if not path.exists():
        with np.load(unpacked(arguments.dataset)) as arrays:
            cut = {name: arrays[name][: limits[name.split("_")[1]]] for name in arrays}
        np.savez(path, **cut)
    return path


def _write(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The table so far, with what it was made with."""
    settings = {name: value for name, value in vars(arguments).items() if name != "work"}
    table = {
        "dataset": arguments.dataset,
        "settings": settings,
        "torch": torch.__version__,
        "hardware": "cuda" if torch.cuda.is_available() else f"{platform.machine()} cpu",
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{arguments.dataset}-{arguments.name}.json"
    path.write_text(json.dumps(table, indent=2) + "\n")
    return table


if __name__ == "__main__":
    main()
