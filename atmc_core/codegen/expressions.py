"""Operations on each entry by itself, which are written together with what they read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atmc_core.codegen.convolutions import Convolution
from atmc_core.codegen.loops import Operand
from atmc_core.codegen.pointwise import POINTWISE, literal
from atmc_core.codegen.values import Buffer, Value

#: The operation that changes nothing: an entry as it is.
SAME_ENTRY = "same"


@dataclass(frozen=True)
class Expression:
    """An operation on each entry by itself that is still to be written.

    Attributes:
        target: the operation.
        args, kwargs: its arguments; those that are tensors as ``Held``.
        shape: that of its result.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: torch.Size


#: What a node of the graph is: a constant, a result in memory, or one that is still to be written.
Held = Tensor | Value | Expression | Convolution


class Lines:
    """An expression and all that it is made of, as lines of C.

    Args:
        expression: the expression.
        write: writes what is read and is still to be written.

    Attributes:
        operands: how the tensors that it reads are read.
        inputs: the buffers among them, by name.
        tables: the constants among them, by name.
        convolution: the convolution that is written together with it, if there is one.
    """

    def __init__(self, expression: Expression, write: Callable[[Held], Value]) -> None:
        self.write, self.shape = write, expression.shape
        self.operands: list[Operand] = []
        self.inputs: dict[str, Buffer] = {}
        self.tables: dict[str, Tensor] = {}
        self.convolution: Convolution | None = None
        self._choose(expression)
        #: Each step in Polish order: an operation with its operands, or the number of an operand.
        self.steps: list[tuple[Any, list[str], dict[str, str]]] = []
        self.result = self._read(expression)

    def _choose(self, expression: Expression) -> None:
        """Keep the last convolution for this kernel."""
        for each in (*expression.args, *expression.kwargs.values()):
            if isinstance(each, Expression):
                self._choose(each)
            elif isinstance(each, Convolution) and each.shape == self.shape:
                self.convolution = each

    def _read(self, held: Any) -> str:
        """The text of an operand; a name that the lines give a meaning."""
        if isinstance(held, bool | int | float):
            return literal(held)
        if held is self.convolution:
            return "@"
        if isinstance(held, Expression) and held.shape == self.shape:
            operands = [self._read(each) if each is not None else None for each in held.args]
            named = {name: self._read(each) for name, each in held.kwargs.items()}
            self.steps.append((held.target, operands, named))  # type: ignore[arg-type]
            return f"t{len(self.steps) - 1}"
        if isinstance(held, Tensor):
            return self._table(held)
        value = self.write(held)
        name = f"in{len(self.inputs)}"
        for known, buffer in self.inputs.items():
            name = known if buffer is value.buffer else name
        self.inputs[name] = value.buffer
        strides = value.view.expand(self.shape).stride()
        return self._operand(Operand(name, value.offset, strides))

    def _table(self, tensor: Tensor) -> str:
        if tensor.numel() == 1:
            return literal(float(tensor))
        name = f"TABLE{len(self.tables)}"
        self.tables[name] = tensor.float().contiguous()
        return self._operand(Operand(name, 0, self.tables[name].expand(self.shape).stride()))

    def _operand(self, operand: Operand) -> str:
        self.operands.append(operand)
        return f"${len(self.operands)}"

    def lines(self, variables: list[str], operands: Sequence[Operand], entry: str) -> list[str]:
        """The lines that store an entry.

        Args:
            variables: the loops' variables.
            operands: the output, and the tensors that are read, along these loops.
            entry: the text of the convolution's entry.
        """

        def resolved(text: str | None) -> str | None:
            if text == "@":
                return entry
            if text is not None and text.startswith("$"):
                return operands[int(text[1:])].at(variables)
            return text

        lines = []
        for number, (target, args, kwargs) in enumerate(self.steps):
            # An entry that is read twice in an expression is read into a variable first.
            texts = []
            for place, text in enumerate(args):
                found = resolved(text)
                if text is not None and text[0] in "@$":
                    lines.append(f"const float a{number}_{place} = {found};")
                    found = f"a{number}_{place}"
                texts.append(found)
            named = {name: resolved(text) for name, text in kwargs.items()}
            made = POINTWISE[target](*texts, **named) if target != SAME_ENTRY else texts[0]
            lines.append(f"const float t{number} = {made};")
        return [*lines, f"{operands[0].at(variables)} = {self.result};"]
