"""A classifier to compress: a small convolutional network on scikit-learn's 1,797 digits.

`python -m examples.digits [FOLDER]` writes `digits.npz` and `digits.safetensors`.
"""

import argparse
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
# The largest value of a pixel in scikit-learn's digits.
DIGITS_WHITE = 16


def save_digits(path: Path, *, train: int | None = None, test: int = 360) -> None:
    """Write the digits to `path` (.npz), split by class into training and test images.

    The arrays are `x_train` and `x_test`, uint8 `[N, 8, 8]`, and `y_train` and `y_test`, int64
    `[N]`. `train` and `test` are numbers of images; by default, all images that are not for testing
    are for training.
    """
    digits = load_digits()
    images = np.round(digits.images * (255 / DIGITS_WHITE)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, train_size=train, test_size=test, stratify=labels, random_state=0
    )
    np.savez_compressed(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def train_classifier(dataset: Path, path: Path, *, epochs: int = 12) -> None:
    """Train on the clean images of `dataset` and write the state dict to `path` (.safetensors)."""
    # For a network this small, a second thread costs more time than it saves.
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
    """Write the data and the trained network into the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Writes digits.npz and digits.safetensors.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="by default this one")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    save_digits(folder / "digits.npz")
    train_classifier(folder / "digits.npz", folder / "digits.safetensors")


if __name__ == "__main__":
    main()
