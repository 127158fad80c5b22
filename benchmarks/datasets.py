"""Real image sets, unpacked once, from the folder ``ATMC_DATA_DIR`` or ../shared/data."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

SETS = ("mnist", "cifar10")


def data_folder() -> Path | None:
    """Where the sets lie, or None if they are not on this machine."""
    named = os.environ.get("ATMC_DATA_DIR")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if (folder / "unpack.py").is_file() else None


def unpacked(name: str) -> Path:
    """The set as ``.npz`` (images uint8 NHWC, labels int64, official order), kept between runs.

    Without the sets on this machine it says where to put them and ends the program: skipped.
    """
    folder = data_folder()
    if folder is None:
        print(f"skipped: {name} is not here; name its folder in ATMC_DATA_DIR", file=sys.stderr)
        raise SystemExit(0)
    path = Path(tempfile.gettempdir()) / f"atmc-{os.getuid()}" / f"{name}.npz"
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        # Each process has a file of its own: of two that unpack at once the last one's stays.
        aside = path.with_suffix(f".{os.getpid()}.npz")
        subprocess.run(
            [sys.executable, str(folder / "unpack.py"), name, str(aside)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        aside.replace(path)
    return path
