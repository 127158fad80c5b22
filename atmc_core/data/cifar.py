"""Reads the python version of CIFAR-10 and CIFAR-100, as its authors publish it."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atmc_core.data.archive import Archive
from atmc_core.data.collector import Collector, Reading
from atmc_core.data.pickles import read_pickle
from atmc_core.data.source import Source
from atmc_core.errors import InvalidInput
from atmc_spec.datasets.members import base_name

# The largest file of CIFAR-100 has 155 MB.
_MAX_BYTES = 256 * 2**20
# An image is a row: all red values, then green, then blue, row by row.
_SHAPE = (3, 32, 32)
_ROW = 3 * 32 * 32
_PARTS = 4096
_SPLITS = re.compile(r"(?P<train>data_batch_\d|train)|(?P<test>test_batch|test)")
_NAMES = {"batches.meta": "label_names", "meta": "fine_label_names"}
_LABELS = ("labels", "fine_labels")


def read_cifar(archive: Archive, reading: Reading) -> Source:
    """Read ``data_batch_1`` to ``_5`` and ``test_batch``, or ``train`` and ``test``.

    Of CIFAR-100 the fine labels are taken. The pickles are read, not run.

    Raises:
        InvalidInput: ``malformed_dataset`` or ``bad_array``, with the member's name.
    """
    collector = Collector(reading)
    names: tuple[str, ...] = ()
    for member in archive.names():
        base = base_name(member)
        if base in _NAMES:
            names = _class_names(_content(archive, member), _NAMES[base])
        elif (found := _SPLITS.fullmatch(base)) and found.lastgroup:
            images, labels = _batch(_content(archive, member), member)
            collector.expect(len(images))
            for start in range(0, len(images), _PARTS):
                part = slice(start, start + _PARTS)
                collector.extend(found.lastgroup, images[part], labels[part], member)
    return Source(collector.splits(), names)


def _content(archive: Archive, member: str) -> dict[str, Any]:
    if archive.size(member) > _MAX_BYTES:
        raise _bad(member, f"it has {archive.size(member):,} bytes")
    with archive.reading(member) as file:
        return read_pickle(file, member)


def _batch(content: dict[str, Any], member: str) -> tuple[NDArray[np.uint8], list[int]]:
    """Images, uint8 ``[N, 3, 32, 32]``, and N labels."""
    data = content.get("data")
    labels = next((content[key] for key in _LABELS if key in content), None)
    if not isinstance(data, np.ndarray) or data.shape[1:] != (_ROW,) or not len(data):
        raise _bad(member, f"its data is not an array of rows of {_ROW:,} bytes")
    if not isinstance(labels, list) or len(labels) != len(data):
        raise _bad(member, f"it has no list of {len(data):,} labels")
    if not all(type(label) is int for label in labels):
        raise _bad(member, "its labels are not whole numbers")
    return np.ascontiguousarray(data).reshape(-1, *_SHAPE), labels


def _class_names(content: dict[str, Any], key: str) -> tuple[str, ...]:
    names = content.get(key)
    if not isinstance(names, list):
        return ()
    return tuple(
        name.decode("latin-1")[:200] if isinstance(name, bytes) else str(name)[:200]
        for name in names
        if isinstance(name, str | bytes)
    )


def _bad(member: str, reason: str) -> InvalidInput:
    return InvalidInput(
        "malformed_dataset", f"{member[:120]!r} cannot be used: {reason}", member[:120]
    )
