"""What a data set says of itself, and how one that cannot be used is refused."""

import io
import zipfile
from typing import Any

import numpy as np
import pytest

from api.inspection import ArrayHeader, read_dataset_header
from api.problems import Problem
from tests.api import files
from tests.atmc_core.data.data_files import tarred

LIMIT = 2**30


def refused(content: bytes, limit: int = LIMIT) -> Problem:
    with pytest.raises(Problem) as caught:
        read_dataset_header(io.BytesIO(content), limit)
    return caught.value


def changed(**arrays: Any) -> bytes:
    """A data set of which some arrays are others, or None: missing."""
    whole = files.images() | arrays
    return files.npz_file({name: array for name, array in whole.items() if array is not None})


@pytest.mark.parametrize("compressed", [True, False])
def test_a_data_set_tells_types_and_shapes(compressed: bool) -> None:
    arrays = files.images(20) | {
        "x_train": np.zeros((30, 8, 8, 1), "uint8"),
        "y_train": np.zeros(30, ">i2"),
        "x_val": np.asfortranarray(np.zeros((5, 8, 8), "uint8")),
        "y_val": np.zeros(5, "uint8"),
    }
    content = files.npz_file(arrays, compressed=compressed)
    assert read_dataset_header(io.BytesIO(content), LIMIT) == {
        "x_train": ArrayHeader("uint8", (30, 8, 8, 1)),
        "y_train": ArrayHeader(">i2", (30,)),
        "x_test": ArrayHeader("uint8", (20, 8, 8)),
        "y_test": ArrayHeader("int64", (20,)),
        "x_val": ArrayHeader("uint8", (5, 8, 8)),
        "y_val": ArrayHeader("uint8", (5,)),
    }


@pytest.mark.parametrize(
    ("arrays", "param", "found", "expected"),
    [
        ({"x_train": np.zeros((20, 8, 8))}, "x_train", "float64 [20, 8, 8]", "uint8 [N, H, W]"),
        ({"x_test": np.zeros((20, 64), "uint8")}, "x_test", "uint8 [20, 64]", "[N, H, W, C]"),
        ({"y_train": np.zeros(20)}, "y_train", "float64 [20]", "integers [N]"),
        ({"y_train": np.zeros(20, bool)}, "y_train", "bool [20]", "integers [N]"),
        ({"y_test": np.zeros((20, 10), int)}, "y_test", "int64 [20, 10]", "integers [N]"),
        ({"y_test": np.zeros(19, int)}, "y_test", "19 labels", "20 images"),
        ({"y_train": None}, "y_train", "missing", "x_train"),
        ({"x_val": np.zeros((2, 8, 8), "uint8")}, "y_val", "missing", "x_val"),
        ({"X_val": np.zeros((2, 8, 8), "uint8")}, "X_val", "not an array of", "x_val"),
    ],
)
def test_an_array_that_cannot_be_used_is_named_with_what_it_is_and_should_be(
    arrays: dict[str, Any], param: str, found: str, expected: str
) -> None:
    problem = refused(changed(**arrays))
    assert (problem.code, problem.param) == ("bad_array", param)
    assert found in problem.detail
    assert expected in problem.detail


def test_an_array_of_objects_is_refused() -> None:
    structure = np.zeros(20, np.dtype([("label", "i4"), ("name", "O")]))
    for labels in (np.array([None] * 20), structure):
        problem = refused(changed(y_train=labels))
        assert (problem.code, problem.param) == ("object_array", "y_train")


def test_a_data_set_that_inflates_past_the_limit_is_refused_unread() -> None:
    content = changed(x_train=np.zeros((1000, 64, 64), "uint8"))
    assert len(content) < 10_000
    problem = refused(content, limit=1_000_000)
    assert problem.code == "dataset_too_large"
    assert "1000000 are allowed" in problem.detail


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + data


def with_member(content: bytes, **options: Any) -> bytes:
    members = {f"{name}.npy": npy_of(array) for name, array in files.images().items()}
    return files.zip_file(members | {"x_train.npy": content}, **options)


