"""The kernels that a network's C file is made of, as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from atmc_core.codegen.loops import Operand, collapsed, index, nest
from atmc_core.codegen.pointwise import literal
from atmc_core.codegen.values import Buffer, Value

# From this share of non-zeros on, a matrix is written as a whole, without positions.
_DENSE = 0.25


@dataclass
class Kernel:
    """A C function that computes one buffer of others.

    Attributes:
        output: the buffer that it writes.
        inputs: the buffers that it reads, by the names of its parameters.
        lines: the function's body.
        tables: constants that it reads, by name: float32, or int32 for places.
        scratch: memory that it needs while it runs.
        multiply_adds: how many multiplications it makes with weights that are not zero.
    """

    output: Buffer
    inputs: dict[str, Buffer]
    lines: list[str]
    tables: Mapping[str, Tensor] = field(default_factory=dict)
    scratch: Buffer | None = None
    multiply_adds: int = 0


def product(source: Value, weight: Tensor, bias: Tensor, out: Value) -> Kernel:
    """A vector times a matrix.

    Args:
        source: the vector, ``[inputs]`` entries, a whole buffer.
        weight: float64 ``[outputs, inputs]``.
        bias: float64 ``[outputs]``.
        out: the result, ``[outputs]`` entries.
    """
    matrix = weight.float()
    outputs, inputs = matrix.shape
    nonzero = matrix.count_nonzero()
    read = {"source": source.buffer}
    if nonzero >= _DENSE * matrix.numel():
        lines = [
            f"for (int j = 0; j < {outputs}; j++) out[j] = BIAS[j];",
            f"for (int i = 0; i < {inputs}; i++) {{",
            f"    for (int j = 0; j < {outputs}; j++) {{",
            f"        out[j] = MULTIPLY_ADD(WEIGHTS[i * {outputs} + j], source[i], out[j]);",
            "    }",
            "}",
        ]
        tables = {"BIAS": bias.float(), "WEIGHTS": matrix.T.contiguous().flatten()}
        return Kernel(out.buffer, read, lines, tables, multiply_adds=int(nonzero))
    # By columns, so that the sums that grow one after the other are those of different rows.
    column, row = matrix.T.nonzero(as_tuple=True)
    lines = [
        f"for (int j = 0; j < {outputs}; j++) out[j] = BIAS[j];",
        f"for (int i = 0; i < {len(row)}; i++) {{",
        "    out[ROWS[i]] = MULTIPLY_ADD(WEIGHTS[i], source[COLUMNS[i]], out[ROWS[i]]);",
        "}",
    ]
    tables = {
        "BIAS": bias.float(),
        "WEIGHTS": matrix[row, column],
        "ROWS": row.int(),
        "COLUMNS": column.int(),
    }
    return Kernel(out.buffer, read, lines, tables, multiply_adds=int(nonzero))


def products(a: Value, b: Value, out: Value) -> Kernel:
    """Products of matrices ``[n, rows, k]`` and ``[n, k, columns]``, all of them results."""
    n, rows, inner = a.view.shape
    columns = b.view.shape[2]
    lines = nest(
        [n, rows],
        lambda v: [
            f"float *row = out + ({v[0]} * {rows} + {v[1]}) * {columns};",
            f"for (int j = 0; j < {columns}; j++) row[j] = 0.0f;",
            f"for (int k = 0; k < {inner}; k++) {{",
            f"    const float factor = left[({v[0]} * {rows} + {v[1]}) * {inner} + k];",
            f"    const float *other = right + ({v[0]} * {inner} + k) * {columns};",
            f"    for (int j = 0; j < {columns}; j++) {{",
            "        row[j] = MULTIPLY_ADD(factor, other[j], row[j]);",
            "    }",
            "}",
        ],
    )
    read = {"left": a.buffer, "right": b.buffer}
    return Kernel(out.buffer, read, lines, multiply_adds=n * rows * inner * columns)


@dataclass(frozen=True)
class Window:
    """The windows of a pool.

    Attributes:
        size, stride, padding, dilation: along height and width.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


