"""Hostile tar archives and pickles are refused, by name, in little memory, and nothing is run."""

import gzip
import io
import lzma
import os
import pickle
import struct
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atmc_core.data import Reading, inflation, load_dataset, pickles
from atmc_core.data.pickles import read_pickle
from atmc_core.errors import InvalidInput
from tests.atmc_core.data.data_files import (
    LABELS,
    NAMES,
    cifar_10,
    cifar_images,
    encoded,
    folders,
    python_2_pickle,
    tarred,
)

GOOD = tarred(folders())


def refusal(content: bytes, path: Path) -> InvalidInput:
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as refused:
        load_dataset(path, 0.25, seed=0, reading=Reading(folder=path.parent))
    return refused.value


def with_entry(**fields: Any) -> bytes:
    """A good tar with one more member of these fields at its end."""
    buffer = io.BytesIO(GOOD)
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        entry = tarfile.TarInfo("ant/9.png")
        for name, value in fields.items():
            setattr(entry, name, value)
        archive.addfile(entry)
    return buffer.getvalue()


def raw_header(size: bytes, kind: bytes = b"0") -> bytes:
    """The header of a member with any text for its size, under the right checksum."""
    header = bytearray(tarfile.TarInfo("ant/9.png").tobuf())
    header[124:136], header[156:157], header[148:156] = size.ljust(12, b"\0"), kind, b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


def before_the_end(header: bytes, content: bytes = b"") -> bytes:
    end = len(GOOD.rstrip(b"\0")) // 512 * 512 + 512
    return GOOD[:end] + header + content + bytes(1024)


def pax(keyword: str, value: str) -> bytes:
    text = f" {keyword}={value}\n".encode()
    record = str(len(text) + len(str(len(text)))).encode() + text
    return raw_header(f"{len(record):o}".encode(), b"x") + record.ljust(512, b"\0")


TARS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a symbolic link": (
        lambda: with_entry(type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "symbolic link",
    ),
    "a hard link": (lambda: with_entry(type=tarfile.LNKTYPE, linkname="ant/0.png"), "hard link"),
    "a device": (lambda: with_entry(type=tarfile.CHRTYPE), "no plain file"),
    "a pipe": (lambda: with_entry(type=tarfile.FIFOTYPE), "no plain file"),
    "a name that leads out": (lambda: with_entry(name="../ant/9.png"), "leads out"),
    "an absolute name": (lambda: with_entry(name="/ant/9.png"), "leads out"),
    "a name twice": (lambda: with_entry(name="ant/0.png"), "twice"),
    "cut in a member": (lambda: GOOD[:2000], "not a whole tar file"),
    "cut between members": (lambda: GOOD[:10240], "breaks off"),
    "a broken header in the middle": (
        lambda: GOOD[:10240] + b"x" * 512 + GOOD[10752:],
        "breaks off",
    ),
    "a size below zero": (
        lambda: before_the_end(raw_header(b"\xff" * 8 + struct.pack(">i", -4096))),
        "below zero",
    ),
    "a size below zero in an extended header": (
        lambda: before_the_end(pax("size", "-4096") + raw_header(b"0")),
        "below zero",
    ),
    "a size far past the end": (
        lambda: before_the_end(raw_header(b"77777777777")),
        "not a whole tar file",
    ),
    "an enormous name": (
        lambda: before_the_end(raw_header(b"77777777777", b"L"), bytes(10**6)),
        "too large",
    ),
    "an enormous extended header": (
        lambda: before_the_end(raw_header(b"4000000", b"x"), bytes(10**6)),
        "too large",
    ),
    "a sparse file": (
        lambda: before_the_end(
            pax("GNU.sparse.size", "99") + pax("GNU.sparse.map", "0,1") + raw_header(b"0")
        ),
        "no plain file",
    ),
}


@pytest.mark.parametrize("case", TARS)
def test_a_hostile_tar_is_refused(case: str, tmp_path: Path) -> None:
    make, words = TARS[case]
    refused = refusal(make(), tmp_path / "d")
    assert refused.code == "malformed_dataset"
    assert words in refused.message


def test_names_of_a_tar_need_not_be_utf_8(tmp_path: Path) -> None:
    content = GOOD.replace(b"bee/0.png", b"b\xe9e/0.png")
    # The checksum is the sum of the header's bytes.
    content = content.replace(_checksum(b"bee/0.png"), _checksum(b"b\xe9e/0.png"))
    (tmp_path / "d").write_bytes(content)
    data = load_dataset(tmp_path / "d", 0.25, seed=0)
    assert data.class_names == ("ant", "bee", "b\ufffde", "cat")


