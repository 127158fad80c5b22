"""What does not come in: the API and the job say alike what was found and what to do."""

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from api.problems import Problem
from atmc_core.errors import InvalidInput
from tests.atmc_core.data.data_files import (
    IMAGES,
    LABELS,
    NAMES,
    SETS,
    arrays,
    encoded,
    flat,
    folders,
    idx,
    npy,
    npz,
    python_2_pickle,
    zipped,
)
from tests.atmc_core.data.reading import inspected, loaded

# What is refused: the file, the code, words of the message. Both the API and the job refuse it.
REFUSED: dict[str, tuple[Callable[[], bytes], str, tuple[str, ...]]] = {
    "train/CLASS/ and flat test/": (
        lambda: zipped(folders("train/") | flat("test")),
        "malformed_dataset",
        ("test/ has images without a class folder", "test/CLASS/"),
    ),
    "the same in a folder": (
        lambda: zipped(folders("set/train/") | flat("set/val")),
        "malformed_dataset",
        ("val/ has images without a class folder",),
    ),
    "flat train/ and test/CLASS/": (
        lambda: zipped(folders("test/") | flat("Train")),
        "malformed_dataset",
        ("Train/ has images without a class folder",),
    ),
    "train/CLASS/ and val/images/": (
        lambda: zipped(folders("train/") | flat("val/images")),
        "malformed_dataset",
        ("val has the class folders images", "ant, bee, cat"),
    ),
    "val/images/ beside val/CLASS/": (
        lambda: zipped(folders("train/") | folders("val/") | flat("val/unlabelled")),
        "malformed_dataset",
        ("unlabelled",),
    ),
    "train/CLASS/ and unlabelled/": (
        lambda: zipped(folders("train/") | flat("unlabelled")),
        "malformed_dataset",
        ("unlabelled/ lies beside folders of splits",),
    ),
    "flat train/, val/, test/": (
        lambda: zipped(flat("train") | flat("val") | flat("test")),
        "malformed_dataset",
        ("test, train, val", "no classes"),
    ),
    "train/cat.0.png and test1/1.png": (
        lambda: zipped(flat("train") | flat("test1")),
        "malformed_dataset",
        ("test1, train",),
    ),
    "one folder of images": (
        lambda: zipped(flat("cats")),
        "malformed_dataset",
        ("single class folder with images, 'cats'",),
    ),
    "one class in each split": (
        lambda: zipped(flat("train/cats") | flat("test/cats")),
        "malformed_dataset",
        ("single class folder",),
    ),
    "one folder of images beside an empty one": (
        lambda: zipped(flat("images") | {"labels/": b""}),
        "malformed_dataset",
        ("images", "put the images of each class into a folder of its own"),
    ),
    "images in no folder": (
        lambda: zipped({"1.png": encoded(7)}),
        "malformed_dataset",
        ("neither in CLASS/",),
    ),
    "train/cat and test/Cat": (
        lambda: zipped(folders("train/") | folders("test/", ("ant", "Bee", "cat"))),
        "malformed_dataset",
        ("'bee' in train", "'Bee' in test", "case"),
    ),
    "a name of backslashes that leads out": (
        lambda: zipped(folders() | {"..\\ant\\9.png": encoded(40)}),
        "malformed_dataset",
        ("leads out",),
    ),
    "a name with a drive": (
        lambda: zipped(folders() | {"C:\\ant\\9.png": encoded(40)}),
        "malformed_dataset",
        ("leads out",),
    ),
    "a name twice, with a slash and a backslash": (
        lambda: zipped(folders() | {"ant\\0.png": encoded(40)}),
        "malformed_dataset",
        ("twice",),
    ),
    "arrays in the archive": (
        lambda: zipped(folders() | {"data.h5": b"x"}),
        "malformed_dataset",
        ("'data.h5' is neither PNG nor JPEG", ".npz"),
    ),
    "labels in a table": (
        lambda: zipped(folders() | {"labels.csv": b"x"}),
        "malformed_dataset",
        ("labels are read off the folders' names",),
    ),
    "two configurations": (
        lambda: zipped({f"{c}/train/0000.parquet": SETS["train"] for c in ("a", "b")}),
        "malformed_dataset",
        ("two configurations",),
    ),
    "Parquet of no split": (
        lambda: zipped({"0000.parquet": SETS["train"]}),
        "malformed_dataset",
        ("says train, validation or test",),
    ),
    "Parquet beside images": (
        lambda: zipped({"train.parquet": SETS["train"], "0.png": encoded(7)}),
        "malformed_dataset",
        ("'0.png' lies among Parquet files",),
    ),
    "float images": (
        lambda: npz(x_train=(IMAGES / 255).astype("f4")),
        "bad_array",
        ("float32 [12, 8, 8, 3]", "multiply by 255 and round", "astype('uint8')"),
    ),
    "float images in safetensors": (
        lambda: safetensors.numpy.save(arrays(x_test=(IMAGES / 255).astype("f4"))),
        "bad_array",
        ("float32", "multiply by 255"),
    ),
    "images of int64": (
        lambda: npz(x_train=IMAGES.astype("i8")),
        "bad_array",
        ("int64", "x_train.astype('uint8')"),
    ),
    "images of uint16": (
        lambda: npz(x_train=IMAGES.astype(">u2")),
        "bad_array",
        (">u2", "// 257"),
    ),
    "images [N, C, H, W]": (
        lambda: npz(x_train=IMAGES.transpose(0, 3, 1, 2).copy()),
        "bad_array",
        ("[12, 3, 8, 8]", "x_train.transpose(0, 2, 3, 1)"),
    ),
    "images in rows": (
        lambda: npz(x_train=IMAGES.reshape(12, -1)),
        "bad_array",
        ("x_train.reshape(N, H, W, C)",),
    ),
    "float labels": (
        lambda: npz(y_train=np.array(LABELS, "f4")),
        "bad_array",
        ("float32 [12]", "astype('int64')"),
    ),
    "one-hot labels": (
        lambda: npz(y_test=np.eye(3, dtype="f4")[LABELS]),
        "bad_array",
        ("float32 [12, 3]", "y_test.argmax(axis=1)"),
    ),
    "labels in one row": (lambda: npz(y_train=np.array([LABELS])), "bad_array", ("reshape(-1)",)),
    "another case of y_test": (
        lambda: zipped(
            {f"{n}.npy": npy(a) for n, a in arrays().items() if n != "y_test"}
            | {"Y_test.npy": npy(np.array(LABELS))}
        ),
        "bad_array",
        ("y_test",),
    ),
    "a model's tensors": (
        lambda: safetensors.numpy.save({"conv1.weight": IMAGES, "conv1.bias": IMAGES}),
        "bad_array",
        ("x_train", "conv1.weight"),
    ),
    "labels as text": (
        lambda: npz(y_train=np.array(NAMES)[LABELS]),
        "bad_array",
        ("<U3", "np.unique(y_train, return_inverse=True)[1]"),
    ),
}


