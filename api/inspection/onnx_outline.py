"""Looks at the outermost fields of an ONNX file; the graph itself stays unread."""

from io import BytesIO
from typing import BinaryIO

from api.inspection.headers import ModelHeader
from api.problems import Problem
from atmc_spec.files import ONNX_OPSETS, opset_reason

# The field numbers of a ModelProto in onnx.proto.
_IR_VERSION, _GRAPH, _OPSET = 1, 7, 8
# Those of an OperatorSetIdProto.
_DOMAIN, _VERSION = 1, 2
_MAX_OPSET_BYTES = 1000
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_FIELDS = 10_000


def read_onnx_header(file: BinaryIO) -> ModelHeader:
    """Return that the file is ONNX; what is in it is the job's to find out.

    Raises `malformed_model` unless it is one whole ModelProto with one graph and an operator set of
    a known version.
    """
    size = file.seek(0, 2)
    file.seek(0)
    seen: list[int] = []
    while file.tell() < size:
        if len(seen) > _MAX_FIELDS:
            raise _malformed("it has too many fields")
        tag = _varint(file)
        if tag == _OPSET << 3 | _LENGTH:
            _check_opset(_message(file, size))
        else:
            _skip(file, tag & 7, size)
        seen.append(tag >> 3)
    if seen.count(_GRAPH) != 1 or _OPSET not in seen or _IR_VERSION not in seen:
        raise _malformed("it is no ONNX model with one graph and an operator set")
    return ModelHeader("onnx", {})


def _message(file: BinaryIO, size: int) -> bytes:
    """Return the bytes of a short message."""
    length = _varint(file)
    if file.tell() + length > size:
        raise _malformed("a field reaches past the end of the file: truncated?")
    if length > _MAX_OPSET_BYTES:
        raise _malformed("an operator set has too long a name")
    return file.read(length)


def _check_opset(content: bytes) -> None:
    """Refuse a version of ONNX's own operators that the job would refuse."""
    domain, version = b"", 0
    file = BytesIO(content)
    while file.tell() < len(content):
        tag = _varint(file)
        if tag == _DOMAIN << 3 | _LENGTH:
            domain = _message(file, len(content))
        elif tag == _VERSION << 3 | _VARINT:
            version = _varint(file)
        else:
            _skip(file, tag & 7, len(content))
    if domain in (b"", b"ai.onnx") and version not in ONNX_OPSETS:
        raise _malformed(opset_reason(version))


def _skip(file: BinaryIO, wire_type: int, size: int) -> None:
    if wire_type == _VARINT:
        _varint(file)
        return
    lengths = {_FIXED64: 8, _FIXED32: 4}
    length = _varint(file) if wire_type == _LENGTH else lengths.get(wire_type)
    if length is None:
        raise _malformed("a field is of no type that protobuf knows")
    if file.tell() + length > size:
        raise _malformed("a field reaches past the end of the file: truncated?")
    file.seek(length, 1)


def _varint(file: BinaryIO) -> int:
    value = 0
    for place in range(10):
        byte = file.read(1)
        if not byte:
            raise _malformed("it ends within a field: truncated?")
        value |= (byte[0] & 0x7F) << (7 * place)
        if byte[0] < 0x80:
            return value
    raise _malformed("a number in it is too long")


def _malformed(reason: str) -> Problem:
    return Problem("malformed_model", f"The ONNX file cannot be read: {reason}.")
