"""Reads mutated uploads as the child process does.

    python -m tests.atmc_core.fuzzing FOLDER CASES SEED

Each upload must be read or refused with a code. Anything else ends this process with the name of
the case on standard error, and leaves its file in the folder. In the end it prints as JSON the
number of cases and of refusals, the peak of memory above that before the first case, the seconds of
the slowest case, and the characters of the longest message.
"""

import faulthandler
import gzip
import io
import json
import resource
import struct
import sys
import tarfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as arrow
import safetensors.numpy
import safetensors.torch
import torch
from numpy.random import Generator
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pyarrow import parquet

from atmc_core.data import Reading, load_dataset
from atmc_core.errors import InvalidInput
from atmc_core.job.inputs import load_inputs
from atmc_core.networks.architectures import build
from atmc_core.networks.upload import ModelInput
from atmc_spec import CompressionSpec, Target, Threat
from tests.atmc_core.data.data_files import cifar_10, npy, tarred, zipped
from tests.atmc_core.data.data_files import idx as idx_file

#: No case may take longer.
_CASE_S = 30
SPEC = CompressionSpec(
    method="nap",
    threat=Threat(norm="linf", epsilon=0.1),
    target=Target(bits=8, density=0.5),
)


def encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    """An image; MPO has a small picture behind the first."""
    buffer, image = io.BytesIO(), Image.fromarray(pixels)
    behind: dict[str, Any] = {"save_all": True, "append_images": [image.resize((4, 4))]}
    image.save(buffer, form, **behind if form == "MPO" else {})
    return buffer.getvalue()


