"""Real data sets as their authors publish them, from the folder that ``ATMC_DATA_DIR`` names.

The default is ../shared/data next to the repository. Fashion-MNIST may also be installed as
Debian's package dataset-fashion-mnist. Nothing is downloaded.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from atmc_core.data.archive import Archive, TarArchive
from atmc_core.data.arrays import WholeArray, read_arrays
from atmc_core.data.cifar import read_cifar
from atmc_core.data.collector import Reading
from atmc_core.data.idx import read_idx
from atmc_core.data.inflation import inflate
from atmc_core.data.source import Source
from atmc_core.errors import InvalidInput

_IDX = tuple(
    f"{split}-{kind}-ubyte.gz"
    for split in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
)
_CIFAR_10 = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
_MATS = ("train_32x32.mat", "test_32x32.mat")
# The program that unpacks the packed sets.
_UNPACK = "unpack.py"
# Here Debian's package dataset-fashion-mnist puts its files.
_DEBIAN = "/usr/share/datasets/fashion-mnist"


class _Files(Archive):
    """Files of a folder, read as the members of an archive are."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = {path.name: path for path in paths}
        self._sizes = {path.name: path.stat().st_size for path in paths}
        self.folders = ()

    def open(self, name: str) -> IO[bytes]:
        return self._paths[name].open("rb")


def _idx(paths: list[Path]) -> Source:
    return read_idx(_Files(paths), [path.name for path in paths], Reading())


def _cifar(paths: list[Path]) -> Source:
    if len(paths) > 1:
        return read_cifar(_Files(paths), Reading())
    with inflate(paths[0], "gzip", None) as file:
        return read_cifar(TarArchive(file), Reading())


def _svhn(paths: list[Path]) -> Source:
    # Imported here, since the other sets are read without it.
    from scipy.io import loadmat

    arrays = {}
    for split, path in zip(("train", "test"), paths, strict=True):
        try:
            content = loadmat(path, variable_names=("X", "y"))
            arrays[f"x_{split}"] = WholeArray(content["X"].transpose(3, 0, 1, 2))
            # MATLAB counts from 1, so that the digit 0 has the label 10.
            arrays[f"y_{split}"] = WholeArray(content["y"] % 10)
        except Exception as error:
            # For broken files SciPy raises exceptions of many types.
            message = f"{path.name!r} is not a file of SVHN ({type(error).__name__}: {error})"
            raise InvalidInput("malformed_dataset", message, path.name) from error
    return read_arrays(arrays, Reading())


@dataclass(frozen=True)
class _Set:
    """How a data set is read.

    Attributes:
        read: reads the files of one place, in the order in which it lists them.
        places: where the files may lie: a folder, seen from the data folder, and their names.
        needed: what is missing in a data folder without them, for people.
    """

    read: Callable[[list[Path]], Source]
    places: tuple[tuple[str, tuple[str, ...]], ...]
    needed: str


#: The data sets by name.
SETS = {
    "mnist": _Set(_idx, (("mnist", _IDX),), f"mnist/ with {', '.join(_IDX)}"),
    "fashion_mnist": _Set(
        _idx,
        (("fashion_mnist", _IDX), (_DEBIAN, _IDX)),
        f"fashion_mnist/ with {', '.join(_IDX)} (or install Debian's dataset-fashion-mnist)",
    ),
    "cifar10": _Set(
        _cifar,
        ((".", ("cifar-10-python.tar.gz",)), ("cifar-10-batches-py", _CIFAR_10)),
        "cifar-10-python.tar.gz, or cifar-10-batches-py/ as it unpacks",
    ),
    "cifar100": _Set(
        _cifar,
        ((".", ("cifar-100-python.tar.gz",)), ("cifar-100-python", ("train", "test", "meta"))),
        "cifar-100-python.tar.gz, or cifar-100-python/ as it unpacks",
    ),
    "svhn": _Set(
        _svhn, (("svhn", _MATS), (".", _MATS)), f"{' and '.join(_MATS)}, or svhn/ with them"
    ),
}


def _folder() -> Path:
    named = os.environ.get("ATMC_DATA_DIR")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"


def data_folder() -> Path | None:
    """The folder of the packed data sets, or None if they are not on this machine."""
    folder = _folder()
    return folder if (folder / _UNPACK).is_file() else None


def is_here(name: str) -> bool:
    """Whether the data set is on this machine, in any form that is read."""
    return bool(_found(name))


def unpacked(name: str) -> Path:
    """The data set as an ``.npz`` file, which is kept between runs.

    Images are uint8 ``[N, H, W, C]`` and labels int64 ``[N]``, in the official order. If the data
    set is not on this machine, a message says which files to put where, and the program ends.

    Raises:
        InvalidInput: if a file of the data set cannot be used; the message names it.
    """
    paths = _found(name)
    if not paths:
        needed = f"{_folder()} needs {SETS[name].needed}; ATMC_DATA_DIR names another folder"
        print(f"skipped: {name} is not here; {needed}", file=sys.stderr)
        raise SystemExit(0)
    path = Path(tempfile.gettempdir()) / f"atmc-{os.getuid()}" / f"{name}.npz"
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        # Each process unpacks to a file of its own, so two processes do not write to the same one.
        aside = path.with_suffix(f".{os.getpid()}.npz")
        if paths[0].name == _UNPACK:
            command = [sys.executable, str(paths[0]), name, str(aside)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        else:
            _save(SETS[name].read(paths), aside)
        aside.replace(path)
    return path


def _found(name: str) -> list[Path]:
    """The files of the first place that has all of them; empty if there is none."""
    # A set may also be packed in a folder of its own, from which the folder's program unpacks it.
    packed = (".", (_UNPACK, f"{name}/train_labels.npy"))
    for folder, files in (packed, *SETS[name].places):
        paths = [_folder() / folder / file for file in files]
        if all(path.is_file() for path in paths):
            return paths
    return []


def _save(source: Source, path: Path) -> None:
    arrays: dict[str, Any] = {}
    for name, split in source.splits.items():
        arrays[f"x_{name}"] = split.images.permute(0, 2, 3, 1).numpy()
        arrays[f"y_{name}"] = split.labels.numpy()
    np.savez(path, **arrays)
