"""What a file says ahead of its coded part: which network, and how much each part holds."""

import json
import zlib
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from math import prod
from typing import Any

from atmc_reader.positions import NO_WEIGHTS, Weights
from atmc_reader.values import Kind

#: A file of version 3 begins so.
MAGIC, VERSION = b"ATMC", 3
#: Up to this many bits non-zeros are stored as indices into a codebook.
CODEBOOK_BITS = 8
# What a file may claim: this many entries in all tensors, values in a codebook, bytes of its text.
MOST_ENTRIES, MOST_VALUES, MOST_TEXT = 2**33, 2**20, 2**25
_CHECKSUM_BYTES = 4
_HAS_WEIGHTS, _HAS_ROWS, _HAS_CHANNELS, _SIDE_SHIFT = 1, 2, 4, 3
_RISING = 4


@dataclass(frozen=True)
class Weight:
    """A convolution's or linear layer's weight, which is stored as factors.

    Attributes:
        name: in the state dict.
        shape: ``(out, in / groups, height, width)`` or ``(out, in)``.
        groups: of the convolution; 1 for a linear layer.
        wide: whether U is the square factor, W = (I+U) V + C; else V is, W = U (V+I) + C.
    """

    name: str
    shape: tuple[int, ...]
    groups: int
    wide: bool

    @property
    def rows(self) -> int:
        """Output channels of a group."""
        return self.shape[0] // self.groups

    @property
    def columns(self) -> int:
        """Inputs of an output: kernel cells times input channels, in this order."""
        return prod(self.shape[1:])

    @property
    def is_wide(self) -> bool:
        """What ``wide`` is unless channels were dropped: whether it is no taller than wide."""
        return self.rows <= self.columns

    @property
    def inner(self) -> int:
        """The length of the dimension over which the product U V sums."""
        return self.rows if self.wide else self.columns

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width."""
        return (self.shape[2], self.shape[3]) if len(self.shape) == 4 else (1, 1)

    @property
    def factor_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """The shapes of U, V and C."""
        g, m, n, r = self.groups, self.rows, self.columns, self.inner
        return (g, m, r), (g, r, n), (g, m, n)


@dataclass(frozen=True)
class Other:
    """A float tensor that is stored as it is: a bias, a norm's parameter, a buffer."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of entries."""
        return prod(self.shape)


@dataclass(frozen=True)
class Tensors:
    """All float tensors of a network's state dict."""

    weights: tuple[Weight, ...]
    others: tuple[Other, ...]

    def to_json(self) -> list[Any]:
        """As lists and numbers: a weight's ``wide`` only where the shape would not tell."""
        return [
            [
                [w.name, list(w.shape), w.groups, *([int(w.wide)] if w.wide != w.is_wide else [])]
                for w in self.weights
            ],
            [[other.name, list(other.shape)] for other in self.others],
        ]

    @classmethod
    def from_json(cls, given: Any) -> "Tensors":
        """The inverse of ``to_json``.

        Raises:
            ValueError: if it describes no tensors.
        """
        weights, others = given
        return cls(
            tuple(_weight(*given) for given in weights),
            tuple(Other(str(n), _shape(s)) for n, s in others),
        )


def _weight(name: str, shape: Any, groups: int, wide: bool | None = None) -> Weight:
    weight = Weight(str(name), _shape(shape), int(groups), bool(wide))
    if len(weight.shape) not in (2, 4) or weight.groups < 1 or weight.shape[0] % weight.groups:
        raise ValueError(f"{name} is no conv or linear weight: {shape}, groups: {groups}")
    return weight if wide is not None else replace(weight, wide=weight.is_wide)


def _shape(given: Any) -> tuple[int, ...]:
    shape = tuple(int(size) for size in given)
    if min(shape, default=1) < 0 or len(shape) > 8:
        raise ValueError(f"{shape} is no shape")
    return shape


@cache
def _catalogue() -> dict[str, Any]:
    text = resources.files("atmc_reader").joinpath("architectures.json").read_text()
    catalogue: dict[str, Any] = json.loads(text)
    return catalogue


def known_tensors(architecture: str, num_classes: int) -> Tensors | None:
    """The tensors of a known architecture, or None if it is not known.

    The catalogue has null where a shape has the number of classes.
    """
    given = _catalogue().get(architecture)
    if given is None:
        return None
    filled = [
        [[row[0], [num_classes if n is None else n for n in row[1]], *row[2:]] for row in rows]
        for rows in given
    ]
    return Tensors.from_json(filled)


