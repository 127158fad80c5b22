"""A data set's file as the API looks into it and as a job reads it."""

import io
from pathlib import Path

from api.inspection import read_dataset_header
from atmc_core.data import DataSet, Reading, load_dataset


def inspected(content: bytes) -> None:
    read_dataset_header(io.BytesIO(content), 2**30)


def loaded(content: bytes, path: Path, channels: int = 3) -> DataSet:
    path.write_bytes(content)
    return load_dataset(path, 0.25, seed=0, reading=Reading(channels, path.parent))
