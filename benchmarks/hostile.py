"""Files that want to do harm, or that came to harm: for `benchmarks.siege`.

Good files of every form that the service takes, the same with bytes changed, cut out, doubled or
missing, and files that are made to run code, to lead out of their folder, to inflate, or to say
other sizes than they have. All of them are small; what inflates does so within a bound.
"""

import gzip
import pickle
import random
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from benchmarks.sample_files import (
    CLASSES,
    good_datasets,
    good_models,
    linked,
    network,
    npy_header,
    npz,
    parquet_file,
    pictures,
    png_claim,
    raw_safetensors,
    safetensors,
    saved,
    tarred,
    torch_zip,
    weights,
    zipped,
)
from benchmarks.small_job import ARCHITECTURE

MODEL, DATASET = "models", "datasets"

# A bomb inflates to so many bytes.
_BOMB_BYTES = 16 << 20


@dataclass(frozen=True)
class Hostile:
    """A file to upload: `kind` is `models` or `datasets`, `name` says how it was made."""

    kind: str
    name: str
    content: bytes

    @property
    def architecture(self) -> str:
        """What a form that uploads it says the network is."""
        return "onnx" if "onnx" in self.name else ARCHITECTURE


class Runs:
    """Makes a file when it is unpickled, which nothing ever may."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self._path, "w")


def draw(source: random.Random, canary: str) -> Hostile:
    """The next file; one that runs code makes a file at `canary`."""
    made = {
        (kind, name): content
        for kind, files in (
            (MODEL, good_models() | crafted_models(canary)),
            (DATASET, good_datasets() | crafted_datasets(canary)),
        )
        for name, content in files.items()
    }
    kind, name = source.choice(sorted(made))
    content = made[kind, name]
    # Bombs and the like are what they are; everything else comes to harm in three of four cases.
    if source.random() < 0.75 and len(content) < 1 << 20:
        change = source.choice(_CHANGES)
        return Hostile(kind, f"{name}, {change.__name__}", change(source, content))
    return Hostile(kind, name, content)


def truncated(source: random.Random, content: bytes) -> bytes:
    """Only its beginning."""
    return content[: source.randrange(len(content) + 1)]


def flipped(source: random.Random, content: bytes) -> bytes:
    """Up to eight bytes are others, most of them at the ends, where headers and directories are."""
    changed = bytearray(content)
    for _ in range(source.randint(1, 8)):
        reach = len(changed) if source.random() < 0.3 else min(600, len(changed))
        if reach:
            position = source.randrange(reach)
            where = position if source.random() < 0.5 else len(changed) - 1 - position
            changed[where] = source.choice((0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)))
    return bytes(changed)


def rearranged(source: random.Random, content: bytes) -> bytes:
    """A piece is cut out, doubled or moved to another place."""
    start, end = sorted(source.randrange(len(content) + 1) for _ in range(2))
    piece, rest = content[start:end], content[:start] + content[end:]
    place = source.randrange(len(rest) + 1)
    return source.choice((rest, content + piece, rest[:place] + piece + rest[place:]))


_CHANGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (truncated, flipped, rearranged)


@cache
def crafted_models(canary: str) -> dict[str, bytes]:
    """Files in the place of a network that are made to do harm."""
    tensors = weights()
    weight = next(iter(tensors))
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    raw = {
        "a header without end": struct.pack("<Q", 2**63 - 1) + b"{}",
        "offsets past the end": safetensors(header | {"b": {**header["a"], "shape": [2**62]}}),
        "offsets that overlap": safetensors(header | {"b": header["a"]}),
        "negative offsets": safetensors({"a": {**header["a"], "data_offsets": [-8, 0]}}),
        "a name twice": raw_safetensors(b'{"a":{},"a":{}}'),
        "deep JSON": raw_safetensors(b'{"a":' + b"[" * 100_000),
        "a number without end": raw_safetensors(b'{"a":' + b"9" * 100_000 + b"}"),
        "names of control characters": safetensors({"\x1b[2J\n": header["a"]}),
    }
    runs = {"weight": Runs(canary)}
    large = torch.zeros(1).expand(1 << 40)
    odd: dict[str, Any] = {
        "torch, NaN": tensors | {weight: torch.full_like(tensors[weight], float("nan"))},
        "torch, infinite": tensors | {weight: torch.full_like(tensors[weight], float("inf"))},
        "torch, no elements": tensors | {weight: torch.zeros(0, 3)},
        "torch, complex": tensors | {weight: tensors[weight].to(torch.complex64)},
        "torch, sparse": tensors | {weight: tensors[weight].to_sparse()},
        "torch, a terabyte that is one number": tensors | {weight: large},
        "torch, a list": list(tensors.values()),
        "torch, two thousand names": {f"w{n}": torch.zeros(1) for n in range(2_000)},
    }
    return {
        **{f"safetensors, {name}": content for name, content in raw.items()},
        **{name: saved(content) for name, content in odd.items()},
        **{f"pickle {n}": pickle.dumps(runs, protocol=n) for n in range(6)},
        "torch that runs": torch_zip(pickle.dumps(runs, protocol=2)),
        "torch, members that lead out": torch_zip(pickle.dumps({}), **{"../../../tmp/out": b"x"}),
        "torch, a bomb": torch_zip(pickle.dumps({}), **{"0": bytes(_BOMB_BYTES)}),
        "empty": b"",
        "text": b"#!/bin/sh\ntouch " + canary.encode() + b"\n",
        **_crafted_onnx(),
    }


def _crafted_onnx() -> dict[str, bytes]:
    outside = network()
    outside.graph.initializer[0].ClearField("raw_data")
    outside.graph.initializer[0].data_location = TensorProto.EXTERNAL
    entry = outside.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "../../../../etc/passwd"
    claims = network()
    claims.graph.initializer[0].dims[0] = 2**40
    negative = network()
    negative.graph.initializer[0].dims[0] = -1
    circle = network()
    circle.graph.node[0].input[0] = circle.graph.node[-1].output[0]
    unknown = network()
    unknown.graph.node[1].op_type = "Exec\x00\n"
    own = network()
    own.graph.node[1].domain = "ai.evil"
    loops = network()
    for _ in range(200):
        loops.graph.node.append(helper.make_node("Loop", ["scores"], ["scores"], body=loops.graph))
        if len(loops.SerializeToString()) > 1 << 19:
            break
    nan = network(float("nan"))
    made = {
        "data outside": outside,
        "a size of its own": claims,
        "a negative size": negative,
        "a circle": circle,
        "an unknown operator": unknown,
        "an operator of its own": own,
        "loops in loops": loops,
        "NaN": nan,
        "nothing": onnx.ModelProto(),
    }
    return {f"onnx, {name}": model.SerializeToString() for name, model in made.items()}


@cache
def crafted_datasets(canary: str) -> dict[str, bytes]:
    """Files in the place of a data set that are made to do harm."""
    images = dict(pictures())
    arrays: dict[str, Any] = {"x": np.zeros((20, 8, 8), np.uint8), "y": np.arange(20) % 10}
    objects = np.array([Runs(canary)], dtype=object)
    huge = npy_header("'|u1'", (2**40, 8, 8))
    code = npy_header(f"__import__('os').system('touch {canary}')", (1,))
    return {
        "npz, objects": npz({"x_train": objects, "y_train": objects}),
        "npz, a size of its own": zipped({"x_train.npy": huge, "y_train.npy": huge}),
        "npz, a header that is code": zipped({"x_train.npy": code, "y_train.npy": code}),
        "npz, a bomb": npz({"x_train": np.zeros(_BOMB_BYTES, np.uint8), "y_train": arrays["y"]}),
        "npz, NaN": npz({"x_train": np.full((20, 8, 8), np.nan), "y_train": arrays["y"]}),
        "npz, labels of 2^62": npz({"x_train": arrays["x"], "y_train": arrays["y"] + 2**62}),
        "npz, negative labels": npz({"x_train": arrays["x"], "y_train": arrays["y"] - 5}),
        "npz, no images": npz({"x_train": arrays["x"][:0], "y_train": arrays["y"][:0]}),
        "npz, one class": npz({"x_train": arrays["x"], "y_train": arrays["y"] * 0}),
        "npz, text": npz({"x_train": np.array(["a"] * 20), "y_train": arrays["y"]}),
        "zip, names that lead out": zipped({f"../../tmp/{k}": v for k, v in images.items()}),
        "zip, names from the root": zipped({f"/tmp/{k}": v for k, v in images.items()}),
        "zip in zips": zipped({"a.zip": zipped({"b.zip": zipped(images)})}),
        "zip, a bomb": zipped({f"{n}/1.png": bytes(_BOMB_BYTES // 10) for n in CLASSES}),
        "zip, a picture of 2^31 pixels": zipped({f"{n}/1.png": png_claim() for n in CLASSES}),
        "zip of texts": zipped(dict.fromkeys(images, b"not a picture")),
        "zip, two thousand names": zipped({f"{n}/{n}.png": b"" for n in range(2_000)}),
        "tar, links that lead out": linked(tarfile.SYMTYPE),
        "tar, hard links that lead out": linked(tarfile.LNKTYPE),
        "tar, devices": linked(tarfile.CHRTYPE),
        "tar, names that lead out": tarred({f"../{k}": v for k, v in images.items()}),
        "tar.gz, a bomb": tarred({"0/1.png": bytes(_BOMB_BYTES)}, "w:gz"),
        "gzip of nothing": gzip.compress(b""),
        "Parquet alone": parquet_file(),
        "pickle": pickle.dumps(Runs(canary)),
    }
