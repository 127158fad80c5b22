"""The C file of a network."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from atmc_core.codegen.kernels import Kernel
from atmc_core.codegen.lowering import Lowering
from atmc_core.codegen.pointwise import literal
from atmc_core.codegen.refusal import NotCovered
from atmc_core.codegen.tracing import trace
from atmc_core.codegen.values import Buffer, place

#: The largest number of constants of a file; with more of them compilers take minutes.
MAX_CONSTANTS = 4_000_000
# How many constants stand on a line.
_A_LINE = 8

_HEAD = """\
/* A trained image classifier as one C99 file without dependencies, made by ATMC.
 *
 * {model}(image, logits) computes the logits of one image. image: {channels} channels of
 * {height} rows of {width} floats in [0, 1]; logits: {classes} floats. The weights' zeros are left
 * out: the loops run over the non-zeros and, for each, along all positions. {multiply_adds}
 * multiply-adds with weights that are not zero, {constants} constants, {memory} bytes of memory
 * for results.
 * It is not reentrant: the results between the layers lie in one static array.
 *
 *     cc -O3 -march=native -std=c99 -c model.c
 *     cc -O3 -march=native -std=c99 -DATMC_MAIN model.c -o model -lm
 *     ./model image.{suffix}         (prints the logits, a line each)
 */
#include <math.h>

#define {prefix}_CHANNELS {channels}
#define {prefix}_HEIGHT {height}
#define {prefix}_WIDTH {width}
#define {prefix}_CLASSES {classes}

#ifdef FP_FAST_FMAF
#define MULTIPLY_ADD(a, b, c) fmaf(a, b, c)
#else
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

"""

_MAIN = """
#ifdef ATMC_MAIN
#include <stdio.h>

/* Reads an image of {height} rows, a binary {kind} of 8 bits, and prints the logits. */
int main(int count, char **arguments) {{
    static float image[{pixels}], logits[{classes}];
    int width = 0, height = 0, largest = 0, ok;
    FILE *file = count == 2 ? fopen(arguments[1], "rb") : NULL;
    ok = file && fscanf(file, "{magic} %d %d %d", &width, &height, &largest) == 3;
    ok = ok && width == {width} && height == {height} && largest == 255 && fgetc(file) != EOF;
    for (int i = 0; ok && i < {pixels}; i++) {{
        const int byte = fgetc(file);
        ok = byte != EOF;
        image[i % {channels} * {plane} + i / {channels}] = (float)byte / 255.0f;
    }}
    if (!ok) {{
        fprintf(stderr, "usage: %s FILE, a binary {kind} of {width}x{height}\\n", arguments[0]);
        return 2;
    }}
    {model}(image, logits);
    for (int i = 0; i < {classes}; i++) printf("%.9g\\n", (double)logits[i]);
    return fclose(file) != 0;
}}
#endif
"""

# Weighs planes: sums[p] = bias + the sum over i of weights[i] * planes[offsets[i] + p].
_WEIGH = """\
/* sums[p] = bias + the sum over i < count of weights[i] * planes[offsets[i] + p], for p < length,
 * which is a multiple of eight. */
