"""Small files in the forms that the service takes, good ones and their parts, for benchmarks."""

import io
import json
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import numpy as np
import onnx
import pyarrow as arrow
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pyarrow import parquet
from safetensors.torch import load

from benchmarks.small_job import uploads

CLASSES = [str(digit) for digit in range(10)]


@cache
def good_models() -> dict[str, bytes]:
    """Networks that a job can work with."""
    plain, _ = uploads()
    tensors = weights()
    return {
        "safetensors": plain,
        "torch": saved(tensors),
        "torch, nested": saved({"epoch": 3, "state_dict": tensors}),
        "torch, legacy": saved(tensors, _use_new_zipfile_serialization=False),
        "onnx": network().SerializeToString(),
    }


@cache
def good_datasets() -> dict[str, bytes]:
    """Data sets of 8x8 digits in the forms that are taken."""
    _, arrays = uploads()
    folders = {
        f"{split}/{name}": image for split in ("train", "test") for name, image in pictures()
    }
    return {
        "npz": arrays,
        "zip of folders": zipped(folders),
        "zip, stored": zipped(folders, zipfile.ZIP_STORED),
        "zip with backslashes": zipped(folders).replace(b"/", b"\\"),
        "zip with hidden folders": zipped(folders | {"__MACOSX/._x": b"", ".git/HEAD": b"ref"}),
        "zip, names in two cases": zipped(folders | {"train/A/1.png": b"", "train/a/1.png": b""}),
        "zip, an empty class": zipped(folders | {"train/none/": b""}),
        "tar": tarred(folders),
        "tar.gz": tarred(folders, "w:gz"),
        "tar.xz": tarred(folders, "w:xz"),
        "zip of Parquet": zipped(dict.fromkeys(("train.parquet", "test.parquet"), parquet_file())),
        "zip of idx": zipped({"train-images-idx3-ubyte": idx(), "train-labels-idx1-ubyte": b""}),
    }


def weights() -> dict[str, torch.Tensor]:
    """The weights of the small network."""
    return load(uploads()[0])


def saved(value: object, **options: Any) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def torch_zip(index: bytes, **members: bytes) -> bytes:
    """A `.pt` file with any index and members."""
    return zipped(
        {"archive/data.pkl": index}
        | {f"archive/data/{name}": data for name, data in members.items()}
    )


def raw_safetensors(header: bytes, data: bytes = bytes(8)) -> bytes:
    """A safetensors file with this header, whatever it says."""
    return struct.pack("<Q", len(header)) + header + data


def safetensors(header: dict[str, Any]) -> bytes:
    """A safetensors file with this header of eight bytes."""
    return raw_safetensors(json.dumps(header).encode())


def network(weight: float = 0.1) -> onnx.ModelProto:
    """A small convolutional network for 8x8 images."""
    draw = np.random.default_rng(0)
    filters = (draw.standard_normal((4, 1, 3, 3)) * weight).astype("f4")
    matrix = (draw.standard_normal((10, 4)) * weight).astype("f4")
    nodes = [
        helper.make_node("Conv", ["images", "filters"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "matrix"], ["scores"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(filters, "filters"), numpy_helper.from_array(matrix, "matrix")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pictures() -> list[tuple[str, bytes]]:
    """Pictures by their names, four of each class."""
    return [(f"{name}/{n}.png", _png(25 * int(name) + n)) for name in CLASSES for n in range(4)]


def _png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), value % 256, np.uint8)).save(file, "PNG")
    return file.getvalue()


def png_claim() -> bytes:
    """A picture whose header says that it is 46,341 pixels wide and high."""
    good = _png(0)
    header = b"IHDR" + struct.pack(">II", 46_341, 46_341) + good[24:29]
    return good[:12] + header + struct.pack(">I", zlib.crc32(header)) + good[33:]


def npz(arrays: Mapping[str, Any]) -> bytes:
    """An `.npz` of these arrays, compressed."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def npy_header(kind: str, shape: tuple[int, ...]) -> bytes:
    """The header of a `.npy` file, whatever it says, and nothing behind it."""
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these members."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(members: Mapping[str, bytes], mode: Literal["w:", "w:gz", "w:xz"] = "w:") -> bytes:
    """A tar of these members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def linked(kind: bytes) -> bytes:
    """A tar whose members lead out of it, by this kind of entry."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in CLASSES:
            entry = tarfile.TarInfo(f"{name}/1.png")
            entry.type, entry.linkname = kind, "../../../../etc/passwd"
            archive.addfile(entry)
    return file.getvalue()


def parquet_file() -> bytes:
    """A Parquet file in the layout of the hub."""
    rows = [{"bytes": image, "path": None} for _, image in pictures()]
    labels = [int(name.split("/")[0]) for name, _ in pictures()]
    file = io.BytesIO()
    parquet.write_table(arrow.table({"image": rows, "label": labels}), file)
    return file.getvalue()


def idx() -> bytes:
    """An idx file of twenty black images."""
    return bytes([0, 0, 8, 3]) + struct.pack(">3I", 20, 8, 8) + bytes(20 * 64)