def data_sets() -> dict[str, bytes]:
    """One good file of each kind: grey images of 8 x 8, two classes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 8, 8), dtype=np.uint8)
    labels = (np.arange(24) % 2).astype(np.uint8)
    arrays = {"x_train": images, "y_train": labels, "x_test": images[:4], "y_test": labels[:4]}
    arrays_npy = {f"{name}.npy": npy(array) for name, array in arrays.items()}
    names = [f"{('ant', 'cat')[i % 2]}/{i}" for i in range(24)]
    rows = arrow.table(
        {
            "image": [{"bytes": encoded(each), "path": None} for each in images],
            "label": labels.tolist(),
        }
    )
    table = io.BytesIO()
    parquet.write_table(rows, table)
    idx = {
        "train-images-idx3-ubyte": idx_file(images),
        "train-labels-idx1-ubyte.gz": gzip.compress(idx_file(labels)),
    }
    pngs = {f"{n}.png": encoded(i) for n, i in zip(names, images, strict=True)}
    rgb = np.repeat(rng.integers(0, 256, (12, 1, 32, 32), dtype=np.uint8), 3, 1)
    cifar = cifar_10(rgb, [0, 1] * 6, ["ant", "cat"])
    return {
        "tar": tarred(pngs),
        "tar.gz": tarred(pngs, "gz"),
        "tar.bz2": tarred(pngs, "bz2"),
        "tar.xz": tarred(pngs, "xz"),
        "tar of arrays": tarred(arrays_npy),
        "tar of CIFAR": tarred(cifar),
        "zip of CIFAR": zipped(cifar, zipfile.ZIP_STORED),
        "zip of split folders": zipped(
            {f"set\\{split}\\{n}": png for split in ("train", "test") for n, png in pngs.items()}
            | {"README.md": b"#", "set/train/.gitkeep": b"", "set/train/cat/": b""}
        ),
        "zip of MPO": zipped(
            {f"{n}.jpg": encoded(i, "MPO") for n, i in zip(names, images, strict=True)}
        ),
        "npz": zipped(arrays_npy),
        "npz stored": zipped(arrays_npy, zipfile.ZIP_STORED),
        "zip of PNG": zipped(pngs),
        "zip of JPEG": zipped(
            {f"{n}.jpg": encoded(i, "JPEG") for n, i in zip(names, images, strict=True)}
        ),
        "idx": zipped(idx),
        "Parquet": table.getvalue(),
        "zip of Parquet": zipped({"train-0.parquet": table.getvalue()}),
        "safetensors": safetensors.numpy.save(arrays),
    }


def _onnx() -> bytes:
    """Two convolutions, a norm, pools and a linear layer, with what exporters write around them."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.2, shape).astype(np.float32)

    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["padded"]),
        helper.make_node("Conv", ["padded", "w1"], ["c1"], name="conv1"),
        helper.make_node("BatchNormalization", ["c1", "g", "b", "m", "v"], ["n1"], name="norm"),
        helper.make_node("Clip", ["n1", "low", "high"], ["a1"]),
        helper.make_node("MaxPool", ["a1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2"], ["c2"], pads=[1, 1, 1, 1], group=2),
        helper.make_node("HardSigmoid", ["c2"], ["gate"]),
        helper.make_node("Mul", ["c2", "gate"], ["a2"]),
        helper.make_node("ReduceMean", ["a2"], ["mean"], axes=[2, 3], keepdims=1),
        helper.make_node("Reshape", ["mean", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["y"], name="head", transB=1),
    ]
    constants = {
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "w1": weight(4, 1, 3, 3),
        "g": np.ones(4, np.float32),
        "b": np.zeros(4, np.float32),
        "m": np.zeros(4, np.float32),
        "v": np.ones(4, np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
        "w2": weight(8, 2, 3, 3),
        "shape": np.array([-1, 8]),
        "w3": weight(2, 8),
        "b3": weight(2),
    }
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _many_operators() -> bytes:
    """Pools padded unevenly, norms, resizes, and a head that is left out."""
    rng = np.random.default_rng(0)
    node = helper.make_node
    nodes = [
        node("Gather", ["x", "turned"], ["t"], axis=3),
        node("Conv", ["t", "w1"], ["c1"], auto_pad="SAME_UPPER"),
        node("PRelu", ["c1", "slope"], ["a1"]),
        node("MaxPool", ["a1"], ["p1"], kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
        node("GroupNormalization", ["p1", "g4", "z4"], ["n1"], num_groups=2),
        node("LRN", ["n1"], ["n2"], size=3),
        node("Resize", ["n2", "", "scales"], ["r1"], mode="linear"),
        node("AveragePool", ["r1"], ["p2"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 0]),
        node("DepthToSpace", ["p2"], ["s1"], blocksize=2),
        node("InstanceNormalization", ["s1", "g1", "z1"], ["n3"]),
        node("Max", ["n3", "low"], ["m1"]),
        node("Flatten", ["m1"], ["f1"]),
        node("Selu", ["f1"], ["a2"]),
        node("BatchNormalization", ["a2", "gf", "zf", "zf", "gf"], ["n4"]),
        node("Gemm", ["n4", "w2"], ["z"], transB=1),
        node("Exp", ["z"], ["e"]),
        node("ReduceSum", ["e", "axis"], ["sum"]),
        node("Div", ["e", "sum"], ["y"]),
    ]
    ones, zeros = np.ones(64, np.float32), np.zeros(64, np.float32)
    constants = {
        "turned": np.arange(7, -1, -1),
        "w1": rng.normal(0, 0.3, (4, 1, 3, 3)).astype(np.float32),
        "slope": np.full((4, 1, 1), 0.1, np.float32),
        "g4": ones[:4],
        "z4": zeros[:4],
        "scales": np.array([1, 1, 2, 2], np.float32),
        "g1": ones[:1],
        "z1": zeros[:1],
        "low": np.float32(-1e12),
        "gf": ones,
        "zf": zeros,
        "w2": rng.normal(0, 0.2, (2, 64)).astype(np.float32),
        "axis": np.array([1]),
    }
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _old_onnx(opset: int, channels_last: bool) -> bytes:
    """Nodes that are out of order or not needed, two outputs, a softmax, an old operator set."""
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("Softmax", ["y"], ["p"], name="head", axis=1),
        helper.make_node("Gemm", ["flat", "w2", "b2"], ["y"], name="scores", transB=1),
        helper.make_node("ArgMax", ["p"], ["label"], axis=1, keepdims=0),
        helper.make_node("Flatten", ["p1"], ["flat"]),
        helper.make_node("MaxPool", ["d1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Dropout", ["n1"], ["d1"]),
        helper.make_node("BatchNormalization", ["c1", "g", "b", "m", "v"], ["n1"], name="norm"),
        helper.make_node("Conv", ["t", "w1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])
        if channels_last
        else helper.make_node("Identity", ["x"], ["t"]),
    ]
    constants = {
        "w1": rng.normal(0, 0.2, (4, 1, 3, 3)),
        "w2": rng.normal(0, 0.2, (2, 64)),
        "b2": np.zeros(2),
        **dict.fromkeys("gv", np.ones(4)),
        **dict.fromkeys("bm", np.zeros(4)),
    }
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info(
                "x", TensorProto.FLOAT, ["n", 8, 8, 1] if channels_last else ["n", 1, 8, 8]
            ),
            helper.make_tensor_value_info("keep_prob", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 2]),
        ],
        [numpy_helper.from_array(value.astype("f4"), name) for name, value in constants.items()]
        + [numpy_helper.from_array(np.arange(4, dtype=np.uint8), "unused")],
    )
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4
    ).SerializeToString()
    return content