@dataclass(frozen=True)
class FactorLayout:
    """What one factor's coded part holds.

    Attributes:
        count: its non-zeros.
        book: the size of its codebook; 0 if there is none.
        weights: how its positions are predicted.
        side: for a linear layer, the side of the square maps that it reads, 1 if unknown.
        rows, channels: how many rows and channels hold non-zeros, where it is marked which do.
    """

    count: int
    book: int = 0
    weights: Weights = NO_WEIGHTS
    side: int = 1
    rows: int | None = None
    channels: int | None = None


@dataclass(frozen=True)
class Header:
    """All that a file says ahead of its coded part.

    Attributes:
        architecture: a known architecture's name, ``onnx`` or ``own``.
        num_classes: the number of classes.
        bits: of a non-zero: 1 to 8 (a codebook), 16 or 32 (floats).
        k: the budget of non-zeros.
        extra: whatever else the network needs: ``mean`` and ``std`` of its normalisation,
            ``input_shape``, ``graph``, ``channels`` (which channel classes are kept, in
            hexadecimal), ``tensors`` where the architecture does not tell, and ``whole``, the
            shapes of a network of one's own before channels were dropped.
        tensors: the network's tensors.
        basis: for each weight, how many indices of the inner dimension U and V use.
        factors: U, V and C of each weight, in order.
        codebook_kind: how codebooks are stored.
        kinds: how the other tensors are stored: a kind for each last part of their names (weight,
            bias, running_mean, ...), in the order in which these first come.
        rising: for each of these, whether tensors whose numbers never fall are coded by steps.
    """

    architecture: str
    num_classes: int
    bits: int
    k: int
    extra: dict[str, Any]
    tensors: Tensors
    basis: tuple[int, ...]
    factors: tuple[FactorLayout, ...]
    codebook_kind: Kind
    kinds: tuple[Kind, ...]
    rising: tuple[bool, ...]


def file_of(header: Header, coded: bytes) -> bytes:
    """A whole file of version 3."""
    body = _header_bytes(header) + coded
    return MAGIC + bytes([VERSION]) + zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "little") + body


def body_of(content: bytes) -> memoryview:
    """What follows the checksum, which has been checked.

    Raises:
        ValueError: if it is no whole and unaltered file of version 3.
    """
    start = len(MAGIC) + 1 + _CHECKSUM_BYTES
    if content[: len(MAGIC)] != MAGIC or len(content) < start:
        raise ValueError("it does not begin as an artifact does")
    if content[len(MAGIC)] != VERSION:
        raise ValueError(
            f"format version {content[len(MAGIC)]}; this release reads versions up to {VERSION}: "
            "update it"
        )
    body = memoryview(content)[start:]
    if zlib.crc32(body) != int.from_bytes(content[start - _CHECKSUM_BYTES : start], "little"):
        raise ValueError("its checksum is another: it was cut or altered")
    return body


def groups_of(others: tuple[Other, ...]) -> dict[str, list[int]]:
    """The indices of the other tensors by the last part of their names."""
    groups: dict[str, list[int]] = {}
    for index, other in enumerate(others):
        groups.setdefault(other.name.rpartition(".")[2], []).append(index)
    return groups


def _header_bytes(header: Header) -> bytes:
    text = json.dumps(header.extra, separators=(",", ":")).encode() if header.extra else b""
    deflated = zlib.compress(text, 9) if text else b""
    name = header.architecture.encode()
    parts = [
        _varint(len(name)),
        name,
        _varint(header.num_classes),
        bytes([header.bits]),
        _varint(header.k),
        _varint(len(deflated)),
        deflated,
    ]
    for index, weight in enumerate(header.tensors.weights):
        own = header.factors[3 * index : 3 * index + 3]
        parts += [_factor_bytes(weight, factor, header.bits) for factor in own]
        if own[0].count or own[1].count:
            parts.append(_varint(header.basis[index]))
    flagged = zip(header.kinds, header.rising, strict=True)
    parts.append(bytes([header.codebook_kind, *(kind | _RISING * up for kind, up in flagged)]))
    return b"".join(parts)


def _stored_weights(weight: Weight, side: int) -> int:
    """How many of the weights are stored: the last ones are for kernels alone."""
    return len(NO_WEIGHTS) if prod(weight.kernel) > 1 or side > 1 else 3


