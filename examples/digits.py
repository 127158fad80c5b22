"""A real classifier to compress: a small conv net on scikit-learn's 1,797 handwritten digits.

`python -m examples.digits [FOLDER]` writes `digits.npz` and `digits.safetensors`.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

from atmc_core.networks.architectures import build

ARCHITECTURE = "digits_cnn"


def save_digits(path: Path, *, train: int | None = None, test: int = 360) -> None:
    """Write `x_train, y_train, x_test, y_test` to `path` (.npz): 8x8 images, uint8, stratified.

    `train` and `test` are numbers of images; by default all that are not for test are for training.
    """
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, train_size=train, test_size=test, stratify=labels, random_state=0
    )
    np.savez_compressed(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def train_classifier(dataset: Path, path: Path, *, epochs: int = 12) -> None:
    """Train on the clean images of `dataset` and write the state dict to `path` (.safetensors)."""
    # At this size a second thread costs more than it brings.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with np.load(dataset) as arrays:
        images = torch.from_numpy(arrays["x_train"]).float().div(255).unsqueeze(1)
        labels = torch.from_numpy(arrays["y_train"])
    network = build(ARCHITECTURE, 10)
    _fit(network, images, labels, epochs)
    save_file(network.state_dict(), path)


def _fit(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    batch = 64
    steps = epochs * -(-len(images) // batch)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    for _ in range(epochs):
        for index in torch.split(torch.randperm(len(images)), batch):
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(network(images[index]), labels[index]))
            optimizer.step()
            schedule.step()


def main() -> None:
    """Write data and trained network into the folder named on the command line, or here."""
    folder = Path(*sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    save_digits(folder / "digits.npz")
    train_classifier(folder / "digits.npz", folder / "digits.safetensors")


if __name__ == "__main__":
    main()
