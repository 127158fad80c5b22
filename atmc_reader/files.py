"""A file of any version: what it says of itself, and its contents."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atmc_reader import layout, version2
from atmc_reader.coder import Reader
from atmc_reader.layout import Header, Other, Tensors, Weight
from atmc_reader.network import Contents, code_network

#: What reading a file may raise that is none, or contradicts itself.
MALFORMED = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class File:
    """A compressed network's file, whose header has been read.

    Attributes:
        version: of the format.
        architecture, num_classes, bits, k, extra: as in ``Header``.
        tensors: the network's tensors; None if a file of version 2 does not tell.
        shapes: the shapes of the whole network's tensors by their names, before channels were
            dropped, as far as the file itself has them.
        read: decodes the file, given the network's tensors; returns its contents, and how many bits
            each part of the file takes, by name. The header is what they leave.
    """

    version: int
    architecture: str
    num_classes: int
    bits: int
    k: int
    extra: dict[str, Any]
    tensors: Tensors | None
    shapes: dict[str, list[int]]
    read: Callable[[Tensors], tuple[Contents, dict[str, int]]]


def open_file(content: bytes) -> File:
    """Read a file's header and check it; no array is built before ``read`` is called.

    Raises:
        one of ``MALFORMED``: if it is no such file.
    """
    if not content.startswith(layout.MAGIC):
        return _of_version_2(content)
    header, coded = layout.parse(content)
    tensors: list[Weight | Other] = [*header.tensors.weights, *header.tensors.others]
    return File(
        version=layout.VERSION,
        architecture=header.architecture,
        num_classes=header.num_classes,
        bits=header.bits,
        k=header.k,
        extra=header.extra,
        tensors=header.tensors,
        shapes=header.extra.get("whole", {each.name: list(each.shape) for each in tensors}),
        read=lambda _: decode(header, coded),
    )


def decode(header: Header, coded: bytes) -> tuple[Contents, dict[str, int]]:
    """Decode a file of version 3; also returns how many bits each part takes, by its name.

    Raises:
        ValueError: if the coded part contradicts the header.
    """
    reader = Reader(coded)
    contents = code_network(reader, header, None)
    reader.finish()
    return contents, reader.bits


def _of_version_2(content: bytes) -> File:
    header, arrays = version2.parse(content)
    extra = {
        name: header[name] for name in ("mean", "std", "input_shape", "graph") if header.get(name)
    }
    if "channels" in arrays:
        extra["channels"] = arrays["channels"].tobytes().hex()
    architecture, num_classes = header["architecture"], header["num_classes"]
    known = None if "channels" in arrays else layout.known_tensors(architecture, num_classes)
    return File(
        version=header["version"],
        architecture=architecture,
        num_classes=num_classes,
        bits=header["bits"],
        k=header["k"],
        extra=extra,
        tensors=known,
        shapes=dict(map(tuple, header.get("tensors", ()))),
        read=lambda tensors: (
            version2.contents(header, arrays, tensors),
            {name: 8 * array.nbytes for name, array in arrays.items()},
        ),
    )
