"""Real images and a real classifier of them, small enough to train in a second."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from atmc_core.data import DataSet, load_npz, training_batches
from atmc_core.job import checkpoint
from atmc_core.networks.architectures import build
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.upload import ModelInput
from tests.atmc_core.job.whole_jobs import EVALUATION, THREAT, run_job


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tensors this small gain nothing from a second core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _a_checkpoint_after_every_step() -> Iterator[None]:
    """However slow the disk is: tests say after which step a run goes on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "QUICK_S", float("inf"))
        yield


@pytest.fixture(scope="session", autouse=True)
def own_interpreter(forked_evaluation: Callable[[], object]) -> Callable[[], object]:
    """What starts an evaluating process that is not forked."""
    return forked_evaluation


@pytest.fixture(scope="session")
def digits_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's digits as ``.npz``: 1,437 training and 360 test images, shuffled."""
    digits = load_digits()
    images = np.round(digits.images / 16 * 255).astype(np.uint8)[..., None]
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[:360], order[360:]
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(
        path,
        x_train=images[train],
        y_train=digits.target[train],
        x_test=images[test],
        y_test=digits.target[test],
    )
    return path


@pytest.fixture(scope="session")
def small_digits_path(digits_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 500 training and 150 test images of them."""
    path = tmp_path_factory.mktemp("small") / "digits.npz"
    with np.load(digits_path) as arrays:
        sizes = {"train": 500, "test": 150}
        np.savez(path, **{name: arrays[name][: sizes[name[2:]]] for name in arrays})
    return path


@pytest.fixture(scope="session")
def digits(digits_path: Path) -> DataSet:
    return load_npz(digits_path, validation_fraction=0.1, seed=0)


@pytest.fixture(scope="session")
def digits_model(digits: DataSet, tmp_path_factory: pytest.TempPathFactory) -> ModelInput:
    """A clean-trained ``digits_cnn``, over 95 % right on the test split."""
    torch.manual_seed(0)
    network = build("digits_cnn", 10)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        for images, labels in training_batches(digits.train, 64, generator):
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
    path = tmp_path_factory.mktemp("model") / "digits.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    return ModelInput(path, "digits_cnn")


@pytest.fixture
def digits_classifier(digits_model: ModelInput) -> Classifier:
    network = build("digits_cnn", 10)
    network.load_state_dict(safetensors.torch.load_file(digits_model.path))
    return Classifier(network, Normalization(), channels=1).eval()


@pytest.fixture(scope="session")
def evaluated(
    digits_model: ModelInput, digits_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """The folder of a job that only evaluates, and what it returned."""
    torch.use_deterministic_algorithms(True)
    folder = tmp_path_factory.mktemp("evaluated")
    document = {"method": "evaluate", "threat": THREAT, "evaluation": EVALUATION}
    document["accept"] = {"robust_accuracy": 0.99}
    return folder, run_job(document, digits_model, digits_path, folder)


@pytest.fixture(scope="session")
def compressed(
    digits_model: ModelInput, digits_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a job that compresses."""
    torch.use_deterministic_algorithms(True)
    folder = tmp_path_factory.mktemp("compressed")
    document = {
        "method": "nap",
        "target": {"density": 0.2, "bits": 4},
        "threat": THREAT,
        "training": {"robust_epochs": 0, "compression_epochs": 1, "finish_epochs": 1},
        "evaluation": EVALUATION | {"level": "quick", "speed": True},
        "accept": {"clean_accuracy_drop": 0.9, "file_ratio": 0.2},
    }
    headline, _ = run_job(document, digits_model, digits_path, folder)
    assert headline["accepted"] is True
    return folder
