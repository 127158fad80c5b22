"""Whatever bytes come, the inspections return a header or refuse with a problem of their own."""

import argparse
import io
import json
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.inspection import fit, read_dataset_header, read_model_header
from api.problems import CODES, Problem
from tests.api import files
from tests.atmc_core.data.data_files import tarred, zipped

LIMIT = 10_000

FUZZ = settings(
    max_examples=120,
    # The same cases on every run: a failure here is a failure everywhere.
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


def read_dataset(file: io.BytesIO) -> Any:
    return read_dataset_header(file, LIMIT)


def read_and_fit(file: io.BytesIO) -> Any:
    document = {"tensors": FITTED, "compressible": ["a.weight"]}
    return fit(read_model_header(file).state_dicts, "net", document)


READERS: list[Callable[[io.BytesIO], Any]] = [read_model_header, read_and_fit, read_dataset]


def read_safely(content: bytes) -> None:
    for read in READERS:
        # numpy warns of headers that Python 2 may have written.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            problem = refusal(read, content)
        if problem is not None:
            assert problem.code in CODES
            assert len(problem.detail) < 1600
            assert problem.param is None or len(problem.param) < 100
            # It can be sent, whatever stood in the file.
            json.loads(problem.response().body)


def refusal(read: Callable[[io.BytesIO], Any], content: bytes) -> Problem | None:
    try:
        read(io.BytesIO(content))
    except Problem as problem:
        return problem
    return None


SMALL_STATE = {"a.weight": torch.zeros(3, 2), "a.bias": torch.zeros(3, dtype=torch.float16)}
FITTED = {"a.weight": {"shape": [3, 2]}, "a.bias": {"shape": ["num_classes"]}}
PRUNED = {"module.a.weight_orig": torch.ones(3, 2), "module.a.weight_mask": torch.ones(3, 2)}
CHECKPOINT = {
    "epoch": 3,
    "optimizer": {"state": {0: {"step": torch.zeros(())}}, "param_groups": [{"lr": 0.1}]},
    "names": ["ant", ("bee", None)],
    "model": PRUNED | {"module.a.bias": torch.zeros(3)},
}
GOOD = {
    "checkpoint": files.torch_file(CHECKPOINT),
    "checkpoint with an object": files.torch_file(CHECKPOINT | {"args": argparse.Namespace(a=1)}),
    "pruned safetensors": files.safetensors_file(
        {name: tensor.numpy() for name, tensor in CHECKPOINT["model"].items()}  # type: ignore[attr-defined]
    ),
    "safetensors": files.safetensors_file({"a": np.zeros((2, 3), "float32"), "b": np.zeros(2)}),
    "torch": files.torch_file(SMALL_STATE),
    "npz": files.npz_file(files.images(3)),
    "zip of folders": zipped({f"set\\train\\{c}\\1.png": b"x" for c in "ab"} | {"README.md": b""}),
    "zip of Parquet": zipped({"data/train-0.parquet": b"PAR1", "data/.gitattributes": b""}),
    "tar": tarred({"a/1.png": b"x", "b/1.png": b"y"}),
    "tar.gz": tarred({"a/1.png": b"x", "b/1.png": b"y"}, "gz"),
    "tar.xz": tarred({"a/1.png": b"x", "b/1.png": b"y"}, "xz"),
    "npz stored": files.npz_file(files.images(3), compressed=False),
}


@FUZZ
@given(st.binary(max_size=500), st.sampled_from([b"", b"PK\x03\x04", b"\x20" + bytes(7) + b"{"]))
def test_random_bytes(content: bytes, magic: bytes) -> None:
    read_safely(magic + content)


@pytest.mark.parametrize("kind", GOOD)
@FUZZ
@given(st.data())
def test_good_files_with_bytes_changed(kind: str, data: st.DataObject) -> None:
    content = bytearray(GOOD[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        # Headers and directories lie at the ends of a file.
        distance = data.draw(st.integers(0, min(600, len(content) - 1)))
        position = distance if data.draw(st.booleans()) else len(content) - 1 - distance
        content[position] = data.draw(st.integers(0, 255))
    read_safely(bytes(content))


@pytest.mark.parametrize("kind", GOOD)
@FUZZ
@given(st.data())
def test_good_files_with_a_piece_cut_out_or_doubled(kind: str, data: st.DataObject) -> None:
    content = GOOD[kind]
    start, end = sorted(data.draw(st.tuples(*2 * [st.integers(0, len(content))])))
    piece = content[start:end]
    read_safely(content[:start] + data.draw(st.sampled_from([b"", piece * 2])) + content[end:])


# Surrogates included: JSON and pickles may hold what UTF-8 cannot.
TEXT = st.text(st.characters() | st.characters(categories=["Cs"]), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "F99"]) | JSON,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 20), min_size=2, max_size=2) | JSON,
    }
)


@FUZZ
@given(st.dictionaries(TEXT, ENTRY | JSON, max_size=3) | JSON, st.binary(max_size=24))
def test_any_json_as_a_safetensors_header(header: Any, data: bytes) -> None:
    read_safely(files.safetensors_raw(json.dumps(header).encode(), data))


OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


@FUZZ
@given(st.lists(st.sampled_from(OPCODES) | st.binary(max_size=6), max_size=40))
def test_any_opcodes_as_an_index(opcodes: list[bytes]) -> None:
    read_safely(files.torch_zip(b"\x80\x02" + b"".join(opcodes) + b"."))


@FUZZ
@given(st.data())
def test_the_index_of_a_good_file_with_bytes_changed(data: st.DataObject) -> None:
    content = bytearray(INDEX)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    read_safely(files.torch_zip(bytes(content), **{"0": bytes(24), "1": bytes(6)}))


INDEX = zipfile.ZipFile(io.BytesIO(GOOD["torch"])).read("archive/data.pkl")


@FUZZ
@given(JSON)
def test_any_pickled_value_as_an_index(value: Any) -> None:
    read_safely(files.torch_zip(pickle.dumps(value, protocol=2)))


@FUZZ
@given(
    st.fixed_dictionaries(
        {
            "descr": st.sampled_from(["|u1", "<i8", "O", "V0", ("<i4", (2,)), [("a", "O")], []])
            | JSON,
            "fortran_order": st.booleans() | JSON,
            "shape": st.tuples(st.integers(-1, 9), st.integers(0, 9)) | JSON,
        }
    )
    | JSON,
    st.integers(1, 3),
)
def test_any_literal_as_an_array_header(header: Any, version: int) -> None:
    text = repr(header).encode(errors="replace")
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    member = b"\x93NUMPY" + bytes([version, 0]) + length + text + bytes(8)
    read_safely(files.zip_file({"x_train.npy": member}))