static void {name}_weigh(float *restrict sums, const float *restrict planes, const int *offsets,
                  const float *weights, int count, float bias, int length) {
    int done = 0;
    if (count == 0) for (int p = 0; p < length; p++) sums[p] = bias;
"""

_LAY_OUT = """\
/* Every stride-th entry of a row, from the column left on, and zeros beside the map. */
static void {name}_lay_out(float *restrict to, int length, const float *restrict map, int y,
                    int left, int stride, int height, int width) {
    const float *row = map + y * width + left;
    int begin = left < 0 ? (-left + stride - 1) / stride : 0;
    int end = width > left ? (width - left + stride - 1) / stride : 0;
    if (end > length) end = length;
    if (y < 0 || y >= height) begin = end = length;
    if (begin > length) begin = length;
    if (end < begin) end = begin;
    for (int x = 0; x < begin; x++) to[x] = 0.0f;
    if (stride == 1) for (int x = begin; x < end; x++) to[x] = row[x];
    else for (int x = begin; x < end; x++) to[x] = row[x * stride];
    for (int x = end; x < length; x++) to[x] = 0.0f;
}
"""


def c_source(network: nn.Module, shape: tuple[int, int, int], name: str = "atmc_model") -> str:
    """Write a classifier as a C file.

    Args:
        network: maps images ``[N, C, H, W]`` in [0, 1] to logits ``[N, classes]``; not changed.
        shape: that of an image, ``(C, H, W)``.
        name: the name of the C function; it begins the names of the file's constants, too.

    Raises:
        NotCovered: if the network has an operation that is not written as C, or more than
            ``MAX_CONSTANTS`` constants.
    """
    with torch.no_grad():
        lowering = Lowering.of(trace(network, shape))
    constants = sum(t.numel() for kernel in lowering.kernels for t in kernel.tables.values())
    if constants > MAX_CONSTANTS:
        raise NotCovered(
            f"it would have {constants:,} constants, and compilers take too long above "
            f"{MAX_CONSTANTS:,}"
        )
    return _assembled(lowering, shape, name, constants)


def _assembled(lowering: Lowering, shape: tuple[int, int, int], name: str, constants: int) -> str:
    offsets, floats = _placed(lowering)
    # ``weigh`` reads up to seven floats beyond the last map.
    floats += 8
    channels, height, width = shape
    facts = {
        "model": name,
        "prefix": name.upper(),
        "channels": channels,
        "height": height,
        "width": width,
        "plane": height * width,
        "pixels": channels * height * width,
        "classes": lowering.logits.size,
        "multiply_adds": f"{sum(kernel.multiply_adds for kernel in lowering.kernels):,}",
        "constants": f"{constants:,}",
        "memory": f"{4 * floats:,}",
        "kind": "PPM (P6)" if channels == 3 else "PGM (P5)",
        "magic": "P6" if channels == 3 else "P5",
        "suffix": "ppm" if channels == 3 else "pgm",
    }
    parts = [_HEAD.format(**facts)]
    text = [line for kernel in lowering.kernels for line in kernel.lines]
    if any("weigh(" in line for line in text):
        parts.append(_weigh().replace("{name}", name))
    if any("lay_out(" in line for line in text):
        parts.append(_LAY_OUT.replace("{name}", name))
    calls = []
    for number, kernel in enumerate(lowering.kernels):
        parts.append(_function(name, f"{name}_{number}", kernel))
        calls.append(_call(f"{name}_{number}", kernel, lowering, offsets))
    parts.append(
        f"\n/* The logits of an image; see above. */\n"
        f"void {name}(const float *image, float *logits);\n"
        f"void {name}(const float *image, float *logits) {{\n"
        f"    static float memory[{floats}];\n"
        + "".join(f"    {call}\n" for call in calls)
        + f"    for (int i = 0; i < {lowering.logits.size}; i++) "
        f"logits[i] = memory[{offsets[lowering.logits]} + i];\n}}\n"
    )
    if channels in (1, 3):
        parts.append(_MAIN.format(**facts))
    return "".join(parts)


def _placed(lowering: Lowering) -> tuple[dict[Buffer, int], int]:
    """Where each buffer lies in the file's memory, and its size; in floats."""
    spans: dict[Buffer, tuple[int, int]] = {}
    for step, kernel in enumerate(lowering.kernels):
        used = [kernel.output, *kernel.inputs.values()]
        for buffer in [*used, kernel.scratch] if kernel.scratch else used:
            first, _ = spans.get(buffer, (step, step))
            spans[buffer] = (first, step)
    spans.pop(lowering.image, None)
    first, _ = spans[lowering.logits]
    spans[lowering.logits] = (first, len(lowering.kernels))
    return place(spans)


def _weigh() -> str:
    """The function that weighs planes, by eight, four, two planes and one at a time."""
    lines = [_WEIGH]
    for start in ("bias", "sums[p]"):
        for group in (8, 4, 2, 1):
            term = start
            for i in range(group):
                term = f"MULTIPLY_ADD(w[{i}], x{i}[p], {term})"
            # The first group needs no sums before it.
            again = "while" if start != "bias" else "if"
            guard = "done + " if start != "bias" else "done == 0 && done + "
            lines.append(f"    {again} ({guard}{group} <= count) {{\n")
            lines.append("        const float *w = weights + done;\n")
            lines += [
                f"        const float *x{i} = planes + offsets[done + {i}];\n" for i in range(group)
            ]
            lines.append("        for (int p = 0; p < length; p++) {\n")
            lines.append("            sums[p] = " + term + ";\n        }\n")
            lines.append(f"        done += {group};\n    }}\n")
    return "".join([*lines, "}\n"])


def _function(model: str, name: str, kernel: Kernel) -> str:
    tables = "".join(_table(f"{name}_{table}", tensor) for table, tensor in kernel.tables.items())
    parameters = ["float *restrict out"]
    if kernel.scratch:
        parameters.append("float *restrict scratch")
    parameters += [f"const float *restrict {each}" for each in kernel.inputs]
    body = "".join(f"    {line}\n" for line in kernel.lines)
    # Names of the file begin with the model's, so that one program may have several models.
    for table in kernel.tables:
        body = re.sub(rf"\b{table}\b", f"{name}_{table}", body)
    body = re.sub(r"\b(weigh|lay_out)\(", rf"{model}_\1(", body)
    return f"\n{tables}static void {name}({', '.join(parameters)}) {{\n{body}}}\n"


def _table(name: str, tensor: Tensor) -> str:
    kind = "float" if tensor.is_floating_point() else "int"
    entries: Sequence[str] = [
        literal(number) if kind == "float" else str(number) for number in tensor.flatten().tolist()
    ]
    entries = entries or ["0"]  # C has no arrays without entries
    rows = (", ".join(entries[i : i + _A_LINE]) for i in range(0, len(entries), _A_LINE))
    text = ",\n    ".join(rows)
    return f"static const {kind} {name}[{len(entries)}] = {{\n    {text}\n}};\n"


def _call(name: str, kernel: Kernel, lowering: Lowering, offsets: dict[Buffer, int]) -> str:
    def pointer(buffer: Buffer) -> str:
        return "image" if buffer is lowering.image else f"memory + {offsets[buffer]}"

    used = [kernel.output, *([kernel.scratch] if kernel.scratch else []), *kernel.inputs.values()]
    return f"{name}({', '.join(map(pointer, used))});"
