"""Turns the recorded operations of a network into kernels."""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from atmc_core.codegen import kernels, operations
from atmc_core.codegen.convolutions import Convolution, convolution
from atmc_core.codegen.expressions import SAME_ENTRY, Expression, Held, Lines
from atmc_core.codegen.kernels import Kernel
from atmc_core.codegen.loops import Operand, collapsed, nest
from atmc_core.codegen.pointwise import POINTWISE
from atmc_core.codegen.refusal import NotCovered
from atmc_core.codegen.values import Buffer, Value

aten = torch.ops.aten

# Operations that only see the same memory in another way.
_VIEWS = {
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.expand.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze.default,
    aten.alias.default,
    aten.detach.default,
    aten.split_with_sizes.default,
    aten.split.Tensor,
}
# Operations that put entries elsewhere, by rules that do not depend on their values.
_MOVES = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_select.default,
    aten.flip.default,
    aten.roll.default,
    aten.gather.default,
    aten.reflection_pad2d.default,
    aten.replication_pad2d.default,
    aten.upsample_nearest2d.default,
    aten.repeat.default,
}
# Operations that need of a result its shape alone.
_OF_A_SHAPE = {
    aten.full_like.default,
    aten.ones_like.default,
    aten.zeros_like.default,
    aten.new_full.default,
    aten.new_ones.default,
    aten.new_zeros.default,
}


