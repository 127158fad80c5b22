"""Reads and checks the JSON header of a safetensors file; tensors themselves stay unread."""

import json
from typing import Any, BinaryIO

from api.inspection.headers import ITEM_BYTES, MAX_TENSORS, ModelHeader, TensorHeader, is_shape
from api.problems import Problem
from api.text import clip

# As many tensors as are taken fit; the format itself allows 100 MB.
MAX_HEADER_BYTES = 6 * 2**20


def read_safetensors_header(file: BinaryIO) -> ModelHeader:
    """Return names, types and shapes; raise `malformed_model` unless header and file agree.

    The tensors must cover the rest of the file exactly and without gaps, as the format demands,
    so that a truncated or lengthened file is found out without reading it.
    """
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise _malformed(f"its header claims {length} bytes, {MAX_HEADER_BYTES} are allowed")
    if 8 + length > size:
        raise _malformed(f"its header claims {length} bytes, the file has {size}: truncated?")
    entries = _parse(file.read(length))
    entries.pop("__metadata__", None)
    if len(entries) > MAX_TENSORS:
        raise _malformed(f"it has {len(entries)} tensors, {MAX_TENSORS} are allowed")
    spans = []
    tensors = {}
    for name, entry in entries.items():
        tensors[name], begin, end = _read_entry(name, entry)
        spans.append((begin, end, name))
    _check_cover(spans, size - 8 - length)
    return ModelHeader("safetensors", tensors)


def _parse(header: bytes) -> dict[str, Any]:
    try:
        entries = json.loads(header.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"its header is not JSON ({clip(str(error))})") from error
    if not isinstance(entries, dict):
        raise _malformed("its header is not a JSON object")
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Readers disagree on which of two equal keys counts, so what is checked might not be loaded.
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key occurs twice")
    return entries


def _read_entry(name: str, entry: Any) -> tuple[TensorHeader, int, int]:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end], **rest} if (
            not rest and is_shape(shape) and type(begin) is int and type(end) is int
        ):
            tensor = TensorHeader(dtype, tuple(shape))
        case _:
            raise _malformed(f"its entry for {clip(name)!r} is not a tensor's", name)
    if dtype not in ITEM_BYTES:
        raise _malformed(f"{clip(name)!r} has the unknown dtype {clip(dtype)!r}", name)
    if end - begin != tensor.elements * ITEM_BYTES[dtype]:
        raise _malformed(
            f"{clip(name)!r} takes {tensor.elements * ITEM_BYTES[dtype]} bytes by its shape "
            f"{list(shape)} and dtype {dtype}, but {end - begin} by its offsets",
            name,
        )
    return tensor, begin, end


def _check_cover(spans: list[tuple[int, int, str]], data_bytes: int) -> None:
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise _malformed(f"{clip(name)!r} begins at {begin}, expected {position}", name)
        position = end
    if position != data_bytes:
        cause = "truncated?" if position > data_bytes else "not the file that was written?"
        raise _malformed(f"its tensors take {position} bytes, it holds {data_bytes}: {cause}")


def _malformed(reason: str, param: str | None = None) -> Problem:
    return Problem(
        "malformed_model",
        f"The safetensors file cannot be read: {reason}. "
        "Write it again with safetensors.torch.save_file(model.state_dict(), path).",
        clip(param) if param else None,
    )
