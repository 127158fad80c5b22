"""Convolutions as loops over their non-zeros."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from atmc_core.codegen.kernels import Kernel
from atmc_core.codegen.values import Buffer, Value

# So many floats of a plane are computed at once: with them the results and what is read for them
# stay in the fastest cache.
_BLOCK = 2048
# What it costs to begin a row of a copy, in loads of eight floats.
_ROW_COST = 6

#: Given the text of what was computed and the variables of channel, row and column, the lines that
#: store the final result.
Epilogue = Callable[[str, list[str]], list[str]]


@dataclass(frozen=True)
class Convolution:
    """A convolution that is still to be written, since what follows may be written with it.

    Attributes:
        source: maps ``[1, inputs, H, W]``, a whole buffer.
        weight: float64 ``[outputs, inputs / groups, kh, kw]``.
        bias: float64 ``[outputs]``.
        stride, padding, dilation: along height and width.
        groups: the number of groups of channels.
        shape: that of its output, ``(1, outputs, h, w)``.
    """

    source: Value
    weight: Tensor
    bias: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    shape: torch.Size

    def scaled(self, factor: Tensor) -> "Convolution":
        """With the outputs times a factor each, float64 ``[outputs]``."""
        return self._with(self.weight * factor.view(-1, 1, 1, 1), self.bias * factor)

    def shifted(self, summand: Tensor) -> "Convolution":
        """With a summand for each output, float64 ``[outputs]``."""
        return self._with(self.weight, self.bias + summand)

    def _with(self, weight: Tensor, bias: Tensor) -> "Convolution":
        return Convolution(**(vars(self) | {"weight": weight, "bias": bias}))


class Layout:
    """How a convolution's input is laid out so that each weight reads one piece of memory.

    The input is padded, and of a stride of s every s-th row and column make a plane of their own.
    Then the entries that a weight meets lie one behind the other, row by row; between the rows lie
    some that count for nothing. Where these cost more than further copies, each column of the
    window has its planes, whose rows are as long as the output's.

    Args:
        convolution: the convolution.
        spread: whether each column of the window has its own planes.
    """

    def __init__(self, convolution: Convolution, spread: bool) -> None:
        c = convolution
        outputs, per_group, *window = c.weight.shape
        self.sizes = tuple(c.shape[2:])
        reach = [(side - 1) * dilation for side, dilation in zip(window, c.dilation, strict=True)]
        self.height, self.width = (
            size + end // stride
            for size, end, stride in zip(self.sizes, reach, c.stride, strict=True)
        )
        self.width = self.sizes[1] if spread else self.width
        self.packed = spread or any(c.padding) or c.stride != (1, 1)
        if not self.packed:
            self.height, self.width = c.source.view.shape[2:]
        self.plane = self.height * self.width
        weight = c.weight.float()
        output, within, row, column = weight.nonzero(as_tuple=True)
        inputs = within + output // (outputs // c.groups) * per_group
        row, column = row * c.dilation[0], column * c.dilation[1]
        first = column if spread else column % c.stride[1]
        shift = row // c.stride[0] * self.width + (column - first) // c.stride[1]
        # A plane's number is unique, and quicker to sort by than channel, row and column.
        phases, columns = c.stride[0], reach[1] + c.stride[1]
        keys = (inputs * phases + row % phases) * columns + first
        found, number = torch.unique(keys, return_inverse=True)
        #: The planes that are read: channel, first row and first column of each.
        self.planes = torch.stack(
            [found // (phases * columns), found // columns % phases, found % columns], 1
        )
        if not self.packed:
            number = inputs
        #: The last first column of a plane.
        self.reach = int(self.planes[:, 2].max()) if len(self.planes) else 0
        self.values = weight[weight != 0]
        self.offsets = number * self.plane + shift
        counts = torch.bincount(output, minlength=outputs)
        self.starts = F.pad(counts.cumsum(0), (1, 0))

    @classmethod
    def of(cls, convolution: Convolution) -> "Layout":
        """The quicker layout."""
        plain, spread = (cls(convolution, spread) for spread in (False, True))
        return spread if spread.cost < plain.cost else plain

    @property
    def cost(self) -> float:
        """How long the convolution takes, about, in loads of eight floats."""
        length = (self.sizes[0] - 1) * self.width + self.sizes[1]
        copied = len(self.planes) * self.height * (_ROW_COST + self.width / 8)
        return len(self.values) * _rounded(length) / 8 + self.packed * copied


def convolution(
    c: Convolution,
    out: Value,
    inputs: dict[str, Buffer],
    store: Epilogue,
    tables: dict[str, Tensor],
) -> Kernel:
    """A convolution as loops over its non-zeros, along rows of all positions.

    Args:
        c: the convolution.
        out: the buffer to write.
        inputs: what the epilogue reads.
        store: makes the lines that store an entry.
        tables: the tables of the epilogue.
    """
    layout = Layout.of(c)
    height, width = layout.sizes
    rows = max(1, min(height, _BLOCK // layout.width))
    lines, scratch, source = [], None, "source"
    if layout.packed:
        scratch, source = Buffer(max(1, len(layout.planes)) * layout.plane), "scratch"
        lines += _packing(c, layout)
    lines += [
        f"float sums[{_rounded(rows * layout.width)}];",
        f"for (int top = 0; top < {height}; top += {rows}) {{",
        f"    const int rows = top + {rows} < {height} ? {rows} : {height} - top;",
        f"    for (int c = 0; c < {len(c.weight)}; c++) {{",
        f"        const float *planes = {source} + top * {layout.width};",
        "        const int first = STARTS[c], count = STARTS[c + 1] - STARTS[c];",
        f"        const int length = ((rows - 1) * {layout.width} + {width} + 7) / 8 * 8;",
        "        weigh(sums, planes, OFFSETS + first, WEIGHTS + first, count, BIAS[c], length);",
        "        for (int y = 0; y < rows; y++) {",
        f"            for (int x = 0; x < {width}; x++) {{",
        *(
            "                " + line
            for line in store(f"sums[y * {layout.width} + x]", ["c", "(top + y)", "x"])
        ),
        "            }",
        "        }",
        "    }",
        "}",
    ]
    # Compilers that see a table of a few entries warn of a group of eight that is never read.
    missing = max(0, 8 - len(layout.values))
    own = {
        "OFFSETS": F.pad(layout.offsets, (0, missing)).int(),
        "STARTS": layout.starts.int(),
        "WEIGHTS": F.pad(layout.values, (0, missing)),
        "BIAS": c.bias.float(),
    }
    if layout.packed:
        own["PLANES"] = layout.planes.int().flatten()
    return Kernel(
        out.buffer,
        {"source": c.source.buffer} | inputs,
        lines,
        own | tables,
        scratch,
        len(layout.values) * height * width,
    )


def _rounded(length: int) -> int:
    """The next multiple of eight, since ``weigh`` computes eight sums at a time."""
    return -(-length // 8) * 8


def _packing(c: Convolution, layout: Layout) -> list[str]:
    """The lines that lay the input out in ``scratch``."""
    height, width = c.source.view.shape[2:]
    (up, left), (down, right) = c.padding, c.stride
    row = [
        f"const int from_row = first + y * {down};",
        f"float *to_row = to + y * {layout.width};",
        f"lay_out(to_row, {layout.width}, from, from_row, left, {right}, {height}, {width});",
    ]
    reach = (layout.height * down, layout.width * right)
    inside = reach[0] <= height and reach[1] + layout.reach <= width
    if not any(c.padding) and inside:
        row = [
            f"const float *row = from + (first + y * {down}) * {width} + left;",
            f"for (int x = 0; x < {layout.width}; x++) {{",
            f"    to[y * {layout.width} + x] = row[{'x' if right == 1 else f'x * {right}'}];",
            "}",
        ]
    return [
        f"for (int p = 0; p < {len(layout.planes)}; p++) {{",
        f"    const float *from = source + PLANES[3 * p] * {height * width};",
        f"    float *to = scratch + p * {layout.plane};",
        f"    const int first = PLANES[3 * p + 1] - {up}, left = PLANES[3 * p + 2] - {left};",
        f"    for (int y = 0; y < {layout.height}; y++) {{",
        *("        " + line for line in row),
        "    }",
        "}",
    ]
