"""`python -m examples.check_artifact MODEL DATA`: load a compressed model and test it.

This is how a downloaded model is used: it needs only `atmc_core` and no service. Prints a line of
JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from atmc_core import artifact


@torch.no_grad()
def clean_accuracy(model: Path, dataset: Path) -> float:
    """The accuracy of a compressed model on the test split of a data set (.npz), in [0, 1]."""
    classifier = artifact.load(model).classifier()
    with np.load(dataset) as arrays:
        # From uint8 [N, H, W] or [N, H, W, C] in 0..255 to float [N, C, H, W] in [0, 1].
        images = torch.from_numpy(arrays["x_test"]).float().div(255)
        labels = torch.from_numpy(arrays["y_test"])
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    right = classifier(images).argmax(1) == labels
    return int(right.sum()) / len(right)


def main() -> None:
    """Print the accuracy of the model on the data set that the command line names."""
    model, dataset = map(Path, sys.argv[1:])
    print(json.dumps({"clean_accuracy": clean_accuracy(model, dataset)}))


if __name__ == "__main__":
    main()