@dataclass
class Lowering:
    """The kernels of a network, in running order.

    Attributes:
        kernels: the kernels so far.
        image: the buffer of the image.
        logits: that of the logits.
    """

    kernels: list[Kernel] = field(default_factory=list)
    image: Buffer = field(init=False)
    logits: Buffer = field(init=False)

    @classmethod
    def of(cls, traced: fx.GraphModule) -> "Lowering":
        """Lower a traced network.

        Raises:
            NotCovered: if there is an operation that is not known; it names it.
        """
        lowering = cls()
        lowering._run(traced)
        return lowering

    def _run(self, traced: fx.GraphModule) -> None:
        self.known: dict[fx.Node, Any] = {}
        self.shapes = {
            node: node.meta["tensor_meta"].shape
            for node in traced.graph.nodes
            if hasattr(node.meta.get("tensor_meta"), "shape")
        }
        for node in traced.graph.nodes:
            if node.op == "placeholder":
                image = Value.new(self.shapes[node])
                self.image, self.known[node] = image.buffer, image
            elif node.op == "get_attr":
                self.known[node] = operator.attrgetter(str(node.target))(traced)
            elif node.op == "output":
                found = node.args[0]
                found = found[0] if isinstance(found, list | tuple) else found
                held = self.known[found]
                if isinstance(held, Tensor):
                    raise NotCovered("the logits do not depend on the image")
                self.logits = self.whole(held).buffer
            else:
                try:
                    self.known[node] = self._node(node)
                except NotCovered:
                    raise
                except Exception as error:  # a form of an operation that is not foreseen
                    name = _name(node.target)
                    raise NotCovered(
                        f"the operation {name} is not written as C as it is used here: {error}"
                    ) from error

    def _node(self, node: fx.Node) -> Any:
        args: Any = fx.node.map_arg(node.args, self.known.__getitem__)
        kwargs: Any = fx.node.map_arg(node.kwargs, self.known.__getitem__)
        held = [self.known[each] for each in node.all_input_nodes]
        target: Any = node.target
        if all(isinstance(each, Tensor | tuple | list) and not _depends(each) for each in held):
            return target(*args, **kwargs)
        if target is operator.getitem:
            return args[0][args[1]]
        if target in POINTWISE:
            result: Held = self._pointwise(Expression(target, args, kwargs, self.shapes[node]))
            return result if self._joins_next(node) else self.value(result)
        if target in (aten.convolution.default,):
            result = operations.convolution_of(self, *args)
            return result if self._joins_next(node) else self.value(result)
        if target in _OF_A_SHAPE:
            return target(torch.zeros(operations.shape_of(args[0])), *args[1:], **kwargs)
        if target is aten.as_strided.default and _keeps_order(node):
            return args[0]
        if target in _VIEWS:
            return operations.view(self, target, args, kwargs)
        rule = operations.RULES.get(target)
        if rule is not None:
            return rule(self, *args, **kwargs)
        if target in _MOVES:
            return operations.moved(self, node.target, args, kwargs)
        raise NotCovered(f"the operation {_name(target)} is not written as C")

    def _joins_next(self, node: fx.Node) -> bool:
        """Whether a result is read by one operation on each entry alone, and not stretched there.

        It is written together with that one then, and never stored.
        """
        if len(node.users) != 1:
            return False
        (user,) = node.users
        return user.target in POINTWISE and self.shapes[user] == self.shapes[node]

    # What is on each entry by itself.

    def _pointwise(self, expression: Expression) -> Held:
        """The expression; or a convolution, where it scales or shifts a convolution's outputs."""
        if expression.target not in _AFFINE or expression.kwargs or len(expression.args) != 2:
            return expression
        first, second = expression.args
        if isinstance(second, Convolution) and expression.target in _COMMUTES:
            first, second = second, first
        if not isinstance(first, Convolution):
            return expression
        number = second if isinstance(second, Tensor) else None
        if isinstance(second, int | float):
            number = torch.tensor(float(second))
        channels = first.shape[1]
        if number is None or tuple(number.expand([1] * (4 - number.ndim) + [*number.shape]).shape)[
            2:
        ] != (1, 1):
            return expression
        each = number.double().flatten().expand(channels)
        return _AFFINE[expression.target](first, each)

    def value(self, held: Held) -> Value:
        """A result in memory, written now if it was still to be."""
        if isinstance(held, Value):
            return held
        if isinstance(held, Convolution):
            return self._stored(Expression(SAME_ENTRY, (held,), {}, held.shape))
        if isinstance(held, Expression):
            return self._stored(held)
        raise NotCovered("an operation has a constant where a result is expected")

    def _stored(self, expression: Expression) -> Value:
        """Write an expression, with a convolution in it if there is one."""
        out = Value.new(expression.shape)
        text = Lines(expression, self.value)
        if text.convolution is not None:
            operands = [Operand("out", 0, out.view.stride()), *text.operands]

            def store(entry: str, variables: list[str]) -> list[str]:
                return text.lines(["0", *variables], operands, entry)

            kernel = convolution(text.convolution, out, text.inputs, store, text.tables)
        else:
            sizes, operands = collapsed(
                expression.shape, [Operand("out", 0, out.view.stride()), *text.operands]
            )
            lines = nest(sizes, lambda v: text.lines(v, operands, ""))
            kernel = Kernel(out.buffer, text.inputs, lines or ["{", "}"], text.tables)
        self.kernels.append(kernel)
        return out

    def whole(self, held: Held) -> Value:
        """A result that is a whole buffer in its usual order, copied if need be."""
        value = self.value(held)
        return value if value.whole else self.copied(value)

    def copied(self, value: Value) -> Value:
        out = Value.new(value.view.shape)
        self.kernels.append(kernels.copies([(value, out)], out, None))
        return out


_COMMUTES = {aten.add.Tensor, aten.mul.Tensor}
_AFFINE: dict[Any, Callable[[Convolution, Tensor], Convolution]] = {
    aten.add.Tensor: lambda c, number: c.shifted(number),
    aten.sub.Tensor: lambda c, number: c.shifted(-number),
    aten.mul.Tensor: lambda c, number: c.scaled(number),
    aten.div.Tensor: lambda c, number: c.scaled(1 / number),
}


def _keeps_order(node: fx.Node) -> bool:
    """Whether a change of strides changes those of axes of one entry alone."""
    before, after = (each.meta["tensor_meta"] for each in (node.all_input_nodes[0], node))
    return before.shape == after.shape and all(
        size == 1 or old == new
        for size, old, new in zip(before.shape, before.stride, after.stride, strict=True)
    )


def _depends(held: Any) -> bool:
    """Whether something has a part that depends on the image."""
    if isinstance(held, tuple | list):
        return any(_depends(each) for each in held)
    return isinstance(held, Value | Expression | Convolution)


def _name(target: Any) -> str:
    return str(target).removeprefix("aten.").split(".")[0]