def _factor_bytes(weight: Weight, factor: FactorLayout, bits: int) -> bytes:
    if not factor.count:
        return _varint(0)
    flags = _HAS_WEIGHTS if any(factor.weights) else 0
    flags |= (factor.rows is not None) * _HAS_ROWS + (factor.channels is not None) * _HAS_CHANNELS
    parts = [_varint(factor.count)]
    if bits <= CODEBOOK_BITS:
        parts.append(_varint(factor.book))
    parts.append(_varint(flags | (factor.side - 1) << _SIDE_SHIFT))
    if flags & _HAS_WEIGHTS:
        stored = factor.weights[: _stored_weights(weight, factor.side)]
        parts.append(bytes(each & 255 for each in stored))
    parts += [_varint(n) for n in (factor.rows, factor.channels) if n is not None]
    return b"".join(parts)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; all bytes but the last have their highest bit set."""
    parts = bytearray()
    while number >= 128:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


class _Bytes:
    """Reads a header."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self.place = 0

    def take(self, count: int) -> bytes:
        if count > len(self._content) - self.place:
            raise ValueError("its header ends early")
        self.place += count
        return bytes(self._content[self.place - count : self.place])

    def varint(self) -> int:
        number = shift = 0
        while True:
            (byte,) = self.take(1)
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number
            if shift > 56:
                raise ValueError("its header has a number that is too long")


def parse(content: bytes) -> tuple[Header, bytes]:
    """The header of a file of version 3, and the coded part behind it.

    Nothing is allocated yet, and what the header announces has been found possible.

    Raises:
        ValueError: if it is no such file.
    """
    body = body_of(content)
    given = _Bytes(body)
    architecture = given.take(given.varint()).decode()
    num_classes, (bits,), k = given.varint(), given.take(1), given.varint()
    if bits not in (*range(1, CODEBOOK_BITS + 1), 16, 32):
        raise ValueError(f"{bits} bits a non-zero")
    extra = _inflated(given.take(given.varint()))
    stated = extra.get("tensors")
    tensors = known_tensors(architecture, num_classes) if stated is None else None
    if stated is not None:
        tensors = Tensors.from_json(stated)
    if tensors is None:
        raise ValueError(f"it does not describe the tensors of {architecture}")
    _check_size(tensors)
    factors, basis = [], []
    for weight in tensors.weights:
        own = [_factor(given, weight, role, bits) for role in range(3)]
        used = given.varint() if own[0].count or own[1].count else 0
        if used > weight.inner:
            raise ValueError(f"{weight.name}: a basis of {used} among {weight.inner}")
        factors += own
        basis.append(used)
    codebook_kind, *kinds = given.take(1 + len(groups_of(tensors.others)))
    header = Header(
        architecture, num_classes, bits, k, extra, tensors, tuple(basis), tuple(factors),
        Kind(codebook_kind), tuple(Kind(each & ~_RISING) for each in kinds),
        tuple(bool(each & _RISING) for each in kinds),
    )  # fmt: skip
    return header, bytes(body[given.place :])


def _inflated(deflated: bytes) -> dict[str, Any]:
    if not deflated:
        return {}
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(deflated, MOST_TEXT)
    except zlib.error as error:
        raise ValueError(f"its text cannot be inflated: {error}") from error
    if inflater.unconsumed_tail:
        raise ValueError(f"its text is longer than {MOST_TEXT} bytes")
    extra = json.loads(text)
    if not isinstance(extra, dict) or not isinstance(extra.get("whole", {}), dict):
        raise ValueError("its text is no JSON object as it should be")
    return extra


def _check_size(tensors: Tensors) -> None:
    entries = sum(prod(shape) for weight in tensors.weights for shape in weight.factor_shapes)
    entries += sum(other.size for other in tensors.others)
    if entries > MOST_ENTRIES:
        raise ValueError(f"it claims {entries} entries")


def _factor(given: _Bytes, weight: Weight, role: int, bits: int) -> FactorLayout:
    count = given.varint()
    if not count:
        return FactorLayout(0)
    size = prod(weight.factor_shapes[role])
    book = given.varint() if bits <= CODEBOOK_BITS else 0
    flags = given.varint()
    weights = NO_WEIGHTS
    if flags & _HAS_WEIGHTS:
        stored = given.take(_stored_weights(weight, (flags >> _SIDE_SHIFT) + 1))
        signed = (byte - 256 * (byte > 127) for byte in stored)
        weights = Weights(*signed)
    rows = given.varint() if flags & _HAS_ROWS else None
    channels = given.varint() if flags & _HAS_CHANNELS else None
    if count > size or book > min(count, MOST_VALUES) or (bits <= CODEBOOK_BITS and not book):
        raise ValueError(f"{weight.name}: {count} non-zeros of {book} values among {size} entries")
    return FactorLayout(count, book, weights, (flags >> _SIDE_SHIFT) + 1, rows, channels)
