"""A job whose numbers stand at the ends of what they may be ends well, or says what is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from atmc_core.networks.architectures import build
from atmc_core.networks.upload import ModelInput
from atmc_spec import SPECS
from tests.atmc_core.job.whole_jobs import run_job

LEAST: dict[str, Any] = {
    "threat": {"epsilon": 1e-6, "step_size": 1e-6},
    "training": {"learning_rate": 1e-6, "max_grad_norm": 1e-6, "rho": 1e-6},
}
MOST: dict[str, Any] = {
    "threat": {"epsilon": 1, "step_size": 1},
    "training": {"learning_rate": 10, "max_grad_norm": 1e9, "rho": 100, "weight_decay": 1},
}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("ends", "keyword"), [(LEAST, "minimum"), (MOST, "maximum")])
def test_a_job_at_the_ends_ends_well(
    tmp_path: Path, norm: str, ends: dict[str, Any], keyword: str
) -> None:
    schema = SPECS["atmc"].json_schema()["properties"]
    for part, numbers in ends.items():
        for name, value in numbers.items():
            assert schema[part]["properties"][name][keyword] == value, name
    labels = np.arange(20) % 10
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    arrays = {
        f"{kind}_{split}": array
        for split in ("train", "val", "test")
        for kind, array in (("x", images), ("y", labels))
    }
    data, network = tmp_path / "data.npz", tmp_path / "network.safetensors"
    np.savez(data, **arrays)  # type: ignore[arg-type]
    torch.manual_seed(0)
    safetensors.torch.save_file(build("digits_cnn", 10).state_dict(), network)
    epochs = dict.fromkeys(("robust_epochs", "compression_epochs", "finish_epochs"), 1)
    document = {
        "method": "atmc",
        "target": {"density": 0.1, "bits": 4},
        "threat": {"norm": norm, "steps": 1, **ends["threat"]},
        "training": {"batch_size": 10, **epochs, **ends["training"]},
        "evaluation": {
            "level": "standard",
            "max_images": 10,
            "pgd_steps": 2,
            "autoattack_steps": 3,
            "square_queries": 5,
            "curve_images": 2,
            "curve_steps": 1,
            "speed": False,
        },
    }
    try:
        headline, _ = run_job(document, ModelInput(network, "digits_cnn"), data, tmp_path / "run")
    except FloatingPointError:
        # The job says so (`training_diverged`): with the largest steps a network may.
        assert ends is MOST
    else:
        assert 0 <= headline["robust_accuracy_after"] <= 1
