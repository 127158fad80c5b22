"""Reads a data set in whatever known form it comes: its content decides, never its name."""

import io
from pathlib import Path

from atmc_core.data.archive import Archive
from atmc_core.data.collector import Collector
from atmc_core.data.folders import SPLIT_NAMES, read_folders
from atmc_core.data.idx import is_idx, read_idx
from atmc_core.data.npz import read_npz, read_safetensors
from atmc_core.data.parquet import read_parquet
from atmc_core.data.sets import DataSet
from atmc_core.data.source import Source, complete
from atmc_core.errors import InvalidInput

_MAX_PARQUET_BYTES = 4 * 2**30


def load_dataset(
    path: Path, validation_fraction: float, seed: int, channels: int | None = None
) -> DataSet:
    """Read ``.npz``, safetensors, Parquet, or a zip of class folders, idx or Parquet files.

    Splits that are not there are cut from train, stratified, by seed; ``notes`` say so.

    Args:
        channels: of encoded images, as the network takes them; by default RGB.

    Raises:
        InvalidInput: with the offending array or member.
    """
    return complete(_read(path, channels), validation_fraction, seed)


def _read(path: Path, channels: int | None) -> Source:
    with path.open("rb") as file:
        head = file.read(9)
    if head[:4] == b"PAR1":
        collector = Collector()
        with path.open("rb") as file:
            names = read_parquet(collector, file, "train", channels, "dataset")
        return Source(collector.splits(), names)
    if head[4:] == b"\0\0\0\0{":
        return read_safetensors(path)
    if head[:2] != b"PK":
        raise InvalidInput(
            "malformed_dataset",
            "neither .npz, safetensors, Parquet, nor a zip of class folders, idx or Parquet files",
            "dataset",
        )
    return _read_zip(path, channels)


def _read_zip(path: Path, channels: int | None) -> Source:
    archive = Archive(path)
    names = list(archive.names())
    if names and all(name.endswith(".npy") for name in names):
        return read_npz(path)
    if names and all(map(is_idx, names)):
        return read_idx(archive)
    if names and all(name.endswith(".parquet") for name in names):
        return _read_parquets(archive, channels)
    return read_folders(archive, channels)


def _read_parquets(archive: Archive, channels: int | None) -> Source:
    """Files whose names begin with their split: ``train-00000-of-00001.parquet``."""
    collector = Collector()
    classes: tuple[str, ...] = ()
    for member in archive.names():
        split = SPLIT_NAMES.get(member.rsplit("/", 1)[-1].split("-")[0].split(".")[0].lower())
        if split is None:
            raise InvalidInput(
                "malformed_dataset",
                f"the name of {member[:120]!r} does not begin with train, validation or test",
                member[:120],
            )
        content = io.BytesIO(archive.read(member, _MAX_PARQUET_BYTES))
        classes = read_parquet(collector, content, split, channels, member) or classes
    return Source(collector.splits(), classes)