def pool(source: Value, out: Value, window: Window, divisors: Tensor | None) -> Kernel:
    """A pool: the rows of a window are joined first, entry by entry, then their columns.

    Args:
        source: maps ``[1, C, H, W]``, a whole buffer.
        out: maps ``[1, C, h, w]``.
        window: the windows.
        divisors: what each window's sum is divided by, float32 ``[h, w]``; None for maxima.
    """
    channels, height, width = source.view.shape[1:]
    rows, columns = out.view.shape[2:]
    left = window.padding[1]
    reach = (columns - 1) * window.stride[1] + (window.size[1] - 1) * window.dilation[1] + 1
    padded = max(reach, left + width)
    start = "-INFINITY" if divisors is None else "0.0f"

    def joined(a: str, b: str) -> str:
        return f"{a} < {b} ? {b} : {a}" if divisors is None else f"{a} + {b}"

    factor, tables = "", {}
    if divisors is not None:
        factors = 1 / divisors.flatten()
        factor, tables = f" * FACTORS[i1 * {columns} + x]", {"FACTORS": factors}
        if (factors == factors[0]).all():
            factor, tables = f" * {literal(float(factors[0]))}", {}
    column = f"x * {window.stride[1]}"
    inside = window.padding[0] == 0 and height >= (
        (rows - 1) * window.stride[0] + (window.size[0] - 1) * window.dilation[0] + 1
    )

    def row_of_windows(channel: str, row: str) -> list[str]:
        """The lines that join the rows of a row of windows, of which some may be outside."""
        top = f"{row} * {window.stride[0]} - {window.padding[0]}"
        lines = [f"const float *row = source + {channel} * {height * width};"]
        if inside:
            lines += [f"row += ({top}) * {width};", f"for (int x = 0; x < {width}; x++) {{"]
            lines.append("    float best = row[x];")
            for k in range(1, window.size[0]):
                lines.append(
                    f"    const float next{k} = row[x + {k * window.dilation[0] * width}];"
                )
                lines.append(f"    best = {joined('best', f'next{k}')};")
            return [*lines, f"    joined[x + {left}] = best;", "}"]
        return [
            *lines,
            f"for (int x = {left}; x < {left + width}; x++) joined[x] = {start};",
            f"for (int k = 0; k < {window.size[0]}; k++) {{",
            f"    const int y = {top} + k * {window.dilation[0]};",
            f"    if (y < 0 || y >= {height}) continue;",
            f"    for (int x = 0; x < {width}; x++) {{",
            f"        const float next = row[y * {width} + x];",
            f"        joined[x + {left}] = {joined(f'joined[x + {left}]', 'next')};",
            "    }",
            "}",
        ]

    lines = [
        f"float joined[{padded}];",
        f"for (int x = 0; x < {padded}; x++) joined[x] = {start};",
        *nest(
            [channels, rows],
            lambda v: [
                *row_of_windows(*v),
                f"for (int x = 0; x < {columns}; x++) {{",
                f"    float best = joined[{column}];",
                f"    for (int k = 1; k < {window.size[1]}; k++) {{",
                f"        const float next = joined[{column} + k * {window.dilation[1]}];",
                f"        best = {joined('best', 'next')};",
                "    }",
                f"    out[({v[0]} * {rows} + {v[1]}) * {columns} + x] = best{factor};",
                "}",
            ],
        ),
    ]
    return Kernel(out.buffer, {"source": source.buffer}, lines, tables)


