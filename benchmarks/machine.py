"""The device and the commit on which a benchmark runs."""

import platform
import subprocess
from pathlib import Path

import torch


def has_gpu() -> bool:
    """Whether torch sees a GPU."""
    return torch.cuda.is_available()


def device() -> torch.device:
    """The GPU if there is one, or else the CPU."""
    return torch.device("cuda" if has_gpu() else "cpu")


def hardware() -> str:
    """The GPU's name, or the CPU's name and its number of cores."""
    if has_gpu():
        return torch.cuda.get_device_name()
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


def commit() -> str:
    """The short hash of the checkout's commit; empty if it is no checkout."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    here = Path(__file__).resolve().parent
    found = subprocess.run(command, capture_output=True, text=True, cwd=here, check=False)
    return found.stdout.strip()
