"""Reads files of versions 1 and 2: safetensors with a JSON header, positions as Rice-coded gaps.

The metadata entry ``atmc`` is a JSON object. It says what the network is, and for every factor (U,
V and C of each weight, in order) how many non-zeros it has, how large its codebook is, and the Rice
parameter of its positions. The file's tensors are:

- ``remainders`` and ``quotients``: the gaps between the non-zeros of each flattened factor, as a
  Rice code: the low bits of all gaps, and the rest of them in unary;
- ``codes`` and ``codebooks`` (bits 1 to 8): for each non-zero its index in the factor's codebook,
  with as many bits as the codebook needs, and the codebooks' values, float32;
- ``values`` (bits 16 and 32): the non-zeros themselves, float16 or float32;
- ``others``: all other float tensors, float32, in the order of the state dict;
- ``channels``, in version 2 and only if channels were dropped: a bit for each channel class.

For a network that only its maker can build (architecture ``own``), the header has one more entry,
``tensors``: the name and shape of each float tensor of the state dict, in order.
"""

import json
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atmc_reader import bitpacking
from atmc_reader.layout import CODEBOOK_BITS, Tensors
from atmc_reader.network import Contents, Sparse

READABLE = (1, 2)
_DTYPES = {"F32": np.float32, "F16": np.float16, "U8": np.uint8}
# A safetensors file begins with the length of its JSON header, an integer of this many bytes.
_LENGTH_BYTES = 8

Arrays = dict[str, NDArray[Any]]


def parse(content: bytes) -> tuple[dict[str, Any], Arrays]:
    """The header and the tensors; these are views of the content.

    Raises:
        ValueError: if it is no such file.
    """
    start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    if not _LENGTH_BYTES < start <= len(content):
        raise ValueError("it does not begin as an artifact does")
    listed = json.loads(content[_LENGTH_BYTES:start])
    header: dict[str, Any] = json.loads(listed.pop("__metadata__")["atmc"])
    if header["version"] not in READABLE:
        raise ValueError(
            f"format version {header['version']}; this release reads versions up to 3: update it"
        )
    end = max((int(entry["data_offsets"][1]) for entry in listed.values()), default=0)
    if start + end != len(content):
        raise ValueError(f"{len(content)} bytes; {start + end} announced")
    return header, {name: _tensor(content, start, entry) for name, entry in listed.items()}


def _tensor(content: bytes, start: int, entry: dict[str, Any]) -> NDArray[Any]:
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    first, end = (int(offset) for offset in entry["data_offsets"])
    count = (end - first) // dtype.itemsize
    if not 0 <= first <= end or [count] != entry["shape"] or count * dtype.itemsize != end - first:
        raise ValueError(f"{entry} is no tensor of one axis")
    return np.frombuffer(content, dtype.newbyteorder("<"), count, start + first)


def contents(header: dict[str, Any], arrays: Arrays, tensors: Tensors) -> Contents:
    """The factors and other tensors.

    Args:
        header, arrays: what ``parse`` returned.
        tensors: the network's.

    Raises:
        ValueError: if they contradict each other.
    """
    layout = header["factors"]
    shapes = [shape for weight in tensors.weights for shape in weight.factor_shapes]
    if len(layout) != len(shapes):
        raise ValueError(f"{len(layout)} factors; the network has {len(shapes)}")
    factors = []
    for shape, positions, values in zip(
        shapes, _positions(layout, arrays), _values(header["bits"], layout, arrays), strict=True
    ):
        if len(positions) and positions[-1] >= prod(shape):
            raise ValueError(f"a position of {positions[-1]} in a factor of {shape}")
        factors.append(Sparse(shape, positions, values))
    flat = arrays["others"].astype(np.float32)
    sizes = [other.size for other in tensors.others]
    if sum(sizes) != len(flat):
        raise ValueError(f"others holds {len(flat)} numbers; {sum(sizes)} expected")
    parts = _take(flat, sizes)
    others = (part.reshape(o.shape) for part, o in zip(parts, tensors.others, strict=True))
    return Contents(tuple(factors), tuple(others))


def _values(
    bits: int, layout: Sequence[Sequence[int]], arrays: Arrays
) -> Iterator[NDArray[np.float32]]:
    """Yield the values of the non-zeros of each factor, ``[n]``."""
    counts = [row[0] for row in layout]
    if bits > CODEBOOK_BITS:
        yield from _take(arrays["values"].astype(np.float32), counts)
        return
    stream = np.unpackbits(arrays["codes"]).astype(np.bool_)
    widths = [max(row[1] - 1, 0).bit_length() for row in layout]
    packed = _take(stream, [n * w for n, w in zip(counts, widths, strict=True)])
    books = _take(arrays["codebooks"].astype(np.float32), [row[1] for row in layout])
    for count, width, book, part in zip(counts, widths, books, packed, strict=True):
        yield book[bitpacking.unpack(part, width)] if width else np.repeat(book, count)


def _positions(layout: Sequence[Sequence[int]], arrays: Arrays) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of the non-zeros in each flattened factor, ``[n]``."""
    counts, lows = [row[0] for row in layout], [row[2] for row in layout]
    if not 0 <= min(lows, default=0) <= max(lows, default=0) <= bitpacking.MAX_RICE_PARAMETER:
        raise ValueError("a Rice parameter is out of range")
    stream = np.unpackbits(arrays["remainders"]).astype(np.bool_)
    remainders = _take(stream, [n * low for n, low in zip(counts, lows, strict=True)])
    bits = np.unpackbits(arrays["quotients"]).astype(np.bool_)
    quotients = _take(bitpacking.from_unary(bits), counts)
    for low, remainder, quotient in zip(lows, remainders, quotients, strict=True):
        gap = quotient << low
        if low:
            gap = gap + bitpacking.unpack(remainder, low)
        yield np.cumsum(gap + 1) - 1


def _take(stream: NDArray[Any], counts: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Yield consecutive runs of a stream, ``counts`` entries long."""
    if sum(counts) > len(stream) or any(count < 0 for count in counts):
        raise ValueError(f"{sum(counts)} entries announced, {len(stream)} found")
    ends = np.cumsum(counts)
    yield from (stream[end - count : end] for end, count in zip(ends, counts, strict=True))
