"""Whatever is uploaded, the child refuses it or reads it, in time and within its memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

#: Far below what any worker has; one decoded image of the largest size takes 48 MiB.
LIMIT = 400 * 2**20


def _fuzz(folder: Path, seconds: float, seed: int) -> int:
    """Read mutated files for so long, in a process of its own; returns how many."""
    command = [sys.executable, "-m", "tests.atmc_core.fuzzing", folder, str(seconds), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120)
    # A crash, by a signal too, and a hang show here; the file is kept as the folder's `case`.
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["peak_bytes"] < LIMIT
    assert found["longest_message"] <= 1500
    for kind, counts in found["kinds"].items():
        assert counts["refused"] > 0 or counts["cases"] < 10, kind
    return sum(counts["cases"] for counts in found["kinds"].values())


def test_mutated_uploads_are_refused_or_read_for_some_seconds(tmp_path: Path) -> None:
    assert _fuzz(tmp_path, 4, seed=0) > 100


@pytest.mark.slow
def test_mutated_uploads_are_refused_or_read_for_a_minute(tmp_path: Path) -> None:
    assert _fuzz(tmp_path, 60, seed=1) > 2000
