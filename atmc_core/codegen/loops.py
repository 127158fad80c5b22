"""Loops over the entries of tensors, as C."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_INDENT = "    "


@dataclass(frozen=True)
class Operand:
    """How a tensor is read or written in a loop.

    Attributes:
        name: the pointer's name.
        offset: the place of the first entry.
        strides: one for each axis of the loop.
    """

    name: str
    offset: int
    strides: tuple[int, ...]

    def at(self, variables: Sequence[str]) -> str:
        """The entry at these loop variables."""
        return f"{self.name}[{index(self.offset, self.strides, variables)}]"


def index(offset: int, strides: Sequence[int], variables: Sequence[str]) -> str:
    """The C expression of a place."""
    terms = [
        variable if stride == 1 else f"{variable} * {stride}"
        for stride, variable in zip(strides, variables, strict=True)
        if stride != 0
    ]
    if offset or not terms:
        terms.append(str(offset))
    return " + ".join(terms)


def collapsed(shape: Sequence[int], operands: Sequence[Operand]) -> tuple[list[int], list[Operand]]:
    """The fewest axes by which the same entries are met in the same order."""
    kept = [axis for axis, size in enumerate(shape) if size != 1]
    sizes: list[int] = []
    strides: list[list[int]] = []
    for axis in kept:
        steps = [operand.strides[axis] for operand in operands]
        if sizes and all(
            outer == inner * shape[axis] for outer, inner in zip(strides[-1], steps, strict=True)
        ):
            sizes[-1] *= shape[axis]
            strides[-1] = steps
        else:
            sizes.append(shape[axis])
            strides.append(steps)
    return sizes, [
        Operand(operand.name, operand.offset, tuple(steps[number] for steps in strides))
        for number, operand in enumerate(operands)
    ]


def nest(
    sizes: Sequence[int], body: Callable[[list[str]], list[str]], prefix: str = "i"
) -> list[str]:
    """Loops around the lines that ``body`` makes, given the loop variables."""
    variables = [f"{prefix}{axis}" for axis in range(len(sizes))]
    lines = [
        f"{_INDENT * depth}for (int {variable} = 0; {variable} < {size}; {variable}++) {{"
        for depth, (variable, size) in enumerate(zip(variables, sizes, strict=True))
    ]
    lines += [_INDENT * len(sizes) + line for line in body(variables)]
    lines += [_INDENT * depth + "}" for depth in reversed(range(len(sizes)))]
    return lines
