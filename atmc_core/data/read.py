"""Reads a data set in any known form; the form is recognised by the content, not by the name."""

import tempfile
from pathlib import Path

from atmc_core.data.archive import Archive
from atmc_core.data.collector import Collector, Reading
from atmc_core.data.folders import SPLIT_NAMES, read_folders
from atmc_core.data.idx import is_idx, read_idx
from atmc_core.data.npz import read_npz, read_safetensors
from atmc_core.data.parquet import read_parquet
from atmc_core.data.sets import DataSet
from atmc_core.data.source import Source, complete
from atmc_core.errors import InvalidInput

_MAX_PARQUET_BYTES = 4 * 2**30
# The first bytes of a file, by which its form is recognised.
_HEAD_BYTES = 9
_AS_IT_IS = Reading()


def load_dataset(
    path: Path, validation_fraction: float, seed: int, reading: Reading = _AS_IT_IS
) -> DataSet:
    """Read ``.npz``, safetensors, Parquet, or a zip of class folders, idx or Parquet files.

    Missing splits are cut from train, stratified by class, and the data set's ``notes`` say so.

    Args:
        path: the file.
        validation_fraction: the share of train that a missing validation split gets.
        seed: seeds the choice of images for missing splits.
        reading: how the data set is read.

    Raises:
        InvalidInput: if the file cannot be used; the error names the array or member.
        OSError: if the file cannot be read.
    """
    return complete(_read(path, reading), validation_fraction, seed, reading.folder)


def _read(path: Path, reading: Reading) -> Source:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[:4] == b"PAR1":
        collector = Collector(reading)
        with path.open("rb") as file:
            names = read_parquet(collector, file, "train", "dataset")
        return Source(collector.splits(), names)
    # Safetensors: a 64-bit length, whose upper half is zero, and then a JSON object.
    if head[4:] == b"\0\0\0\0{":
        return read_safetensors(path, reading)
    if head[:2] != b"PK":
        raise InvalidInput(
            "malformed_dataset",
            "neither .npz, safetensors, Parquet, nor a zip of class folders, idx or Parquet files",
            "dataset",
        )
    return _read_zip(path, reading)


def _read_zip(path: Path, reading: Reading) -> Source:
    archive = Archive(path)
    names = list(archive.names())
    if names and all(name.endswith(".npy") for name in names):
        return read_npz(path, reading)
    if names and all(map(is_idx, names)):
        return read_idx(archive, reading)
    if names and all(name.endswith(".parquet") for name in names):
        return _read_parquets(archive, reading)
    return read_folders(archive, reading)


def _read_parquets(archive: Archive, reading: Reading) -> Source:
    """Read Parquet files whose names begin with their split: ``train-00000-of-00001.parquet``."""
    collector = Collector(reading)
    classes: tuple[str, ...] = ()
    for member in archive.names():
        split = SPLIT_NAMES.get(member.rsplit("/", 1)[-1].split("-")[0].split(".")[0].lower())
        if split is None:
            raise InvalidInput(
                "malformed_dataset",
                f"the name of {member[:120]!r} does not begin with train, validation or test",
                member[:120],
            )
        # Reading Parquet begins at the end of the file, so a stream is not enough.
        with tempfile.TemporaryFile(dir=reading.folder) as file:
            for part in archive.parts(member, _MAX_PARQUET_BYTES):
                file.write(part)
            classes = read_parquet(collector, file, split, member) or classes
    return Source(collector.splits(), classes)