def _checksum(name: bytes) -> bytes:
    entry = tarfile.TarInfo("bee/0.png")
    entry.size = len(encoded(120))
    header = entry.tobuf()
    return f"{int(header[148:154], 8) + sum(name) - sum(b'bee/0.png'):06o}\0".encode()


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_a_compressed_tar_that_is_cut_or_changed_is_refused(
    compression: str, tmp_path: Path
) -> None:
    # Noise, so that several blocks follow the first.
    noise = {"ant/9.png": np.random.default_rng(0).bytes(2**21)}
    whole = tarred(folders() | noise, compression)
    for content in (whole[: 2**20 + 7], whole[:-9], whole[:-30] + bytes(30)):
        refused = refusal(content, tmp_path / "d")
        assert refused.code == "malformed_dataset"
        assert "compressed by" in refused.message
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_tar_inflates_up_to_the_limit_and_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflation, "MAX_BYTES", 64 * 2**20)
    bomb = tarred({"ant/0.png": bytes(100 * 2**20)}, "gz")
    tracemalloc.start()
    refused = refusal(bomb, tmp_path / "d")
    assert tracemalloc.get_traced_memory()[1] < 30 * 2**20
    tracemalloc.stop()
    assert refused.code == "dataset_too_large"
    assert "67,108,864" in refused.message


def test_an_xz_file_may_not_claim_any_memory(tmp_path: Path) -> None:
    greedy = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**30}]
    content = lzma.compress(GOOD, filters=greedy)
    refused = refusal(content, tmp_path / "d")
    assert refused.code == "malformed_dataset"
    modest = lzma.compress(GOOD[:1024]) + lzma.compress(GOOD[1024:], filters=greedy)
    assert "Memory usage limit" in refusal(modest, tmp_path / "d").message


def test_several_streams_and_padding_are_one_file(tmp_path: Path) -> None:
    for compress in (gzip.compress, lzma.compress):
        content = compress(GOOD[:1024]) + compress(GOOD[1024:])
        (tmp_path / "d").write_bytes(content + bytes(8) * (compress is lzma.compress))
        assert load_dataset(tmp_path / "d", 0.25, seed=0).class_names == NAMES


class _Runs:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("touch ran",)


BATCH = {"labels": LABELS, "data": cifar_images().reshape(12, -1)}
PICKLES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a call": (lambda: pickle.dumps({"data": _Runs()}, 2), "posix.system"),
    "a call by protocol 4": (lambda: pickle.dumps({"data": _Runs()}, 4), "posix.system"),
    "eval": (lambda: b"\x80\x02}U\x04datac__builtin__\neval\nU\x011\x85Rs.", "__builtin__.eval"),
    "an instance": (lambda: b"\x80\x02(U\x04dataios\nsystem\n.", "INST"),
    "an object": (lambda: pickle.dumps(Path("x"), 2), "pathlib"),
    "floats": (
        lambda: pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1]}, 2),
        "unsigned bytes",
    ),
    "objects in an array": (lambda: pickle.dumps({"data": np.array([{}])}, 2), "unsigned bytes"),
    "a shape that is not the data's": (
        lambda: python_2_pickle(BATCH).replace(b"J\x00\x0c\x00\x00\x86", b"J\x01\x0c\x00\x00\x86"),
        "reshape",
    ),
    "too few labels": (lambda: python_2_pickle(BATCH | {"labels": [0, 1]}), "12 labels"),
    "labels of text": (lambda: python_2_pickle(BATCH | {"labels": ["a"] * 12}), "whole numbers"),
    "no data": (lambda: python_2_pickle({"labels": LABELS}), "rows of 3,072 bytes"),
    "a list": (lambda: pickle.dumps([1], 2), "no dictionary"),
    "a name that is no array": (lambda: b"\x80\x02cnumpy\nndarray\n.", "no dictionary"),
    "cut": (lambda: python_2_pickle(BATCH)[:999], "not a pickle as"),
    "nothing": (lambda: b"", "not a pickle as"),
    "a stack that is empty": (lambda: b"\x80\x02a.", "empty stack"),
    "a mark that is missing": (lambda: b"\x80\x02}e.", "not a pickle as"),
    "a value never put": (lambda: b"\x80\x02h\x05.", "not a pickle as"),
    "text for data": (lambda: python_2_pickle(BATCH | {"data": "x"}), "rows of 3,072 bytes"),
}


@pytest.mark.parametrize("case", PICKLES)
def test_a_pickle_of_anything_else_is_refused_and_not_run(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, words = PICKLES[case]
    files = cifar_10(cifar_images(), LABELS, list(NAMES))
    refused = refusal(tarred(files | {"cifar-10-batches-py/test_batch": make()}), tmp_path / "d")
    assert (refused.code, refused.param) == (
        "malformed_dataset",
        "cifar-10-batches-py/test_batch",
    )
    assert words in refused.message
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickles_of_newer_pythons_are_read_too(protocol: int, order: Any) -> None:
    data = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3072)
    content = {b"data": np.asarray(data, order=order), "labels": [3, 4], b"name": b"\xe9"}
    found = read_pickle(io.BytesIO(pickle.dumps(content, protocol)), "a batch")
    assert np.array_equal(found["data"], data)
    assert (found["labels"], found["name"]) == ([3, 4], b"\xe9")


def test_a_pickle_may_not_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "_MAX_OPERATIONS", 1000)
    with pytest.raises(InvalidInput, match="more than 1,000 operations"):
        read_pickle(io.BytesIO(b"\x80\x02}" + b"N" * 1000 + b"."), "a batch")
