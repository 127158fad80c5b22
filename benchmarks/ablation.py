"""What the factors and some choices that all methods share do to accuracy: against AL0, on MNIST.

    python -m benchmarks.ablation [--densities 0.05 0.01] [--variants NAME ...] [--seeds 0 1 2]

All variants start from the same robust LeNet (``benchmarks.paper`` trains and keeps it). For a
seed they see the same batches and random starts, and they have the same k and number of epochs.
Each differs from AL0 in one thing:

- ``untaught`` learns from the true labels, not from the dense network as a teacher;
- ``plain`` attacks with the network's own gradients, not with smooth backward passes;
- ``short-steps`` attacks with the paper's steps, 1.25 epsilon / steps long, not 2;
- ``atmc-R`` holds the weights as U, V and C, which are first split with a share R of the rows as
  their common basis (``rank_fraction``);
- ``magnitude`` keeps the largest entries of all layers, instead of balancing the layers (LAMP);
- ``slow`` shrinks the budget over twice as many steps.

A density of 1 trains the dense network on. Values are float32, so that only the supports are
compared. Every run is kept, and the benchmark resumes where it stopped. It writes
``benchmarks/results/ablation-NAME.json``: for each run the figures of ``accuracy.worst_case`` on
the first test images and the non-zeros of U, V and C in each layer, and for each variant and
density the mean difference to AL0 in the worst case over the seeds, with its 95 % interval
(Student's t).
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from scipy import stats

from atmc_core.data import Split, load_npz
from atmc_core.factors.factors import Factors
from atmc_core.factors.splitting import interpolative, plain
from atmc_core.factors.views import dense_weights
from atmc_core.networks.architectures import build
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.solver.admm import AdmmOptions, AdmmWeights
from atmc_core.solver.optimizer import sgd
from atmc_core.solver.support import Structure
from atmc_core.training.step import MixedLoss
from atmc_core.training.teacher import Teacher
from atmc_core.training.trainer import Trainer, TrainerOptions, steps_per_epoch, training_attack
from atmc_spec import defaults
from atmc_spec.names import Backward, Importance
from benchmarks import paper
from benchmarks.accuracy import worst_case
from benchmarks.machine import device
from benchmarks.options import count
from benchmarks.table import RESULTS, work_folder
from benchmarks.timing import print_result, say


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    paper.add_training_arguments(parser)
    parser.add_argument("--densities", nargs="+", type=float, default=[0.05, 0.01, 0.0025])
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--ranks", nargs="+", type=float, default=[0.05, 0.01])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--attacked-images", type=count, default=300)
    arguments = parser.parse_args()
    paper.prepare(arguments)
    variants = [
        Variant("al0"),
        Variant("untaught", teacher_weight=0.0),
        Variant("plain", backward="plain"),
        Variant("short-steps", path=1.25),
        *(Variant(f"atmc-{rank}", rank_fraction=rank) for rank in arguments.ranks),
        Variant("magnitude", importance="magnitude"),
        Variant("slow", shrink_fraction=2 * defaults.SHRINK_FRACTION),
    ]
    known = [variant.name for variant in variants]
    if unknown := set(arguments.variants or known) - set(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    wanted = {"al0", *(arguments.variants or known)}
    variants = [variant for variant in variants if variant.name in wanted]
    runs = [
        _kept(arguments, density, variant, seed)
        for density in arguments.densities
        for seed in arguments.seeds
        for variant in variants
    ]
    differences = [
        _difference(runs, density, variant.name)
        for density in arguments.densities
        for variant in variants[1:]
    ]
    settings = {n: str(v) if isinstance(v, Path) else v for n, v in vars(arguments).items()}
    del settings["work"]
    result = {"settings": settings, "differences": differences, "runs": runs}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"ablation-{arguments.name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print_result({"differences": differences, "runs": len(runs)})


@dataclass(frozen=True)
class Variant:
    """A variant of AL0.

    Attributes:
        name: its name in the result.
        rank_fraction: the share of rows in the basis of the split into U, V and C; None holds W as
            it is.
        importance: how entries are compared.
        shrink_fraction: the share of the steps over which the budget shrinks.
        backward: which gradients the attack climbs, if not those of ``--backward``.
        path: how many radii the attack's steps add up to.
        teacher_weight: the weight of the dense network as a teacher.
    """

    name: str
    rank_fraction: float | None = None
    importance: Importance = defaults.IMPORTANCE
    shrink_fraction: float = defaults.SHRINK_FRACTION
    backward: Backward | None = None
    path: float = 2.0
    teacher_weight: float = defaults.TEACHER_WEIGHT


def _kept(
    arguments: argparse.Namespace, density: float, variant: Variant, seed: int
) -> dict[str, Any]:
    """The figures of a run, from its file, or by running it if there is none."""
    name = f"ablation-{density}-{variant.name}-{seed}-{arguments.epochs}.json"
    path: Path = work_folder(arguments) / name
    if not path.exists():
        path.write_text(json.dumps(_run(arguments, density, variant, seed)))
    run: dict[str, Any] = json.loads(path.read_text())
    return run


def _run(
    arguments: argparse.Namespace, density: float, variant: Variant, seed: int
) -> dict[str, Any]:
    network = build(arguments.architecture, 10)
    network.load_state_dict(safetensors.torch.load_file(paper.robust_network(arguments)))
    classifier = Classifier(network, Normalization(), channels=1).to(device())
    teacher = Teacher.copied(classifier, network.state_dict(), variant.teacher_weight)
    weights = dense_weights(network)
    rank = variant.rank_fraction
    factors = plain(weights) if rank is None else interpolative(weights, rank)
    k = round(density * sum(weight.numel() for weight, _ in weights.values()))
    data = load_npz(paper.images(arguments), validation_fraction=0.1, seed=arguments.seed).to(
        device()
    )
    net = AdmmWeights(
        network,
        factors,
        k=k,
        bits=32,
        steps=arguments.epochs * steps_per_epoch(data.train, arguments.batch_size),
        options=AdmmOptions(shrink_fraction=variant.shrink_fraction),
        optimizer=sgd(arguments.learning_rate),
        structure=Structure(variant.importance),
    )
    options = TrainerOptions(
        attack=training_attack(
            "linf",
            arguments.epsilon,
            arguments.steps,
            variant.path * arguments.epsilon / arguments.steps,
            variant.backward or arguments.backward,
        ),
        loss=MixedLoss(arguments.clean_weight),
        schedule="cosine",
        batch_size=arguments.batch_size,
        epochs=arguments.epochs,
        peak_rate=arguments.learning_rate,
        stream=(seed, 1),
        max_grad_norm=defaults.MAX_GRAD_NORM,
        teacher=teacher,
    )
    trainer = Trainer(classifier, net, data.train, options)
    for epoch in range(arguments.epochs):
        loss = trainer.run_epoch(epoch)
        say(f"density {density}, {variant.name}, seed {seed}, epoch {epoch}: loss {loss:.3f}")
    few = slice(arguments.attacked_images)
    test = Split(data.test.images[few].cpu(), data.test.labels[few].cpu())
    return {
        "density": density,
        "variant": variant.name,
        "seed": seed,
        "k": k,
        **worst_case(classifier, test, arguments.epsilon),
        "nonzeros": {name: _nonzeros(own) for name, own in factors.items()},
    }


def _nonzeros(factors: Factors) -> list[int]:
    return [int(tensor.count_nonzero()) for tensor in factors.tensors]


def _difference(runs: list[dict[str, Any]], density: float, variant: str) -> dict[str, Any]:
    """The mean over the seeds of a variant's worst case minus AL0's, with its 95 % interval."""

    def figures(wanted: str) -> list[float]:
        chosen = [r for r in runs if (r["density"], r["variant"]) == (density, wanted)]
        return [run["worst_accuracy"] for run in sorted(chosen, key=lambda run: run["seed"])]

    pairs = np.array(figures(variant)) - np.array(figures("al0"))
    mean = float(pairs.mean())
    half = float("nan")
    if len(pairs) > 1:
        half = float(stats.t.ppf(0.975, len(pairs) - 1)) * statistics.stdev(pairs)
        half /= len(pairs) ** 0.5
    return {
        "density": density,
        "variant": variant,
        "al0": round(float(np.mean(figures("al0"))), 4),
        "worst_accuracy": round(float(np.mean(figures(variant))), 4),
        "difference": round(mean, 4),
        "interval": [round(mean - half, 4), round(mean + half, 4)],
    }


if __name__ == "__main__":
    main()
