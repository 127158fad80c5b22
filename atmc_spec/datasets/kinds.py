"""What a file is by its first bytes, in words for whoever sent another kind than is taken."""

import bz2
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable
from typing import Literal, Protocol

from atmc_spec.errors import InvalidInput

#: How a tar archive may be compressed.
Compression = Literal["gzip", "bzip2", "xz"]

#: The first bytes by which a kind is told; a compressed tar archive may need more, ``LONG_HEAD``.
HEAD_BYTES = 1024
#: bzip2 gives nothing out before a block of up to 900 kB is complete.
LONG_HEAD = 2**20
#: A tar archive consists of blocks of so many bytes.
TAR_BLOCK = 512
#: The most memory that the decompression of xz may take; ``xz -9`` needs 65 MiB.
XZ_MEMORY = 2**28

#: The forms of a data set, for every refusal.
TAKEN = (
    "Taken are .npz or safetensors of arrays x_train and y_train, Parquet, and a zip or tar "
    "(.tar, .tar.gz, .tar.bz2, .tar.xz) of class folders with PNG or JPEG, of MNIST's idx files, "
    "of Parquet files, or CIFAR-10's or CIFAR-100's python version."
)

_COMPRESSIONS: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
)
_ARRAYS = "np.savez_compressed('data.npz', x_train=images, y_train=labels)"
_TO_ARRAYS = f"Read it yourself and write the arrays: {_ARRAYS}."
_UNPACK = "Unpack it and send the files as a zip or tar."
_ONE_IMAGE = "Send a zip of all images in class folders."
_PAGE = "Something else than the data was downloaded: look into the file."
_MODEL = "It looks like a model's file, not a data set's."
# First bytes, what begins so, and what to do. Longer ones that begin as shorter ones stand first.
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x93NUMPY", "a single NumPy array (.npy)", f"Put all arrays into one file: {_ARRAYS}."),
    (b"\x89HDF\r\n\x1a\n", "HDF5", _TO_ARRAYS),
    (b"MATLAB", "a MATLAB file (.mat)", _TO_ARRAYS),
    (b"ARROW1", "an Arrow file", "Write it as Parquet."),
    (b"FEA1", "a Feather file", "Write it as Parquet."),
    (b"\xff\xff\xff\xff", "an Arrow stream", "Write it as Parquet."),
    (b"SQLite format 3\0", "an SQLite database", _TO_ARRAYS),
    (b"PK\x05\x06", "an empty zip archive", "Pack the files again."),
    (b"PK\x07\x08", "a part of a split zip archive", "Pack the files into one archive."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "Zstandard", _UNPACK),
    (b"\x04\x22\x4d\x18", "LZ4", _UNPACK),
    (b"\x1f\x9d", "a file of compress (.Z)", _UNPACK),
    (b"\x5d\0\0", "a file of LZMA", _UNPACK),
    (b"\x89PNG\r\n\x1a\n", "a single PNG image", _ONE_IMAGE),
    (b"\xff\xd8\xff", "a single JPEG image", _ONE_IMAGE),
    (b"GIF8", "a GIF image", "Save it as PNG."),
    (b"II*\0", "a TIFF image", "Save it as PNG."),
    (b"MM\0*", "a TIFF image", "Save it as PNG."),
    (b"%PDF", "a PDF", _PAGE),
    (b"\x7fELF", "a program", _PAGE),
    (b"version https://git-lfs", "a pointer of Git LFS", "Fetch the file itself: git lfs pull."),
    (b"<?xml", "XML", _PAGE),
    (b"\xff\xfe", "text in UTF-16", _PAGE),
)
# What may as well begin a text.
_SHORT: tuple[tuple[bytes, str, str], ...] = (
    (b"BM", "a BMP image", "Save it as PNG."),
    (b"MZ", "a program", _PAGE),
)
# What stands at another place than the beginning: where, what, and the same words.
_INSIDE: tuple[tuple[int, bytes, str, str], ...] = (
    (8, b"WEBP", "a WebP image", "Save it as PNG."),
    (4, b"ftyphei", "a HEIC image", "Save it as JPEG or PNG."),
    (4, b"ftypmif1", "a HEIC image", "Save it as JPEG or PNG."),
    (4, b"ftypavif", "an AVIF image", "Save it as PNG."),
    (4, b"ftyp", "a video", "Save its frames as PNG."),
    (16, b"\xde\xc0\xef\xbe", "an LMDB database", _TO_ARRAYS),
)
_OF_PICKLES = (
    "Nothing was run. CIFAR's batches come in as the archive that they are published in; of other "
    f"data write the arrays: {_ARRAYS}."
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\(dp|\(lp|cnumpy|ccopy_reg")
_IDX = re.compile(rb"\0\0[\x08\x09\x0b-\x0e][\x01-\x04]")
_HTML = re.compile(rb"\s*(<!--.*?-->\s*)?<(!doctype html|html|head)", re.IGNORECASE | re.DOTALL)


class _Inflater(Protocol):
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes:
        """Give out at most so many bytes."""


def compression_of(head: bytes) -> Compression | None:
    """How a file is compressed, by its first bytes; None if it is not."""
    return next((name for magic, name in _COMPRESSIONS if head.startswith(magic)), None)


def is_tar(block: bytes) -> bool:
    """Whether a file's first block, not compressed, is the header of a tar archive's member."""
    if len(block) < TAR_BLOCK:
        return False
    try:
        tarfile.TarInfo.frombuf(block[:TAR_BLOCK], "utf-8", "replace")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def inflated(head: bytes, compression: Compression) -> bytes:
    """The first ``HEAD_BYTES`` bytes of what is compressed, as far as ``head`` goes."""
    makers: dict[Compression, Callable[[], _Inflater]] = {
        "gzip": lambda: zlib.decompressobj(16 + zlib.MAX_WBITS),
        "bzip2": bz2.BZ2Decompressor,
        "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY),
    }
    try:
        return makers[compression]().decompress(head, HEAD_BYTES)
    except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError, MemoryError):
        return b""


def kind_of(head: bytes) -> tuple[str, str] | None:
    """What a file is that is no data set, and what to do with it; None if it is not known.

    Args:
        head: the first ``HEAD_BYTES`` bytes; ``LONG_HEAD`` of a compressed file.
    """
    if not head:
        return "empty", "It did not arrive, or was never written."
    if compression := compression_of(head):
        return _compressed(inflated(head, compression), compression)
    for magic, what, remedy in _KINDS:
        if head.startswith(magic):
            return what, remedy
    for place, magic, what, remedy in _INSIDE:
        if head[place : place + len(magic)] == magic:
            return what, remedy
    if _PICKLE.match(head):
        return "a pickle, which could run code when it is read", _OF_PICKLES
    if _IDX.match(head):
        return "one idx file", "Send a zip of MNIST's files, images and labels."
    if _HTML.match(head):
        return "a web page", _PAGE
    if head[:1] == b"\x08" and b"onnx" in head.lower():
        return "an ONNX file", _MODEL
    found = (entry[1:] for entry in _SHORT if head.startswith(entry[0]))
    return _text(head) or next(found, None)


def unknown_file(head: bytes) -> InvalidInput:
    """The refusal of a file in no known form, which says what it is, if that is known."""
    found = kind_of(head)
    what = f"the file is {found[0]}. {found[1]}" if found else "the file is of no known kind."
    return InvalidInput("malformed_dataset", f"{what} {TAKEN}", "dataset")


def _compressed(inner: bytes, compression: Compression) -> tuple[str, str]:
    found = kind_of(inner) if inner and not compression_of(inner) else None
    if found:
        return f"{found[0]}, compressed by {compression}", found[1]
    return (
        f"a file compressed by {compression} that holds no tar archive",
        "Unpack it, and send what is inside.",
    )


def _text(head: bytes) -> tuple[str, str] | None:
    """Text of a few usual kinds; None for what is no text."""
    try:
        # The last character may be cut.
        text = head[:HEAD_BYTES].decode(errors="strict" if len(head) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return None
    if any(ord(c) < ord(" ") and c not in "\t\n\r\f" for c in text):
        return None
    if text.lstrip()[:1] in ("{", "["):
        return "JSON", _TO_ARRAYS
    line = text.split("\n", 1)[0]
    if "," in line or "\t" in line or ";" in line:
        return "CSV", _TO_ARRAYS
    return "text", _PAGE
