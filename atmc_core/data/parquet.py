"""Reads Parquet in Hugging Face's layout: a column of encoded images and a column of labels."""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from atmc_core.data.collector import Collector
from atmc_core.data.images import decode
from atmc_core.errors import InvalidInput

# The number of rows that are decoded at a time.
_ROWS = 256
# A row group is read as a whole, so its size is limited.
_MAX_GROUP_BYTES = 4 * 2**30
_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMNS = ("label", "labels", "fine_label")


def read_parquet(collector: Collector, file: BinaryIO, split: str, name: str) -> tuple[str, ...]:
    """Decode all rows of a file into a split.

    Args:
        collector: receives the images and labels.
        file: the Parquet file.
        split: the split's name.
        name: the file's name, for messages.

    Returns:
        The names of the classes by label; empty if the file does not have them.

    Raises:
        InvalidInput: ``malformed_dataset``, ``bad_image``, or an error of ``Collector.extend``.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InvalidInput(
            "malformed_dataset", "Parquet needs pyarrow: pip install pyarrow", "dataset"
        ) from error
    try:
        table = parquet.ParquetFile(file, pre_buffer=False)
        image, label = _columns(table.schema_arrow, name)
        for group in range(table.metadata.num_row_groups):
            _check_size(table.metadata.row_group(group).total_byte_size, name)
        collector.expect(table.metadata.num_rows)
        place, channels = 0, collector.reading.channels
        for batch in table.iter_batches(_ROWS, columns=[image, label]):
            for content, value in _rows(batch, image, label, name):
                collector.add(split, decode(content, channels, f"{name} row {place}"), value, name)
                place += 1
        return _class_names(table.schema_arrow.metadata, label)
    except InvalidInput:
        raise
    except Exception as error:
        # A broken file causes Arrow's exceptions, and others where its names or numbers are used.
        raise _malformed(name, str(error)[:500]) from error


def _columns(schema: Any, name: str) -> tuple[str, str]:
    image = next((each for each in _IMAGE_COLUMNS if each in schema.names), None)
    label = next((each for each in _LABEL_COLUMNS if each in schema.names), None)
    if image is None or label is None:
        raise _malformed(
            name,
            f"its columns are {', '.join(schema.names)[:200]}; an image column (image or img) and "
            "a label column (label, labels or fine_label) are expected",
        )
    return image, label


def _check_size(size: int, name: str) -> None:
    if not 0 <= size <= _MAX_GROUP_BYTES:
        raise _malformed(name, f"a row group claims {size} bytes")


def _rows(batch: Any, image: str, label: str, name: str) -> Iterator[tuple[bytes, int]]:
    rows = zip(batch.column(image).to_pylist(), batch.column(label).to_pylist(), strict=True)
    for found, value in rows:
        content = found.get("bytes") if isinstance(found, dict) else found
        if not isinstance(content, bytes):
            raise _malformed(name, "a row has no bytes of an image")
        if not isinstance(value, int):
            raise _malformed(name, f"a label is {value!r}; a whole number is expected")
        yield content, value


def _class_names(metadata: Any, label: str) -> tuple[str, ...]:
    """The class names that Hugging Face's ``datasets`` library stores in the file's metadata."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (TypeError, KeyError, ValueError):
        return ()
    return tuple(str(each)[:200] for each in names) if isinstance(names, list) else ()


def _malformed(name: str, reason: str) -> InvalidInput:
    return InvalidInput(
        "malformed_dataset", f"the Parquet file {name[:120]!r} cannot be used: {reason}", name[:120]
    )
