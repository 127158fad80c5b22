"""What comes in and how: each row of the table in docs/formats.md, read by the API and the job."""

import gzip
import io
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest
import safetensors.numpy
from PIL import Image
from pyarrow import parquet

from api.inspection import read_dataset_header
from api.problems import Problem
from atmc_core.data import DataSet, Reading, load_dataset
from atmc_core.errors import InvalidInput
from tests.atmc_core.data.data_files import (
    cifar_10,
    cifar_100,
    idx,
    npy,
    python_2_pickle,
    tarred,
    zipped,
)

SIDE = 8
LABELS = [0, 1, 2] * 4
# All pixels of an image say its class, so that a moved label shows.
VALUES = np.array([40, 120, 200], np.uint8)
IMAGES = np.broadcast_to(VALUES[LABELS][:, None, None, None], (12, SIDE, SIDE, 3)).copy()
NAMES = ("ant", "bee", "cat")


def encoded(value: int, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels = np.full((SIDE, SIDE, 3), value, np.uint8)
    if options.pop("previews", False):
        small = Image.fromarray(pixels[: SIDE // 2, : SIDE // 2] // 2)
        options |= {"save_all": True, "append_images": [small]}
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def folders(prefix: str = "", classes: tuple[str, ...] = NAMES, n: int = 4) -> dict[str, bytes]:
    """``n`` images of each class, the classes in the order of ``VALUES``."""
    return {
        f"{prefix}{name}/{i}.png": encoded(int(value))
        for name, value in zip(classes, VALUES, strict=False)
        for i in range(n)
    }


def flat(folder: str, n: int = 3) -> dict[str, bytes]:
    return {f"{folder}/{i}.png": encoded(7) for i in range(n)}


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    labels = np.array(LABELS)
    named = {"x_train": IMAGES, "y_train": labels, "x_test": IMAGES, "y_test": labels}
    return named | changes


def npz(**changes: np.ndarray) -> bytes:
    return zipped({f"{name}.npy": npy(array) for name, array in arrays(**changes).items()})


def rows(names: tuple[str, ...] = ()) -> bytes:
    """A Parquet file in the layout of Hugging Face's hub."""
    images = [{"bytes": encoded(int(VALUES[label])), "path": None} for label in LABELS]
    table = arrow.table({"image": images, "label": LABELS})
    if names:
        info = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


def cifar_images() -> np.ndarray:
    return np.broadcast_to(VALUES[LABELS][:, None, None, None], (12, 3, 32, 32)).copy()


def idx_files() -> dict[str, bytes]:
    images, labels = idx(IMAGES[..., 0]), idx(np.array(LABELS, np.uint8))
    return {
        "train-images-idx3-ubyte.gz": gzip.compress(images),
        "train-labels-idx1-ubyte": labels,
        "t10k-images.idx3-ubyte": images,
        "t10k-labels-idx1-ubyte.gz": gzip.compress(labels),
    }


SPLIT = folders("train/") | folders("test/")
HUB = {"README.md": b"#", ".gitattributes": b"*", "dataset_infos.json": b"{}"}
SETS = {"train": rows(NAMES), "test": rows(NAMES)}
LITTER = {
    "__MACOSX/ant/._0.png": b"litter",
    ".DS_Store": b"litter",
    "train/Thumbs.db": b"litter",
    "train/ant/desktop.ini": b"litter",
    "train/@eaDir/0.png": encoded(7),
    "train/ant/.ipynb_checkpoints/0-checkpoint.png": encoded(7),
    "train/.thumbnails/": b"",
    ".Trashes/501/0.png": encoded(7),
    "test/.gitkeep": b"",
    "$RECYCLE.BIN/x/0.png": encoded(7),
    "README.md": b"#",
    "LICENSE": b"MIT",
}


def backslashed(members: Mapping[str, bytes]) -> bytes:
    return zipped({name.replace("/", "*"): content for name, content in members.items()}).replace(
        b"*", b"\\"
    )


def safetensors_file() -> bytes:
    return safetensors.numpy.save(arrays())


# The rows of the table: the file, the names of its classes, and whether it has a test split.
FORMS: dict[str, tuple[Callable[[], bytes], tuple[str, ...], bool]] = {
    "train/CLASS/*.png, test/CLASS/*.png": (lambda: zipped(SPLIT), NAMES, True),
    "CLASS/*.png": (lambda: zipped(folders()), NAMES, False),
    "CLASS/*.jpg, with small pictures inside (MPO)": (
        lambda: zipped(folders() | {"cat/9.JPG": encoded(200, "MPO", previews=True)}),
        NAMES,
        False,
    ),
    "folders around everything": (
        lambda: zipped({f"a/b/{name}": content for name, content in SPLIT.items()}),
        NAMES,
        True,
    ),
    "training_set/, testing/": (
        lambda: zipped(folders("training_set/") | folders("testing/")),
        NAMES,
        True,
    ),
    "an empty class folder": (
        lambda: zipped(folders(classes=("bee", "cat", "dog")) | {"ant/": b""}),
        ("ant", "bee", "cat", "dog"),
        False,
    ),
    "a class folder that is empty but for .gitkeep": (
        lambda: tarred(folders(classes=("bee", "cat", "dog")) | {"ant/.gitkeep": b""}),
        ("ant", "bee", "cat", "dog"),
        False,
    ),
    "hidden files, litter, README": (lambda: zipped(SPLIT | LITTER), NAMES, True),
    "backslashes in names": (lambda: backslashed(SPLIT), NAMES, True),
    "names that differ by case": (
        lambda: zipped(folders() | {"ant/0.PNG": encoded(40)}),
        NAMES,
        False,
    ),
    "a class called train": (
        lambda: zipped(folders(classes=("bus", "car", "train"))),
        ("bus", "car", "train"),
        False,
    ),
    ".tar": (lambda: tarred({"./": b"", "./train/": b""} | SPLIT | LITTER), NAMES, True),
    ".tar.gz": (lambda: tarred(SPLIT, "gz"), NAMES, True),
    ".tar.bz2": (lambda: tarred(SPLIT, "bz2"), NAMES, True),
    ".tar.xz": (lambda: tarred(SPLIT, "xz"), NAMES, True),
    "idx": (lambda: zipped(idx_files()), (), True),
    "idx, beside a README": (lambda: tarred(idx_files() | {"README.txt": b""}, "gz"), (), True),
    "Parquet": (lambda: rows(NAMES), NAMES, False),
    "train-00000-of-00001.parquet": (
        lambda: zipped({f"{split}-00000-of-00001.parquet": SETS[split] for split in SETS}),
        NAMES,
        True,
    ),
    "train_0.parquet, beside a script": (
        lambda: zipped({"a/train_0.parquet": SETS["train"], "a/test.parquet": SETS["test"]} | HUB),
        NAMES,
        True,
    ),
    "data/train-00000-of-00001.parquet, as the Hub's repository": (
        lambda: zipped(
            HUB | {f"set/data/{split}-00000-of-00001.parquet": SETS[split] for split in SETS}
        ),
        NAMES,
        True,
    ),
    "CONFIG/train/0000.parquet, as the Hub converts": (
        lambda: tarred({f"plain_text/{split}/0000.parquet": SETS[split] for split in SETS}),
        NAMES,
        True,
    ),
    "cifar-10-python.tar.gz": (
        lambda: tarred(cifar_10(cifar_images(), LABELS, list(NAMES)), "gz"),
        NAMES,
        True,
    ),
    "cifar-100-python.tar.gz": (
        lambda: tarred(cifar_100(cifar_images(), LABELS, list(NAMES)), "gz"),
        NAMES,
        True,
    ),
    "CIFAR-10, unpacked and zipped": (
        lambda: zipped(cifar_10(cifar_images(), LABELS, list(NAMES))),
        NAMES,
        True,
    ),
    ".npz": (npz, (), True),
    "safetensors": (safetensors_file, (), True),
    ".npy files in a folder": (
        lambda: tarred({f"d/{name}.npy": npy(array) for name, array in arrays().items()}, "gz"),
        (),
        True,
    ),
    "labels [N, 1]": (lambda: npz(y_train=np.array(LABELS)[:, None]), (), True),
    "labels big-endian": (lambda: npz(y_train=np.array(LABELS, ">i4")), (), True),
    "arrays in Fortran's order": (
        lambda: npz(x_train=np.asfortranarray(IMAGES), y_test=np.array(LABELS, "u1")),
        (),
        True,
    ),
    "images [N, H, W]": (
        lambda: npz(x_train=IMAGES[..., 0].copy(), x_test=IMAGES[..., 0].copy()),
        (),
        True,
    ),
}


def test_the_table_in_the_docs_has_these_rows() -> None:
    page = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    table = page.split("| what is sent | how it is taken |\n|---|---|\n")[1].split("\n\n")[0]
    told = [line.split(" | ")[0].removeprefix("| ").replace("`", "") for line in table.split("\n")]
    assert sorted(told) == sorted(FORMS)


def inspected(content: bytes) -> None:
    read_dataset_header(io.BytesIO(content), 2**30)


def loaded(content: bytes, path: Path, channels: int = 3) -> DataSet:
    path.write_bytes(content)
    return load_dataset(path, 0.25, seed=0, reading=Reading(channels, path.parent))


@pytest.mark.parametrize("form", FORMS)
def test_comes_in_with_each_label_at_its_image(form: str, tmp_path: Path) -> None:
    make, names, has_test = FORMS[form]
    inspected(make())
    data = loaded(make(), tmp_path / "d")
    assert data.class_names == names
    values = {0: 40, 1: 120, 2: 200} if "empty" not in form else {1: 40, 2: 120, 3: 200}
    for split in (data.train, data.val, data.test):
        means = split.images.flatten(1).float().mean(1)
        assert len(split)
        assert [abs(m - values[int(y)]) < 3 for m, y in zip(means, split.labels, strict=True)] == [
            True
        ] * len(split)
    assert ("test_split_cut" in dict(data.notes)) != has_test
    # What was inflated is gone: the map of a data set's images has no name.
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


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