def models() -> dict[str, tuple[bytes, str]]:
    """One good file of each kind, with its architecture."""
    state = build("digits_cnn", 2).state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    pruned = {
        "model.fc1.weight_orig": state["fc1.weight"],
        "model.fc1.weight_mask": torch.ones_like(state["fc1.weight"]),
    } | {f"model.{name}": tensor for name, tensor in state.items() if name != "fc1.weight"}
    checkpoint = io.BytesIO()
    optimizer = {"state": {0: {"step": torch.zeros(())}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"epoch": 3, "optimizer": optimizer, "net": [{"ema": pruned}]}, checkpoint)
    return {
        "checkpoint": (checkpoint.getvalue(), "digits_cnn"),
        "pruned safetensors": (safetensors.torch.save(pruned), "digits_cnn"),
        "safetensors model": (safetensors.torch.save(state), "digits_cnn"),
        "pt model": (buffer.getvalue(), "digits_cnn"),
        "ONNX": (_onnx(), "onnx"),
        "ONNX of many operators": (_many_operators(), "onnx"),
        "ONNX of opset 8": (_old_onnx(8, channels_last=False), "onnx"),
        "ONNX, channels last": (_old_onnx(13, channels_last=True), "onnx"),
    }


def mutated(content: bytes, rng: Generator) -> bytes:
    """The content with a few bytes, sizes or parts of it changed.

    Half of the archives are changed inside a member, under checksums that are right again, and
    some tars in a header.
    """
    is_zip, is_tar = content[:2] == b"PK", content[257:262] == b"ustar"
    if (is_zip or is_tar) and rng.random() < 0.5:
        return _changed_inside(content, rng)
    if is_tar and rng.random() < 0.5:
        return _changed_header(content, rng)
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        CHANGES[rng.integers(len(CHANGES))](changed, rng)
    return bytes(changed)


def _changed_inside(content: bytes, rng: Generator) -> bytes:
    is_zip = content[:2] == b"PK"
    members = _zip_members(content) if is_zip else _tar_members(content)
    for name in rng.choice(sorted(members), rng.integers(1, 3)):
        changed = mutated(members[name], rng)
        members[name] = _right_checksums(changed) if rng.random() < 0.5 else changed
    return zipped(members) if is_zip else tarred(members)


def _zip_members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _tar_members(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive}  # type: ignore[union-attr]


