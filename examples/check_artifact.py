"""`python -m examples.check_artifact MODEL DATA`: load a compressed model and test it.

Needs `atmc_core` alone, no service: this is how a downloaded model is used. Prints one JSON line.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from atmc_core import artifact


@torch.no_grad()
def clean_accuracy(model: Path, dataset: Path) -> float:
    """Accuracy of the compressed `model` on the test split of `dataset` (.npz), 0 to 1."""
    classifier = artifact.load(model).classifier()
    with np.load(dataset) as arrays:
        # [N, H, W] or [N, H, W, C] in 0..255 to [N, C, H, W] in 0..1.
        images = torch.from_numpy(arrays["x_test"]).float().div(255)
        labels = torch.from_numpy(arrays["y_test"])
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    right = classifier(images).argmax(1) == labels
    return int(right.sum()) / len(right)


def main() -> None:
    """Print the accuracy of the model and data named on the command line."""
    model, dataset = map(Path, sys.argv[1:])
    print(json.dumps({"clean_accuracy": clean_accuracy(model, dataset)}))


if __name__ == "__main__":
    main()
