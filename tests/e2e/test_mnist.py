"""LeNet on real MNIST, where the image sets are at hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from atmc_core.networks.architectures import build

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """A slice of MNIST, and a LeNet trained on it."""
    source = Path(os.environ.get("ATMC_DATA_DIR", ROOT.parent / "shared" / "data"))
    if not (source / "unpack.py").exists():
        pytest.skip(f"no image sets in {source}: name their folder in ATMC_DATA_DIR")
    folder = tmp_path_factory.mktemp("mnist")
    whole = folder / "whole.npz"
    subprocess.run([sys.executable, source / "unpack.py", "mnist", whole], check=True)
    with np.load(whole) as arrays:
        cut = {
            f"{array}_{split}": arrays[f"{array}_{split}"][:count]
            for array in "xy"
            for split, count in (("train", 1000), ("test", 200))
        }
    whole.unlink()
    np.savez(folder / "mnist.npz", **cut)
    save_file(trained(cut["x_train"], cut["y_train"]).state_dict(), folder / "lenet.safetensors")
    return folder


def trained(images, labels):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build("lenet", 10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)
    targets = torch.from_numpy(labels)
    for _ in range(4):
        for index in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs[index]), targets[index]).backward()
            optimizer.step()
    return network


def test_lenet_is_compressed_on_mnist(atmc, mnist):
    done = atmc(
        *("submit", "--model", mnist / "lenet.safetensors", "--architecture", "lenet"),
        *("--data", mnist / "mnist.npz", "--density", 0.05, "--bits", 8, "--epsilon", 76 / 255),
        *("--set", "training.robust_epochs=1", "--set", "training.compression_epochs=1"),
        *("--set", "training.finish_epochs=1", "--set", "threat.steps=2"),
        *("--set", "evaluation.pgd_steps=3", "--set", "evaluation.pgd_restarts=1"),
        # How fast it is, and the curve, are shown on the digits.
        *("--set", "evaluation.speed=false", "--set", "evaluation.curve_images=5", "--json"),
    )
    assert done.returncode == 0, done.stderr
    headline = json.loads(done.stdout)["headline"]
    assert headline["clean_accuracy_before"] > 0.8
    assert headline["k"] == round(0.05 * 430_500)
    assert headline["nonzeros"] <= headline["k"]
    assert headline["max_distinct_values"] <= 256
    assert headline["file_ratio"] < 0.05
