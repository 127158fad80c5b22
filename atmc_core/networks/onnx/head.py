"""Finds the head of a classifier: what stands between its logits and its output.

A network is trained and attacked by its logits. What turns them into probabilities (a softmax, its
logarithm) is left out, because it changes the gradients and no decision. Operations that change no
number (a reshape, a cast) may stand between and behind; they stay in the graph.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atmc_core.networks.onnx.builder import Value, unsupported
from atmc_core.networks.onnx.document import FLOAT_TYPES, Array, Operation

# Softmax flattens all axes from its own on before this opset, and works along one axis since.
_ONE_AXIS_OPSET = 13


@dataclass(frozen=True)
class HeadOperation:
    """An operation that is left out.

    Attributes:
        operation: the operation.
        apply: what it makes of logits ``[N, classes]``; the comparison with onnxruntime needs it.
        fits: whether it treats a value's entries as the classes of one image, one by one or all
            together. It is asked when the value's shape is known.
    """

    operation: Operation
    apply: Callable[[Tensor], Tensor]
    fits: Callable[[Value], bool] = lambda value: True


#: Makes of an operation, the constants by name and the opset what is left out; None if the
#: operation has to stay.
HeadRule = Callable[[Operation, Mapping[str, Array], int], HeadOperation | None]


@dataclass(frozen=True)
class Head:
    """The operations that are left out, in running order."""

    operations: tuple[HeadOperation, ...] = ()

    def apply(self, logits: Tensor) -> Tensor:
        """What the file's own output is for logits ``[N, classes]``."""
        for each in self.operations:
            logits = each.apply(logits)
        return logits

    def leaves_out(self, operation: Operation, value: Value) -> bool:
        """Whether an operation of ``value`` is left out.

        Raises:
            InvalidInput: ``unsupported_operator`` if it is of the head, but works along other axes
                than the classes.
        """
        for each in self.operations:
            if each.operation is operation:
                if not each.fits(value):
                    raise unsupported(
                        operation,
                        f"at the end of a classifier it works along the classes; here it is "
                        f"applied to {['N', *value.shape]}",
                    )
                return True
        return False

    @property
    def notes(self) -> tuple[tuple[str, str], ...]:
        """What was left out, as pairs of a code and a sentence."""
        if not self.operations:
            return ()
        labels = " and the ".join(each.operation.label for each in self.operations)
        was = "was" if len(self.operations) == 1 else "were"
        sentence = f"The {labels} at the end {was} left out: the network returns logits."
        return (("softmax_dropped", sentence),)


def find_head(
    operations: Sequence[Operation], output: str, constants: Mapping[str, Array], opset: int
) -> Head:
    """Walk back from the output to the logits.

    Args:
        operations: the operations of the graph.
        output: the name of the graph's output.
        constants: the constants by name.
        opset: the version of the operator set.
    """
    made_by = {name: each for each in operations for name in each.outputs[:1]}
    found: list[HeadOperation] = []
    while (operation := made_by.get(output)) is not None:
        given = [name for name in operation.inputs if name and name not in constants]
        rule = _HEAD.get(operation.op)
        if rule is not None and len(given) == 1:
            dropped = rule(operation, constants, opset)
            if dropped is None:
                break
            found.append(dropped)
        elif not changes_nothing(operation) or not operation.inputs:
            break
        output = given[0] if rule is not None else operation.inputs[0]
    while found and found[-1].operation.op in _OF_PROBABILITIES:
        # A logarithm of what is no probability belongs to the network.
        found.pop()
    return Head(tuple(reversed(found)))


def changes_nothing(operation: Operation) -> bool:
    """Whether an operation changes no number, but perhaps the shape or the precision."""
    if operation.op == "Cast":
        return operation.attributes.get("to") in FLOAT_TYPES
    return operation.op in _PASSED


def _softmax(
    operation: Operation, constants: Mapping[str, Array], opset: int
) -> HeadOperation | None:
    axis = operation.attributes.get("axis", -1 if opset >= _ONE_AXIS_OPSET else 1)
    apply = torch.log_softmax if operation.op == "LogSoftmax" else torch.softmax

    def fits(value: Value) -> bool:
        """Whether all entries of an image are normalised together."""
        if not -value.ndim <= axis < value.ndim or axis % value.ndim == 0:
            return False
        sizes = value.meta.shape[axis % value.ndim :]
        normalised = sizes[0] if opset >= _ONE_AXIS_OPSET else sizes.numel()
        return bool(normalised == value.meta[0].numel())

    return HeadOperation(operation, lambda logits: apply(logits, 1), fits)


def _log(operation: Operation, constants: Mapping[str, Array], opset: int) -> HeadOperation | None:
    return HeadOperation(operation, torch.log)


# Operations that change no number.
_PASSED = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Dropout")
# The operations that are left out, and those of them that only follow another one.
_HEAD: Mapping[str, HeadRule] = {"Softmax": _softmax, "LogSoftmax": _softmax, "Log": _log}
_OF_PROBABILITIES = ("Log",)
