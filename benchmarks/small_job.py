"""A small but real job of a few seconds, with which other benchmarks and tests work."""

import io
import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from safetensors.torch import save
from sklearn.datasets import load_digits

from atmc_core.networks.architectures import build

ARCHITECTURE = "digits_cnn"
# The stages in which the job trains.
TRAINING = ("robust_training", "compressing", "finishing")
SPEC: dict[str, Any] = {
    "method": "atmc",
    "target": {"density": 0.1, "bits": 4},
    "threat": {"norm": "linf", "epsilon": 0.1, "steps": 3},
    "training": {
        "robust_epochs": 3,
        "compression_epochs": 5,
        "finish_epochs": 2,
        "batch_size": 100,
    },
    "evaluation": {
        "attacks": ["fgsm"],
        "max_images": 50,
        "curve_images": 10,
        "curve_steps": 1,
        "batch_size": 100,
        "speed": False,
    },
}


def uploads(*, infinite_weight: bool = False) -> tuple[bytes, bytes]:
    """The files of a network (safetensors) and a data set (.npz) of digits."""
    torch.manual_seed(0)
    tensors = build(ARCHITECTURE, 10).state_dict()
    if infinite_weight:
        tensors["conv1.weight"][0, 0, 0, 0] = float("inf")
    pixels, labels = load_digits(return_X_y=True)
    images = np.round(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    file = io.BytesIO()
    np.savez(
        file,
        x_train=images[:600],
        y_train=labels[:600],
        x_test=images[600:700],
        y_test=labels[600:700],
    )
    return save(tensors), file.getvalue()


def fill_folder(folder: Path, spec: dict[str, Any], *, processes: int = 1) -> None:
    """Fill a folder as the supervisor does, for `python -m worker.child FOLDER`."""
    for name in ("inputs", "checkpoints", "results"):
        (folder / name).mkdir(parents=True)
    model, dataset = uploads()
    (folder / "inputs" / "model.safetensors").write_bytes(model)
    (folder / "inputs" / "dataset.npz").write_bytes(dataset)
    document = {
        "job_id": "job_by_hand",
        "attempt": 1,
        "spec": spec,
        "model": {
            "path": "inputs/model.safetensors",
            "architecture": ARCHITECTURE,
            "normalization": None,
        },
        "dataset": {"path": "inputs/dataset.npz"},
        "device": "cpu",
        "processes": processes,
        "threads": 1,
    }
    (folder / "job.json").write_text(json.dumps(document))


def child_command(folder: Path) -> list[str]:
    """The command that runs the job in a folder."""
    return [sys.executable, "-m", "worker.child", str(folder)]


def child_at_work(worker: int) -> psutil.Process | None:
    """The child that runs a job in the worker with this process id, if there is one.

    A worker also has a spare child that waits for the next job.
    """
    with suppress(psutil.Error):
        for process in psutil.Process(worker).children():
            with suppress(psutil.Error):
                if any(file.path.endswith("child.log") for file in process.open_files()):
                    return process
    return None


def undisturbed(seed: int) -> str:
    """The SHA-256 hash of the artifact of the job with this seed, run without disturbance."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "job")
        fill_folder(folder, SPEC | {"seed": seed})
        subprocess.run(child_command(folder), check=True, stdin=subprocess.DEVNULL)
        return sha256((folder / "results" / "model.atmc").read_bytes()).hexdigest()
