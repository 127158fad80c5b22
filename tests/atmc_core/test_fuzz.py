"""Whatever is uploaded, the child process refuses or reads it, in time and within its memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

#: Far below what any worker has; one decoded image of the largest size takes 48 MiB.
LIMIT = 400 * 2**20


def _fuzz(folder: Path, cases: int, seed: int) -> None:
    """Read so many mutated files, in a process of its own."""
    command = [sys.executable, "-m", "tests.atmc_core.fuzzing", folder, str(cases), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    # A crash, by a signal too, and a hang show here; the file is kept as the folder's `case`.
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum(counts["cases"] for counts in found["kinds"].values()) == cases
    assert found["peak_bytes"] < LIMIT
    assert found["longest_message"] <= 1500
    for kind, counts in found["kinds"].items():
        assert counts["cases"] >= 1, kind
        assert counts["refused"] > 0 or counts["cases"] < 10, kind


def test_some_hundred_mutated_uploads_are_refused_or_read(tmp_path: Path) -> None:
    _fuzz(tmp_path, 200, seed=0)


@pytest.mark.slow
def test_some_thousand_mutated_uploads_are_refused_or_read(tmp_path: Path) -> None:
    _fuzz(tmp_path, 6000, seed=1)