@pytest.mark.parametrize("form", REFUSED)
def test_is_refused_by_both_sides_with_what_to_do(form: str, tmp_path: Path) -> None:
    make, code, words = REFUSED[form]
    with pytest.raises(InvalidInput) as refused:
        loaded(make(), tmp_path / "d")
    with pytest.raises(Problem) as problem:
        inspected(make())
    assert refused.value.code == problem.value.code == code
    for message in (str(refused.value), problem.value.detail):
        assert all(word in message for word in words), message


KINDS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "CSV": (b"label,p0\n1,2\n", "CSV"),
    "JSON": (b'{"a": 1}', "JSON"),
    "a table that begins as a BMP": (b"BMI,age\n20,30\n", "CSV"),
    "BMP": (encoded(7, "BMP"), "a BMP image"),
    "text": (b"hello\n", "text"),
    "a page": (b"\n<!DOCTYPE html><html>", "web page"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    ".npy": (npy(IMAGES), "single NumPy array"),
    "a pickle": (pickle.dumps({b"data": IMAGES, b"labels": LABELS}), "Nothing was run"),
    "an old pickle": (pickle.dumps({"a": [1]}, 0), "Nothing was run"),
    "CIFAR's batch": (python_2_pickle({"labels": LABELS}), "archive that they are published in"),
    ".mat": (b"MATLAB 5.0 MAT-file, Platform" + bytes(99), "MATLAB"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "7z"),
    "RAR": (b"Rar!\x1a\x07\x01\0" + bytes(99), "RAR"),
    "Arrow": (b"ARROW1\0\0" + bytes(99), "Arrow"),
    "PNG": (encoded(7), "single PNG"),
    "JPEG": (encoded(7, "JPEG"), "single JPEG"),
    "WebP": (encoded(7, "WEBP"), "WebP"),
    "idx": (idx(IMAGES[..., 0]), "one idx file"),
    "idx.gz": (gzip.compress(idx(IMAGES[..., 0])), "one idx file, compressed by gzip"),
    "csv.gz": (gzip.compress(b"a,b\n1,2\n"), "CSV, compressed by gzip"),
    "npz.gz": (gzip.compress(npz()), "no tar archive"),
    "an empty zip": (zipped({}), "empty zip"),
    "Zstandard": (b"\x28\xb5\x2f\xfd" + bytes(99), "Zstandard"),
    "unknown": (bytes(range(128, 256)), "no known kind"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_another_file_is_called_by_its_kind(kind: str, tmp_path: Path) -> None:
    content, words = KINDS[kind]
    with pytest.raises(InvalidInput) as refused:
        loaded(content, tmp_path / "d")
    with pytest.raises(Problem) as problem:
        inspected(content)
    assert refused.value.code == problem.value.code == "malformed_dataset"
    for message in (str(refused.value), problem.value.detail):
        assert words in message
        assert "Taken are" in message


def test_what_a_zip_calls_an_image_is_called_by_its_kind(tmp_path: Path) -> None:
    for content, words in (
        (encoded(7, "WEBP"), "a WebP image"),
        (b"<html>", "a web page"),
        (b"", "empty"),
        (encoded(7)[:12], "its header is broken"),
    ):
        with pytest.raises(InvalidInput) as refused:
            loaded(zipped(folders() | {"ant/9.jpg": content}), tmp_path / "d")
        assert refused.value.code == "bad_image"
        assert words in str(refused.value)
        assert "0x" not in str(refused.value)