def reduction(
    source: Value, out: Value, dims: Sequence[int], maximum: bool, factor: float
) -> Kernel:
    """A sum or maximum over some axes, times a factor.

    Args:
        source: the tensor.
        out: the result, whose axes ``dims`` have one entry.
        dims: the axes.
        maximum: whether it is a maximum.
        factor: of the result; of a mean, one over the number of entries.
    """
    view, result = source.view, out.view
    strides = [0 if axis in dims else step for axis, step in enumerate(result.stride())]
    start = "-INFINITY" if maximum else "0.0f"

    def join(total: str, entry: str) -> str:
        if maximum:
            return f"{total} = {total} < {entry} ? {entry} : {total};"
        return f"{total} += {entry};"

    kept = [axis for axis in range(view.ndim) if axis not in dims]
    over = sorted(dims)
    fastest = min(
        (axis for axis in range(view.ndim) if view.shape[axis] > 1),
        key=lambda axis: view.stride()[axis],
        default=0,
    )
    read, write = "source", "out"

    def operands(axes: Sequence[int]) -> tuple[list[int], list[Operand]]:
        return collapsed(
            [view.shape[axis] for axis in axes],
            [
                Operand(read, source.offset, tuple(view.stride()[axis] for axis in axes)),
                Operand(write, 0, tuple(strides[axis] for axis in axes)),
            ],
        )

    if fastest in kept:
        # Along the memory lie entries of different sums, so the sums grow side by side.
        sizes, (entry, total) = operands([*over, *kept])
        count = result.numel()
        lines = [f"for (int i = 0; i < {count}; i++) out[i] = {start};"]
        lines += nest(sizes, lambda v: [join(total.at(v), entry.at(v))])
        if factor != 1:
            lines.append(f"for (int i = 0; i < {count}; i++) out[i] *= {literal(factor)};")
        return Kernel(out.buffer, {read: source.buffer}, lines)
    sizes, (entry, total) = operands(kept)
    inner_sizes, (inner, _) = operands(over)

    def one(v: list[str]) -> list[str]:
        *outer_sizes, last = inner_sizes or [1]
        place = index(entry.offset, entry.strides, v)

        def at(u: list[str], position: str) -> str:
            variables = [*u, position] if inner_sizes else []
            return f"source[{place} + {index(0, inner.strides, variables)}]"

        # Eight sums side by side, which a compiler may keep in one register.
        return [
            "float sums[8];",
            f"for (int l = 0; l < 8; l++) sums[l] = {start};",
            *nest(
                outer_sizes,
                lambda u: [
                    "int k = 0;",
                    f"for (; k + 8 <= {last}; k += 8) {{",
                    f"    for (int l = 0; l < 8; l++) {{ {join('sums[l]', at(u, '(k + l)'))} }}",
                    "}",
                    f"for (; k < {last}; k++) {{ {join('sums[0]', at(u, 'k'))} }}",
                ],
                "j",
            ),
            f"for (int l = 1; l < 8; l++) {{ {join('sums[0]', 'sums[l]')} }}",
            f"{total.at(v)} = sums[0]{'' if factor == 1 else f' * {literal(factor)}'};",
        ]

    lines = nest(sizes, one) if sizes else ["{", *one([]), "}"]
    return Kernel(out.buffer, {read: source.buffer}, lines)


def gather(source: Value, out: Value, places: Tensor) -> Kernel:
    """Entries of a buffer in another order, by a table of places, int64 of the result's shape."""
    lines = [f"for (int i = 0; i < {places.numel()}; i++) out[i] = source[PLACES[i]];"]
    tables = {"PLACES": places.flatten().int()}
    return Kernel(out.buffer, {"source": source.buffer}, lines, tables)


def copies(parts: Sequence[tuple[Value, Value]], out: Value, fill: float | None) -> Kernel:
    """Tensors copied into parts of a new one.

    Args:
        parts: each tensor with the part of ``out``, of its shape, that it goes to.
        out: the new tensor.
        fill: what is written to the rest first; None if nothing is left over.
    """
    lines = []
    if fill is not None:
        lines.append(f"for (int i = 0; i < {out.buffer.size}; i++) out[i] = {literal(fill)};")
    inputs = {}
    for number, (value, target) in enumerate(parts):
        name = f"part{number}"
        inputs[name] = value.buffer
        sizes, (read, write) = collapsed(
            value.view.shape,
            [
                Operand(name, value.offset, value.view.stride()),
                Operand("out", target.offset, target.view.stride()),
            ],
        )
        lines += nest(sizes, lambda v, r=read, w=write: [f"{w.at(v)} = {r.at(v)};"])  # type: ignore[misc]
    return Kernel(out.buffer, inputs, lines)
