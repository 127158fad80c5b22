"""Real data sets from the folder that ``ATMC_DATA_DIR`` names, or from ../shared/data."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

SETS = ("mnist", "cifar10")


def data_folder() -> Path | None:
    """The folder of the data sets, or None if they are not on this machine."""
    named = os.environ.get("ATMC_DATA_DIR")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if (folder / "unpack.py").is_file() else None


def unpacked(name: str) -> Path:
    """The data set as an ``.npz`` file, which is kept between runs.

    Images are uint8 ``[N, H, W, C]`` and labels int64 ``[N]``, in the official order. If the data
    sets are not on this machine, a message says where to put them, and the program ends.
    """
    folder = data_folder()
    if folder is None:
        print(f"skipped: {name} is not here; name its folder in ATMC_DATA_DIR", file=sys.stderr)
        raise SystemExit(0)
    path = Path(tempfile.gettempdir()) / f"atmc-{os.getuid()}" / f"{name}.npz"
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        # Each process unpacks to a file of its own, so two processes do not write to the same one.
        aside = path.with_suffix(f".{os.getpid()}.npz")
        subprocess.run(
            [sys.executable, str(folder / "unpack.py"), name, str(aside)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        aside.replace(path)
    return path
