"""Reads a data set in any known form; the form is recognised by the content, not by the name."""

import tempfile
from pathlib import Path

from atmc_core.data.archive import Archive, TarArchive, ZipArchive
from atmc_core.data.cifar import read_cifar
from atmc_core.data.collector import Collector, Reading
from atmc_core.data.folders import read_folders
from atmc_core.data.idx import read_idx
from atmc_core.data.inflation import inflate
from atmc_core.data.npz import read_npz, read_safetensors
from atmc_core.data.parquet import read_parquet
from atmc_core.data.sets import DataSet
from atmc_core.data.source import Source, complete
from atmc_core.errors import InvalidInput
from atmc_spec.datasets.kinds import (
    HEAD_BYTES,
    LONG_HEAD,
    compression_of,
    inflated,
    is_tar,
    unknown_file,
)
from atmc_spec.datasets.layout import parquet_splits
from atmc_spec.datasets.members import form_of, those_of

_MAX_PARQUET_BYTES = 4 * 2**30
_AS_IT_IS = Reading()


def load_dataset(
    path: Path, validation_fraction: float, seed: int, reading: Reading = _AS_IT_IS
) -> DataSet:
    """Read ``.npz``, safetensors, Parquet, or an archive of files.

    An archive is a zip or a tar, which may be compressed, of class folders, idx or Parquet files,
    or of CIFAR's pickles.

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
        head = file.read(HEAD_BYTES)
    if head[:4] == b"PAR1":
        collector = Collector(reading)
        with path.open("rb") as file:
            names = read_parquet(collector, file, "train", "dataset")
        return Source(collector.splits(), names)
    # Safetensors: a 64-bit length, whose upper half is zero, and then a JSON object.
    if head[4:9] == b"\0\0\0\0{":
        return read_safetensors(path, reading)
    if head[:4] == b"PK\3\4":
        return _read_archive(ZipArchive(path), reading)
    if is_tar(head):
        with path.open("rb") as file:
            return _read_archive(TarArchive(file), reading)
    compression = compression_of(head)
    if compression:
        with path.open("rb") as file:
            head = file.read(LONG_HEAD)
        if is_tar(inflated(head, compression)):
            with inflate(path, compression, reading.folder) as file:
                return _read_archive(TarArchive(file), reading)
    raise unknown_file(head)


def _read_archive(archive: Archive, reading: Reading) -> Source:
    names = list(archive.names())
    form = form_of(names)
    if form == "cifar":
        return read_cifar(archive, reading)
    if form == "folders":
        return read_folders(archive, reading)
    members = those_of(form, names)
    if form == "arrays":
        return read_npz(archive, members, reading)
    if form == "idx":
        return read_idx(archive, members, reading)
    return _read_parquets(archive, members, reading)


def _read_parquets(archive: Archive, members: list[str], reading: Reading) -> Source:
    collector = Collector(reading)
    classes: tuple[str, ...] = ()
    for member, split in parquet_splits(members).items():
        # Reading Parquet begins at the end of the file, so a stream is not enough.
        with tempfile.TemporaryFile(dir=reading.folder) as file:
            for part in archive.parts(member, _MAX_PARQUET_BYTES):
                file.write(part)
            found = read_parquet(collector, file, split, member)
        if found and classes and found != classes:
            raise InvalidInput(
                "malformed_dataset",
                f"{member[:120]!r} names its classes otherwise than the files before it, so that "
                "their labels do not mean the same",
                member[:120],
            )
        classes = found or classes
    return Source(collector.splits(), classes)
