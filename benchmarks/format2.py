"""Writes files of version 2, as releases before version 3 of the format did.

Measurements compare with them, and tests read them. ``atmc_reader.version2`` has the layout.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as save_safetensors

from atmc_core.artifact import CompressedModel
from atmc_core.artifact.writing import named_shapes
from atmc_core.factors.factors import Factors
from atmc_reader import bitpacking
from atmc_reader.layout import CODEBOOK_BITS

FORMAT_VERSION = 2


def encode(model: CompressedModel) -> bytes:
    """The content of the model's file; equal models have equal files."""
    layout, gaps, codes, codebooks, values = [], [], [], [], []
    for factor in _flattened(model.factors):
        positions = np.flatnonzero(factor)
        kept = factor[positions]
        gaps.append(np.diff(positions, prepend=-1) - 1)
        low = bitpacking.rice_parameter(gaps[-1])
        codebook = np.unique(kept) if model.bits <= CODEBOOK_BITS else kept[:0]
        if model.bits <= CODEBOOK_BITS:
            codes.append(bitpacking.pack(np.searchsorted(codebook, kept), _width(len(codebook))))
            codebooks.append(codebook)
        else:
            values.append(kept.astype(np.float16 if model.bits == 16 else np.float32))
        layout.append([len(positions), len(codebook), low])
    lows = [
        bitpacking.pack(g & ((1 << row[2]) - 1), row[2])
        for g, row in zip(gaps, layout, strict=True)
    ]
    highs = [g >> row[2] for g, row in zip(gaps, layout, strict=True)]
    tensors: dict[str, NDArray[Any]] = {
        "remainders": np.packbits(np.concatenate(lows)),
        "quotients": np.packbits(bitpacking.unary(np.concatenate(highs))),
        "others": _concatenate([t.numpy().reshape(-1) for t in model.others.values()]),
    }
    if model.bits <= CODEBOOK_BITS:
        tensors["codes"] = np.packbits(np.concatenate(codes))
        tensors["codebooks"] = _concatenate(codebooks)
    else:
        tensors["values"] = np.concatenate(values)
    if model.kept is not None:
        tensors["channels"] = np.packbits(model.kept.numpy())
    header = {
        "version": FORMAT_VERSION,
        "architecture": model.architecture,
        "num_classes": model.num_classes,
        "mean": model.normalization.mean,
        "std": model.normalization.std,
        "bits": model.bits,
        "k": model.k,
        "factors": layout,
    }
    if model.input_shape is not None:
        header["input_shape"] = model.input_shape
    if model.graph is not None:
        header["graph"] = model.graph.to_text()
    if model.module is not None:
        header["tensors"] = list(map(list, named_shapes(model.module).items()))
    return save_safetensors(tensors, {"atmc": json.dumps(header, separators=(",", ":"))})


def _flattened(factors: dict[str, Factors]) -> Iterator[NDArray[np.float32]]:
    for factor in factors.values():
        for tensor in factor.tensors:
            yield tensor.detach().cpu().numpy().reshape(-1)


def _concatenate(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate([np.zeros(0, np.float32), *parts])


def _width(codebook_size: int) -> int:
    """The number of bits that an index into a codebook of that size needs."""
    return max(codebook_size - 1, 0).bit_length()
