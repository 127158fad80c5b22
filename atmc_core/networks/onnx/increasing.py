"""Tells which operations change scores and leave their order, which decides the class.

Such an operation gives each score of an image a larger value the larger it is (it is increasing),
or a smaller one (it is decreasing, and two of those are increasing together).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from atmc_core.networks.onnx.document import Array, Operation

# How many operations a fact is looked for in.
_DEPTH = 24
# Probabilities closer than this to 0 and 1 may be clipped.
_NEARLY = 1e-3


@dataclass(frozen=True)
class Order:
    """What an operation does to the order of scores.

    Attributes:
        scores: the name of its input that has the scores.
        sign: 1 if it is strictly increasing, -1 if it is strictly decreasing.
        others: the names of its other inputs that depend on the images; each has one number for
            an image.
    """

    scores: str
    sign: int
    others: tuple[str, ...] = ()


class Facts:
    """What can be told of results without their shapes, from the operations that make them.

    Args:
        operations: the operations of the graph.
        constants: the constants by name.
    """

    def __init__(self, operations: Sequence[Operation], constants: Mapping[str, Array]) -> None:
        self.constants = constants
        self.made_by = {name: each for each in operations for name in each.outputs[:1]}
        self._rows: dict[str, bool] = {}
        self._nonnegative: dict[str, bool] = {}

    def varying(self, operation: Operation) -> list[str]:
        """The inputs of an operation that are no constants."""
        return [name for name in operation.inputs if name and name not in self.constants]

    def number(self, name: str, uniform: bool = False) -> float | None:
        """The value of a constant of one element; None for anything else.

        Args:
            name: the constant's name.
            uniform: whether a constant of several elements that are all the same will do, too.
        """
        array = self.constants.get(name)
        if array is None or not array.size:
            return None
        if array.size > 1 and not (uniform and bool(np.all(array == array.reshape(-1)[0]))):
            return None
        return float(array.reshape(-1)[0])

    def input_number(self, operation: Operation, place: int, attribute: str) -> float | None:
        """A number that is an input or, in older opsets, an attribute."""
        if place < len(operation.inputs) and operation.inputs[place]:
            return self.number(operation.inputs[place])
        found = operation.attributes.get(attribute)
        return float(found) if isinstance(found, int | float) else None

    def is_row(self, name: str, depth: int = _DEPTH) -> bool:
        """Whether a result has one number for an image: a sum over the classes, a temperature."""
        if name not in self._rows:
            self._rows[name] = self._is_row(name, depth)
        return self._rows[name]

    def is_spread(self, name: str) -> bool:
        """Whether a result of one number for an image is repeated for each class."""
        operation = self.made_by.get(name)
        for _ in range(_DEPTH):
            if operation is None or operation.op not in _SHAPE_ONLY or not operation.inputs:
                return False
            if operation.op == "Expand":
                return True
            operation = self.made_by.get(operation.inputs[0])
        return False

    def is_nonnegative(self, name: str, depth: int = _DEPTH) -> bool:
        """Whether a result is known to have no negative entries."""
        if name not in self._nonnegative:
            self._nonnegative[name] = self._is_nonnegative(name, depth)
        return self._nonnegative[name]

    def _is_row(self, name: str, depth: int) -> bool:
        operation = self.made_by.get(name)
        if operation is None or not operation.inputs or not depth:
            return False
        if operation.op.startswith("Reduce"):
            keeps = bool(operation.attributes.get("keepdims", 1))
            return keeps and self._reduces_classes(operation)
        if operation.op == "Unsqueeze":
            reduced = self.made_by.get(operation.inputs[0])
            return reduced is not None and self._reduces_classes(reduced)
        if operation.op in ("Gemm", "MatMul"):
            return self._makes_one_feature(operation)
        if operation.op in _SHAPE_ONLY:
            return self.is_row(operation.inputs[0], depth - 1)
        given = self.varying(operation)
        numbers = [each for each in operation.inputs if each in self.constants]
        if operation.op not in _ELEMENTWISE or any(self.number(n) is None for n in numbers):
            return False
        return bool(given) and all(self.is_row(each, depth - 1) for each in given)

    def _is_nonnegative(self, name: str, depth: int) -> bool:
        array = self.constants.get(name)
        if array is not None:
            return bool(np.all(array >= 0))
        operation = self.made_by.get(name)
        if operation is None or not operation.inputs or not depth:
            return False
        if operation.op in _NEVER_NEGATIVE:
            return True
        if operation.op == "Clip":
            low = self.input_number(operation, 1, "min")
            return low is not None and low >= 0
        if operation.op == "Max":
            return any(self.is_nonnegative(each, depth - 1) for each in operation.inputs)
        if operation.op in _KEEP_SIGN:
            return self.is_nonnegative(operation.inputs[0], depth - 1)
        if operation.op in ("Add", "Sum", "Mul", "Div", "Pow"):
            return all(self.is_nonnegative(each, depth - 1) for each in operation.inputs)
        return False

    def is_clipped_probability(self, operation: Operation) -> bool:
        """Whether a Clip only keeps probabilities off 0 and 1, as before a logarithm."""
        low = self.input_number(operation, 1, "min")
        high = self.input_number(operation, 2, "max")
        made_by = self.made_by.get(operation.inputs[0])
        return (
            made_by is not None
            and made_by.op in ("Softmax", "Sigmoid", "Div")
            and (made_by.op != "Div" or self.is_nonnegative(operation.inputs[0]))
            and (low is None or low <= _NEARLY)
            and (high is None or high >= 1 - _NEARLY)
        )

    def _reduces_classes(self, operation: Operation) -> bool:
        axes = operation.attributes.get("axes")
        if axes is None and len(operation.inputs) > 1:
            array = self.constants.get(operation.inputs[1])
            axes = None if array is None else array.reshape(-1)[:2].tolist()
        return operation.op.startswith("Reduce") and axes in ([1], [-1])

    def _makes_one_feature(self, operation: Operation) -> bool:
        weight = self.constants.get(operation.inputs[1]) if len(operation.inputs) > 1 else None
        if weight is None or weight.ndim != 2:
            return False
        return int(weight.shape[0 if operation.attributes.get("transB") else 1]) == 1


def order_of(operation: Operation, facts: Facts) -> Order | None:
    """What an operation does to the order of scores; None if it may change it."""
    given = facts.varying(operation)
    if operation.op in _OF_TWO:
        return _of_two(operation, facts, given)
    if len(given) != 1 or operation.inputs[:1] != tuple(given):
        return None
    if operation.op in _INCREASING:
        return Order(given[0], 1)
    if operation.op in _INCREASING_IF_POSITIVE:
        numbers = [
            operation.attributes.get(name, 1) for name in _INCREASING_IF_POSITIVE[operation.op]
        ]
        positive = all(isinstance(each, int | float) and each > 0 for each in numbers)
        return Order(given[0], 1) if positive else None
    if operation.op == "PRelu":
        slope = facts.number(operation.inputs[1]) if len(operation.inputs) > 1 else None
        return Order(given[0], 1) if slope is not None and slope > 0 else None
    if operation.op == "Neg":
        return Order(given[0], -1)
    if operation.op == "Reciprocal" and facts.is_nonnegative(given[0]):
        return Order(given[0], -1)
    if operation.op == "Clip" and facts.is_clipped_probability(operation):
        return Order(given[0], 1)
    return None


def _of_two(operation: Operation, facts: Facts, given: list[str]) -> Order | None:
    """An operation of the scores and one number, which is a constant or differs by image."""
    if len(operation.inputs) != 2:
        return None
    first, second = operation.inputs
    if len(given) == 1:
        other = second if given[0] == first else first
        # A sum with a vector is a bias, even if all of its entries are still the same.
        number = facts.number(other, uniform=operation.op in ("Mul", "Div"))
        if number is None or not np.isfinite(number):
            return None
        positive, negative = number > 0, number < 0
    else:
        rows = [facts.is_row(name) for name in (first, second)]
        if len(given) != 2 or rows.count(True) != 1 or operation.op == "Pow":
            return None
        number = None
        positive, negative = facts.is_nonnegative(given[rows.index(True)]), False
        given = [given[rows.index(False)], given[rows.index(True)]]
    sign = _sign(
        operation.op, facts, given[0], number, given[0] == first, int(positive) - int(negative)
    )
    return Order(given[0], sign, tuple(given[1:])) if sign else None


def _sign(
    op: str, facts: Facts, scores: str, number: float | None, is_first: bool, sign: int
) -> int:
    """The sign of an operation of scores and a number, as in ``Order``; 0 if it is not known.

    Args:
        op: the operation.
        facts: what is known of the graph.
        scores: the name of the scores.
        number: the number, if it is a constant.
        is_first: whether the scores are the first of the two inputs.
        sign: the number's sign; 0 if it is not known.
    """
    match op:
        case "Add":
            return 1
        case "Sub":
            return 1 if is_first else -1
        case "Mul":
            return sign
        case "Div" if is_first:
            return sign
        case "Div":
            return -sign if facts.is_nonnegative(scores) else 0
    assert number is not None
    if not is_first:
        return int(np.sign(number - 1)) if number > 0 else 0
    if number > 0 and number % 2 == 1:
        return 1
    return sign if facts.is_nonnegative(scores) else 0


_OF_TWO = frozenset(("Add", "Sub", "Mul", "Div", "Pow"))
_INCREASING = frozenset(("Sigmoid", "Tanh", "Exp", "Log", "Sqrt", "Softplus", "Erf", "Softsign"))
_INCREASING |= {"Atan", "Sinh", "Asinh"}
# Operations that are increasing if these attributes are positive, as their defaults are.
_INCREASING_IF_POSITIVE: Mapping[str, tuple[str, ...]] = {
    "LeakyRelu": ("alpha",),
    "Elu": ("alpha",),
    "Celu": ("alpha",),
    "Selu": ("alpha", "gamma"),
}
_ELEMENTWISE = _OF_TWO | _INCREASING | {"Clip", "Max", "Min", "Neg", "Abs", "Reciprocal", "Sum"}
_SHAPE_ONLY = frozenset(("Expand", "Identity", "Cast", "Dropout"))
_NEVER_NEGATIVE = frozenset(("Exp", "Sigmoid", "Softmax", "Softplus", "Abs", "Relu", "HardSigmoid"))
_NEVER_NEGATIVE |= {"Sqrt", "ReduceL1", "ReduceL2", "ReduceSumSquare"}
_KEEP_SIGN = frozenset(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "Expand", "Identity"))
_KEEP_SIGN |= {"Cast", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Reciprocal"}
_KEEP_SIGN |= {"Tanh", "Erf", "LeakyRelu", "Elu", "Selu", "Softsign"}
