"""Trains a few steps, in one process or in those that torchrun starts, and saves the weights.

`python -m tests.atmc_core.training.trained_together FOLDER`
"""

import sys
from pathlib import Path

import torch
from torch import nn

from atmc_core.attacks import PGD, ball
from atmc_core.data import Split
from atmc_core.networks.architectures import build
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.state_dict import clone_state
from atmc_core.solver.weights import DenseWeights
from atmc_core.training import distributed
from atmc_core.training.step import PAPERS_MIX, StepLoss
from atmc_core.training.trades import DivergencePGD, TradesLoss
from atmc_core.training.trainer import Trainer, TrainerOptions

# 37 a batch: shares of 18 and 19, and a last batch of 2 that is not shared.
IMAGES, BATCH = 150, 37
LINF, L2 = ball("linf", 0.1), ball("l2", 0.5)
ATTACKS: dict[str, tuple[PGD, StepLoss]] = {
    "mix": (PGD(LINF, 2, 0.05), PAPERS_MIX),
    # Without signs, which rounding flips where there is hardly a slope yet.
    "trades": (DivergencePGD(L2, 2, 0.2), TradesLoss(3.0)),
}


def with_norms() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(4 * 64, 10),
    )


def train(network: nn.Module, attack: PGD, loss: StepLoss) -> dict[str, torch.Tensor]:
    """Two epochs; returns the network's state and each epoch's loss."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 1, 8, 8), generator=draw, dtype=torch.uint8)
    split = Split(images, torch.arange(IMAGES) % 10)
    classifier = Classifier(network, Normalization(), channels=1)
    options = TrainerOptions(attack, loss, "cosine", BATCH, 2, 0.05, (0, 0))
    trainer = Trainer(classifier, DenseWeights(network), split, options)
    losses = [trainer.run_epoch(index) for index in range(2)]
    return clone_state(network) | {"losses": torch.tensor(losses)}


def main(folder: Path) -> None:
    """Train the networks one after the other."""
    torch.set_num_threads(1)
    with distributed.together(torch.device("cpu")):
        found = {}
        for name, (attack, loss) in ATTACKS.items():
            torch.manual_seed(0)
            found[name] = train(build("digits_cnn", 10), attack, loss)
        torch.manual_seed(0)
        found["with_norms"] = train(with_norms(), *ATTACKS["mix"])
        torch.save(found, folder / f"{distributed.rank()}-of-{distributed.processes()}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