def npy_of(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "member",
    {
        "empty": b"",
        "text": b"not an array",
        "a pickle": b"\x80\x04N.",
        "no header": b"\x93NUMPY\x01\x00",
        "a header of 4 GB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
        "version 9": npy("{}", version=9),
        "keys missing": npy("{'descr': '|u1'}"),
        "keys of other types": npy("{1: 2, 'descr': '|u1'}"),
        "nested": npy("(" * 900),
        "minus signs": npy("-" * 900 + "1"),
        "no dtype": npy("{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,)}"),
        "a strange dtype": npy("{'descr': (), 'fortran_order': False, 'shape': (1,)}"),
        "a shape below zero": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,)}"),
        "a shape of booleans": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (True,)}"),
        "less data than its shape": npy(
            "{'descr': '|u1', 'fortran_order': False, 'shape': (20, 8, 8)}", bytes(1279)
        ),
        "more data than its shape": npy(
            "{'descr': '|u1', 'fortran_order': False, 'shape': (20, 8, 8)}", bytes(1281)
        ),
    }.items(),
    ids=lambda case: case[0],
)
def test_a_member_that_is_no_array_is_malformed_and_named(member: tuple[str, bytes]) -> None:
    problem = refused(with_member(member[1]))
    assert (problem.code, problem.param) == ("malformed_dataset", "x_train")


def test_a_member_compressed_by_an_unusual_method_is_malformed() -> None:
    content = npy_of(files.images()["x_train"])
    assert refused(with_member(content, compression=zipfile.ZIP_LZMA)).code == "malformed_dataset"


def patched(content: bytes, offset: int, value: bytes) -> bytes:
    """The file with a field of its first directory entry overwritten."""
    start = content.index(b"PK\x01\x02") + offset
    return content[:start] + value + content[start + len(value) :]


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (8, b"\x01\x00", "encrypted"),
        (20, b"\xf0\xff\xff\x00", "past the end"),
        (24, b"\xf0\xff\xff\x7f", "cannot hold"),
        (42, b"\xf0\xff\xff\x00", "past the end"),
    ],
    ids=["encrypted", "compressed size", "size", "offset"],
)
def test_a_directory_that_lies_is_malformed(offset: int, value: bytes, reason: str) -> None:
    problem = refused(patched(files.npz_file(), offset, value))
    assert problem.code == "malformed_dataset"
    assert reason in problem.detail


def test_sizes_in_a_zip64_field_are_not_believed_either() -> None:
    # 0xFFFFFFFF sends the reader to the extra field, which is not there.
    assert refused(patched(files.npz_file(), 24, b"\xff" * 4)).code == "malformed_dataset"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"x" * 100])
def test_a_file_that_is_no_archive_is_malformed(content: bytes) -> None:
    assert refused(content).code == "malformed_dataset"


def test_a_data_set_that_is_cut_anywhere_is_malformed() -> None:
    content = files.npz_file()
    for length in range(0, len(content) - 1, 41):
        assert refused(content[:length]).code == "malformed_dataset"


def test_a_tar_larger_than_the_limit_is_refused() -> None:
    problem = refused(tarred({"ant/1.png": bytes(20_000)}), limit=10_000)
    assert problem.code == "dataset_too_large"
    assert "10000 are allowed" in problem.detail


def test_a_symbolic_link_in_a_zip_is_refused_by_name() -> None:
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = 0o120777 << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    problem = refused(file.getvalue())
    assert (problem.code, problem.param) == ("malformed_dataset", "cat/link.png")
    assert "symbolic link" in problem.detail


def test_arrays_whose_names_differ_by_case_only_are_refused() -> None:
    members = {f"{name}.npy": npy_of(array) for name, array in files.images().items()}
    problem = refused(files.zip_file(members | {"X_train.npy": npy_of(np.zeros(2))}))
    assert problem.code == "malformed_dataset"
    assert "case" in problem.detail