def _changed_header(content: bytes, rng: Generator) -> bytes:
    """A tar with some bytes of one header changed, and the header's checksum right again."""
    changed = bytearray(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        starts = [each.offset for each in archive]
    start = int(rng.choice(starts))
    for _ in range(rng.integers(1, 4)):
        # Names, modes, sizes and kinds stand in the first 160 bytes.
        place = start + rng.integers(0, 160)
        changed[place] = rng.choice([*b"\0 -07xgLKS5", rng.integers(0, 256)])
    changed[start + 148 : start + 156] = b" " * 8
    checksum = sum(changed[start : start + 512])
    changed[start + 148 : start + 156] = f"{checksum:06o}\0 ".encode()
    return bytes(changed)


def _right_checksums(content: bytes) -> bytes:
    """A PNG whose chunks' checksums fit again, so that what they hold is looked at."""
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return content
    place, mended = 8, bytearray(content)
    while place + 12 <= len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        end = place + 8 + size
        if end + 4 > len(content):
            break
        mended[end : end + 4] = struct.pack(">I", zlib.crc32(content[place + 4 : end]))
        place = end + 4
    return bytes(mended)


def _flip(content: bytearray, rng: Generator) -> None:
    for place in rng.integers(0, len(content), rng.integers(1, 8)) if content else ():
        content[place] = rng.integers(0, 256)


def _enlarge(content: bytearray, rng: Generator) -> None:
    """Write a size that hurts where a size may be."""
    size = rng.choice([0, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000, 100_000])
    place = rng.integers(0, max(1, len(content) - 4))
    content[place : place + 4] = struct.pack(rng.choice(["<I", ">I"]), size)


def _cut(content: bytearray, rng: Generator) -> None:
    del content[rng.integers(0, len(content) + 1) :]


def _drop(content: bytearray, rng: Generator) -> None:
    place = rng.integers(0, len(content) + 1)
    del content[place : place + rng.integers(1, 64)]


def _repeat(content: bytearray, rng: Generator) -> None:
    place = rng.integers(0, len(content) + 1)
    content[place:place] = content[place : place + rng.integers(1, 256)] * rng.integers(1, 20)


CHANGES: tuple[Callable[[bytearray, Generator], None], ...] = (
    _flip,
    _flip,
    _enlarge,
    _cut,
    _drop,
    _repeat,
)


def run(folder: Path, cases: int, seed: int) -> dict[str, Any]:
    """Read so many mutated files, of kinds drawn at random."""
    rng = np.random.default_rng(seed)
    data, networks = data_sets(), models()
    good_data, good_model = folder / "good.data", folder / "good.model"
    good_data.write_bytes(data["npz"])
    good_model.write_bytes(networks["pt model"][0])
    case = folder / "case"

    def read(name: str, content: bytes) -> None:
        case.write_bytes(content)
        if "CIFAR" in name:
            # No network here is as large as these images.
            load_dataset(case, 0.1, 0, Reading(folder=folder))
            return
        if name in networks:
            inputs = ModelInput(case, networks[name][1]), good_data
        else:
            inputs = ModelInput(good_model, "digits_cnn"), case
        load_inputs(*inputs, SPEC, Reading(folder=folder))

    names = [*data, *networks]
    for name in names:
        read(name, data[name] if name in data else networks[name][0])
    before = _peak()
    counts = {name: {"cases": 0, "refused": 0} for name in names}
    slowest, longest = 0.0, 0
    for _ in range(cases):
        name = names[rng.integers(len(names))]
        content = mutated(data[name] if name in data else networks[name][0], rng)
        faulthandler.dump_traceback_later(_CASE_S, exit=True)
        began = time.monotonic()
        counts[name]["cases"] += 1
        try:
            read(name, content)
        except InvalidInput as error:
            counts[name]["refused"] += 1
            longest = max(longest, len(error.message))
        except BaseException:
            traceback.print_exc()
            sys.exit(f"a mutated {name} ended in this error: {case}")
        faulthandler.cancel_dump_traceback_later()
        slowest = max(slowest, time.monotonic() - began)
    return {
        "kinds": counts,
        "peak_bytes": _peak() - before,
        "slowest_s": slowest,
        "longest_message": longest,
    }


def _peak() -> int:
    """The most memory that this process has held so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
