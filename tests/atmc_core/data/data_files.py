"""Archives of data sets in the forms in which they are published and packed."""

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as arrow
from PIL import Image
from pyarrow import parquet

SIDE = 8
LABELS = [0, 1, 2] * 4
# All pixels of an image say its class, so that a moved label shows.
VALUES = np.array([40, 120, 200], np.uint8)
IMAGES = np.broadcast_to(VALUES[LABELS][:, None, None, None], (12, SIDE, SIDE, 3)).copy()
NAMES = ("ant", "bee", "cat")


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these members; a name that ends in a slash is a folder's entry."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members: Mapping[str, bytes], compression: str = "") -> bytes:
    """A tar of these members (``gz``, ``bz2``, ``xz``); names that end in a slash are folders."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def idx(array: np.ndarray) -> bytes:
    """An idx file of unsigned bytes."""
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def python_2_pickle(content: Mapping[str, object]) -> bytes:
    """The dictionary as Python 2 and its NumPy pickled CIFAR's batches, operation by operation."""
    items = b"".join(_value(key) + _value(value) for key, value in content.items())
    return b"\x80\x02}q\x01(" + items + b"u."


def _value(value: object) -> bytes:
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode("latin-1")
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"]q\x02(" + b"".join(map(_value, value)) + b"e"
    assert isinstance(value, np.ndarray)
    assert value.dtype == np.uint8
    shape = b"".join(map(_value, value.shape)) + b"\x86"
    data = b"T" + struct.pack("<i", value.nbytes) + value.tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\t"
        b"(K\x01" + shape + b"cnumpy\ndtype\nq\x0bU\x02u1K\x00K\x01\x87Rq\x0c"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + data + b"tb"
    )


def cifar_10(images: np.ndarray, labels: list[int], names: list[str]) -> dict[str, bytes]:
    """CIFAR-10's files: two batches and a test batch, each with these images ``[N, 3, 32, 32]``."""
    batch: dict[str, object] = {
        "batch_label": "training batch 1 of 5",
        "labels": labels,
        "data": images.reshape(len(images), -1),
        "filenames": [f"{i}.png" for i in range(len(images))],
    }
    meta = python_2_pickle({"num_cases_per_batch": 10, "label_names": names, "num_vis": 3072})
    files = dict.fromkeys(("data_batch_1", "data_batch_2", "test_batch"), python_2_pickle(batch))
    files |= {"batches.meta": meta, "readme.html": b"<html>"}
    return {f"cifar-10-batches-py/{name}": content for name, content in files.items()}


def cifar_100(images: np.ndarray, labels: list[int], names: list[str]) -> dict[str, bytes]:
    """CIFAR-100's files, with the same images in both splits."""
    part = python_2_pickle(
        {
            "filenames": [f"{i}.png" for i in range(len(images))],
            "fine_labels": labels,
            "coarse_labels": [0] * len(labels),
            "data": images.reshape(len(images), -1),
        }
    )
    meta = python_2_pickle({"fine_label_names": names, "coarse_label_names": ["all"]})
    files = {"train": part, "test": part, "meta": meta, "file.txt~": b""}
    return {f"cifar-100-python/{name}": content for name, content in files.items()}


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


SETS = {"train": rows(NAMES), "test": rows(NAMES)}
