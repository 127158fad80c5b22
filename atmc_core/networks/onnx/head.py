"""Finds the head of a classifier: what stands between its logits and its output.

A network is trained and attacked by its logits. What turns them into probabilities (a softmax, a
sigmoid, a logarithm), scales them, or shifts them is left out: it changes the gradients, by which
attacks find their way, and no decision. Operations that change no number (a reshape, a cast) may
stand between and behind; they stay in the graph.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from atmc_core.networks.onnx.builder import Operand, Value, unsupported
from atmc_core.networks.onnx.document import FLOAT_TYPES, Array, Operation
from atmc_core.networks.onnx.increasing import Facts, order_of

# Softmax flattens all axes from its own on before this opset, and works along one axis since.
_ONE_AXIS_OPSET = 13
# A note names at most this many operations.
_NAMED = 6


@dataclass(frozen=True)
class HeadOperation:
    """An operation that is left out.

    Attributes:
        operation: the operation.
        scores: the name of the input that stands for its result.
        sign: 1 if it keeps the order of the scores, -1 if it turns it around.
        fits: whether it treats the entries of its inputs, the scores first, as the classes of one
            image, one by one or all together. It is asked when their shapes are known.
    """

    operation: Operation
    scores: str
    sign: int
    fits: Callable[[Sequence[Value]], bool]


@dataclass(frozen=True)
class Head:
    """The operations that are left out.

    Attributes:
        operations: the operations, in running order.
        doubt: an operation at the end that is not left out and flatters the robust accuracy,
            because it is constant in places or normalises scores in an unknown way.
    """

    operations: tuple[HeadOperation, ...] = ()
    doubt: Operation | None = None

    @property
    def logits(self) -> str | None:
        """The name of the logits in the file; None if nothing is left out."""
        return self.operations[0].scores if self.operations else None

    def scores(self, operation: Operation, operands: Sequence[Operand | None]) -> Value | None:
        """The operand that stands for an operation's result; None if it is not left out.

        Raises:
            InvalidInput: ``unsupported_operator`` if it is of the head, but works along other axes
                than the classes.
        """
        for each in self.operations:
            if each.operation is operation:
                given = [value for value in operands if isinstance(value, Value)]
                if len(given) > 1 and operation.inputs[0] != each.scores:
                    given.reverse()
                if not each.fits(given):
                    raise unsupported(
                        operation,
                        f"at the end of a classifier it works along the classes; here it is "
                        f"applied to {['N', *given[0].shape]}",
                    )
                return given[0]
        return None

    @property
    def notes(self) -> tuple[tuple[str, str], ...]:
        """What was left out, and what should have been, as pairs of a code and a sentence."""
        notes = []
        if self.operations:
            named = [each.operation.label for each in self.operations[-_NAMED:]]
            if len(self.operations) > _NAMED:
                named.insert(0, f"first {len(self.operations) - _NAMED} operations")
            labels, was = " and the ".join(named), "was" if len(named) == 1 else "were"
            sentence = f"The {labels} at the end {was} left out: the network returns logits."
            softmax = any(each.operation.op in _SOFTMAX for each in self.operations)
            notes.append(("softmax_dropped" if softmax else "head_dropped", sentence))
        if self.doubt:
            why = "is constant in places, where gradients vanish"
            if self.doubt.op not in _FLAT:
                why = "makes of the scores what may be probabilities, which have smaller gradients"
            sentence = (
                f"The {self.doubt.label} at the end {why}, so robust accuracy may seem better than "
                "it is: export the network without it, so that it returns logits."
            )
            notes.append(("head_kept", sentence))
        return tuple(notes)


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
    facts = Facts(operations, constants)
    found: list[HeadOperation] = []
    while (operation := facts.made_by.get(output)) is not None:
        dropped = _head_operation(operation, facts, opset)
        if dropped is not None:
            found.append(dropped)
            output = dropped.scores
        elif changes_nothing(operation) and operation.inputs:
            output = operation.inputs[0]
        else:
            break
    doubt = operation if operation is not None and _is_doubtful(operation, facts) else None
    # Where the order is turned around an odd number of times, the last of them stays.
    ends = [n for n in range(1, len(found) + 1) if _sign(found[:n]) > 0]
    kept = found[: max(ends, default=0)]
    return Head(tuple(reversed(kept)), doubt)


def _sign(operations: Sequence[HeadOperation]) -> int:
    return -1 if sum(each.sign < 0 for each in operations) % 2 else 1


def _head_operation(operation: Operation, facts: Facts, opset: int) -> HeadOperation | None:
    """The operation as one that is left out; None if it has to stay."""
    if operation.op in _SOFTMAX:
        given = facts.varying(operation)
        return (
            HeadOperation(operation, given[0], 1, _along_classes(operation, opset))
            if given
            else None
        )
    order = order_of(operation, facts)
    if order is None:
        return None
    spread = any(map(facts.is_spread, order.others))
    return HeadOperation(
        operation, order.scores, order.sign, lambda values: _have_one_number(values, spread)
    )


def _along_classes(operation: Operation, opset: int) -> Callable[[Sequence[Value]], bool]:
    """Whether a softmax normalises all entries of an image together."""
    axis = operation.attributes.get("axis", -1 if opset >= _ONE_AXIS_OPSET else 1)

    def fits(values: Sequence[Value]) -> bool:
        value = values[0]
        if not -value.ndim <= axis < value.ndim or axis % value.ndim == 0:
            return False
        sizes = value.meta.shape[axis % value.ndim :]
        normalised = sizes[0] if opset >= _ONE_AXIS_OPSET else sizes.numel()
        return bool(normalised == value.meta[0].numel())

    return fits


def _have_one_number(values: Sequence[Value], spread: bool) -> bool:
    """Whether all inputs but the scores have one number for an image, which may be repeated."""
    scores, others = values[0], values[1:]
    if spread:
        return scores.ndim == 2 and all(value.shape == scores.shape for value in others)
    return all(value.meta[0].numel() == 1 for value in others)


def changes_nothing(operation: Operation) -> bool:
    """Whether an operation changes no number, but perhaps the shape or the precision."""
    if operation.op == "Cast":
        return operation.attributes.get("to") in FLOAT_TYPES
    return operation.op in _PASSED


def _is_doubtful(operation: Operation, facts: Facts) -> bool:
    given = facts.varying(operation)
    if operation.op in _FLAT:
        return len(given) == 1
    return operation.op == "Div" and len(given) == 2


_SOFTMAX = ("Softmax", "LogSoftmax")
# Operations that change no number.
_PASSED = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Dropout")
# Operations of one tensor that are constant in places.
_FLAT = ("Relu", "Clip", "HardSigmoid", "HardSwish", "ThresholdedRelu", "Max", "Min")
