"""Lays code out as `make format` does."""

import subprocess
import sys
from pathlib import Path


def formatted(code: str, path: Path) -> str:
    """Return the code with its imports sorted and its lines broken, as ruff has it at `path`."""
    ruff = [sys.executable, "-m", "ruff"]
    name = f"--stdin-filename={path}"
    for command in (["check", "--fix-only"], ["format"]):
        done = subprocess.run(
            [*ruff, *command, "--quiet", name, "-"],
            input=code,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        code = done.stdout
    return code
