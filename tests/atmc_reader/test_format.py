"""The example of docs/format.md, decoded by what the page says and with integers alone."""

import zlib
from collections.abc import Callable
from math import isqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from atmc_core import artifact
from atmc_core.artifact import CompressedModel
from atmc_core.factors.factors import Factors
from atmc_core.factors.views import compressible_weights
from atmc_core.networks.classifier import Normalization
from atmc_reader.coder import Writer
from atmc_reader.layout import parse
from atmc_reader.positions import Matrix, Weights, by_kernel, code_matrix
from atmc_reader.values import Kind, code_floats
from tests.docs.blocks import block

PAGE = Path(__file__).parents[2] / "docs" / "format.md"
WHOLE = 1 << 24


class _Ans:
    """The coder, as the page has it."""

    def __init__(self, content: bytes) -> None:
        content += bytes(-len(content) % 4)
        self.words = [
            int.from_bytes(content[i : i + 4], "little") for i in range(0, len(content), 4)
        ]
        self.state = 0
        self._fill()

    def _fill(self) -> None:
        while self.state < 1 << 32 and self.words:
            self.state = self.state << 32 | self.words.pop()

    def symbol(self, frequencies: list[int]) -> int:
        q, before = self.state % WHOLE, 0
        for symbol, frequency in enumerate(frequencies):
            if before <= q < before + frequency:
                self.state = frequency * (self.state // WHOLE) + q - before
                self._fill()
                return symbol
            before += frequency
        raise AssertionError("the frequencies do not add up to 2^24")

    def plain(self, width: int) -> int:
        return self.symbol([WHOLE >> width] * (1 << width))

    def symbols(self, alphabet: int, weigh: Callable[[list[int]], list[int]], n: int) -> list[int]:
        found: list[int] = []
        while len(found) < n and alphabet > 1:
            model = _shares(weigh([found.count(i) for i in range(alphabet)]))
            step = max(16, len(found) // 2)
            found += [self.symbol(model) for _ in range(min(step, n - len(found)))]
        return found

    def integers(self, width: int, n: int) -> list[int]:
        lengths = self.symbols(width + 1, lambda counts: [32 * c + 1 for c in counts], n)
        found = [1 << length >> 1 for length in lengths]
        for wanted in range(2, width + 1):
            for place, length in enumerate(lengths):
                if length == wanted:
                    found[place] += self.plain(length - 1)
        return found

    def bits(self, classes: list[int]) -> list[int]:
        found: list[int] = []
        whole = len(classes) // 8 * 8
        for start in range(0, whole, 8):
            byte = self.symbol(_eight(classes[start + 4]))
            found += [byte >> shift & 1 for shift in range(7, -1, -1)]
        for _ in classes[whole:]:
            one = _one(classes[-1])
            found.append(self.symbol([WHOLE - one, one]))
        return found


def _shares(weights: list[int]) -> list[int]:
    found = [1 + w * (WHOLE - len(weights)) // sum(weights) for w in weights]
    found[0] += WHOLE - sum(found)
    return found


def _one(class_: int) -> int:
    r = isqrt(1 << (class_ + 38))
    return (r << 24) // (r + (1 << 32))


def _eight(class_: int) -> list[int]:
    one = _one(class_)
    found = []
    for byte in range(256):
        ones = byte.bit_count()
        found.append(1 + (one**ones * (WHOLE - one) ** (8 - ones) * (WHOLE - 256) >> 192))
    found[0] += WHOLE - sum(found)
    return found


def _log(x: int) -> int:
    exponent = x.bit_length() - 1
    i = (x << 8) >> exponent
    return 256 * exponent + (i**256).bit_length() - 1 - 8 * 256


def _class(ones: int, zeros: int) -> int:
    return min(max((_log(ones) - _log(zeros) + 26 * 128 + 64) // 128, 0), 40)


def _smoothly(counts: list[int]) -> list[int]:
    a, t, h = len(counts), sum(counts), max(1, len(counts) // 8)
    found = []
    for i, c in enumerate(counts):
        around = counts[max(i - h, 0) : i + h + 1]
        s, v = sum(around), len(around)
        found.append(16 * c + 64 * a * (20 * s + v) // (v * (20 * t + a)))
    return found


def _example() -> bytes:
    return bytes.fromhex(block("docs/format.md", "41 54 4d 43"))


def _model() -> CompressedModel:
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
    (view,) = compressible_weights(network).values()
    v = torch.zeros(1, 2, 8)
    v[0, 0, 1], v[0, 0, 6], v[0, 1, 0] = 0.5, -0.25, 0.5
    factors = {"1.weight": Factors(view, torch.zeros(1, 2, 2), v, torch.zeros(1, 2, 8))}
    others = {"1.bias": torch.tensor([0.25, -1.5])}
    return CompressedModel("own", 0, Normalization(), factors, others, 1, 3, module=network)


def test_the_example_is_what_is_written_and_says_what_the_page_says() -> None:
    content = _example()
    # Not byte for byte: other builds of zlib make other bytes of the text.
    assert parse(artifact.encode(_model())) == parse(content)
    assert content[:5] == b"ATMC\x03"
    assert int.from_bytes(content[5:9], "little") == zlib.crc32(content[9:])
    header = content[9:]
    assert header[:7] == b"\x03own\x00\x01\x03"
    end = 8 + header[7]
    text = b'{"tensors":[[["1.weight",[2,8],1]],[["1.bias",[2]]]]}'
    assert zlib.decompress(header[8:end]) == text
    assert header[end : end + 9] == bytes.fromhex("00 03 02 04 03 00 02 01 02")

    ans = _Ans(header[end + 9 :])
    channels = ans.bits([_class(3, 5)] * 8)
    live = [place for place, bit in enumerate(channels) if bit]
    assert live == [0, 1, 6]
    bits = ans.bits([_class(3, 3)] * 6)
    found = [divmod(place, 3) for place, bit in enumerate(bits) if bit]
    assert [(row, live[column]) for row, column in found] == [(0, 1), (0, 6), (1, 0)]
    assert ans.symbols(2, _smoothly, 3) == [1, 0, 1]
    first = ans.plain(16)
    book = [first, first + ans.integers(16, 1)[0]]
    patterns = [key ^ 0x8000 if key & 0x8000 else key ^ 0xFFFF for key in book]
    assert np.array(patterns, np.uint16).view(np.float16).tolist() == [-0.25, 0.5]
    exponent = ans.plain(9) - 149
    assert ans.plain(1) == 0
    magnitudes = ans.integers(7, 2)
    signs = [ans.plain(1) for _ in magnitudes]
    values = [(-1) ** sign * m * 2.0**exponent for sign, m in zip(signs, magnitudes, strict=True)]
    assert values == [0.25, -1.5]
    assert (ans.state, ans.words) == (0, [])


def test_rising_tensors_are_read_as_the_page_says() -> None:
    rising, other = [-3.5, -0.25, -0.25, 0.0, 1.5, 96.0], [0.5, -2.0, 0.125]
    values, writer = np.array(rising + other, np.float32), Writer()
    code_floats(writer, Kind.FLOAT16, [6, 3], values, rising=True)
    ans = _Ans(writer.content())
    assert [ans.plain(1), ans.plain(1)] == [1, 0]
    keys = [ans.plain(16)]
    for step in ans.integers(16, 5):
        keys.append(keys[-1] + step)
    patterns = [key ^ 0x8000 if key & 0x8000 else key ^ 0xFFFF for key in keys]
    planes = []
    for width in (5, 3, 8):
        if ans.plain(1):
            planes.append(ans.symbols(1 << width, lambda counts: [32 * c + 1 for c in counts], 3))
        else:
            planes.append([ans.plain(width) for _ in other])
    for parts in zip(*planes, strict=True):
        turned = parts[0] << 11 | parts[1] << 8 | parts[2]
        patterns.append(turned >> 1 | (turned & 1) << 15)
    assert np.array(patterns, np.uint16).view(np.float16).tolist() == rising + other
    assert (ans.state, ans.words) == (0, [])


@pytest.mark.parametrize(("shape", "kernel"), [((20, 54), (3, 3)), ((37, 41), (1, 1))])
def test_positions_are_coded_as_the_page_says(
    shape: tuple[int, int], kernel: tuple[int, int]
) -> None:
    random = np.random.default_rng(0)
    dense = random.random(shape[0])[:, None] * random.random(shape[1])
    marks = random.random(shape) < dense
    marks[3] = marks[:, 7] = False
    places = np.nonzero(marks)
    weights = Weights(-9, 25, 13, 21, 26, 25, 30) if kernel != (1, 1) else Weights(3, -31, 40)
    counted = by_kernel(weights.kernel, kernel[0] * kernel[1])
    matrix, writer = Matrix(*shape, kernel, int(marks.sum()), by_kernel=counted), Writer()
    code_matrix(writer, matrix, weights, matrix.folded(*places))
    found = _positions(_Ans(writer.content()), shape, kernel, int(marks.sum()), weights)
    assert found == set(zip(*(each.tolist() for each in places), strict=True))


def _positions(
    ans: _Ans, shape: tuple[int, int], kernel: tuple[int, int], ones: int, weights: Weights
) -> set[tuple[int, int]]:
    """The positions in a matrix, entry by entry."""
    area, zeros = kernel[0] * kernel[1], shape[0] * shape[1] - ones
    found: set[tuple[int, int]] = set()
    seen: set[tuple[int, int]] = set()

    def excess(belongs: Callable[[int, int], bool]) -> int:
        s = sum(belongs(*entry) for entry in seen)
        o = sum(belongs(*entry) for entry in found)
        return _log((o + 2) * zeros) - _log((s - o) * ones + 2 * zeros)

    for number in range(16):
        rows = [excess(lambda r, _, i=row: r == i) for row in range(shape[0])]  # type: ignore[misc]
        columns = [
            excess(lambda _, c, j=column: c == j)  # type: ignore[misc]
            for column in range(shape[1])
        ]
        channels = [
            excess(lambda _, c, j=channel: c // area == j)  # type: ignore[misc]
            for channel in range(shape[1] // area)
        ]
        cells = [
            excess(lambda _, c, j=cell: c % area == j)  # type: ignore[misc]
            for cell in range(area)
        ]
        entries = [
            (row, column)
            for row in range(shape[0])
            for column in range(shape[1])
            if (row + column) % 16 == number
        ]
        classes = {}
        for row, column in entries:
            r = weights.row * rows[row] // 32 + _log(ones) - _log(zeros) + 8 * weights.constant
            s = weights.column * columns[column] // 32
            s += weights.channel * channels[column // area] // 32
            s += weights.cell * cells[column % area] // 32
            y, x = divmod(column % area, kernel[1])
            start = column - column % area
            near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            neighbours = sum(
                0 <= v < kernel[0]
                and 0 <= u < kernel[1]
                and (row, start + v * kernel[1] + u) in found
                for v, u in near
            )
            odds = min(max(r, -6144), 6144) + min(max(s, -6144), 6144)
            kernel_ones = sum(r == row and start <= c < start + area for r, c in found)
            odds += 8 * weights.neighbour * neighbours
            odds += weights.kernel * _log(1 + kernel_ones) // 32 + 3328 + 64
            classes[row, column] = min(max(odds // 128, 0), 40)
        entries.sort(key=lambda entry: classes[entry])
        bits = ans.bits([classes[entry] for entry in entries])
        seen.update(entries)
        found.update(entry for entry, bit in zip(entries, bits, strict=True) if bit)
    assert (ans.state, ans.words) == (0, [])
    return found
