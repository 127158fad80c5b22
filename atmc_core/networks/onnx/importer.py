"""Converts an ONNX file into a graph and its weights."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from atmc_core.errors import InvalidInput
from atmc_core.networks.graph.ir import Graph
from atmc_core.networks.onnx.adaptive import find_window_means
from atmc_core.networks.onnx.builder import GraphBuilder, Operand, Value, unsupported
from atmc_core.networks.onnx.document import Array, Document, Operation, malformed
from atmc_core.networks.onnx.folding import MAX_ELEMENTS, fold
from atmc_core.networks.onnx.head import Head, changes_nothing, find_head
from atmc_core.networks.onnx.layers import matmul
from atmc_core.networks.onnx.operators import RULES, why_not
from atmc_core.networks.onnx.pooling import adaptive_pool
from atmc_core.networks.onnx.refusals import all_shown, shown
from atmc_core.networks.onnx.strided import gather_per_image, is_flat


@dataclass(frozen=True)
class Imported:
    """An imported ONNX file.

    Attributes:
        graph: the network without its weights.
        tensors: the state dict of the network.
        num_classes: the number of classes.
        head: what was left out at the end, so that the network ends in logits.
        document: the file as it was read; the network is compared with it.
    """

    graph: Graph
    tensors: dict[str, Tensor]
    num_classes: int
    head: Head
    document: Document

    @property
    def notes(self) -> tuple[tuple[str, str], ...]:
        """What was changed at import, as pairs of a code and a sentence."""
        notes = list(self.head.notes)
        document = self.document
        if document.images.channels_last:
            sentence = (
                "The file takes images as [N, H, W, C]; the network takes them, and is returned to "
                "take them, as [N, C, H, W]."
            )
            notes.append(("channels_last_images", sentence))
        if document.other_outputs:
            sentence = (
                f"Of the file's outputs, {shown(document.output_name)} was taken for the classes' "
                f"scores; {all_shown(document.other_outputs)} and what only they need were left "
                "out."
            )
            notes.append(("output_chosen", sentence))
        if document.half:
            sentence = (
                "The file computes in float16; the network is trained and returned in float32."
            )
            notes.append(("half_precision_widened", sentence))
        return tuple(notes)


def read_images_onnx(document: Document, images: Sequence[int]) -> Imported:
    """Convert an ONNX graph into a graph.

    Args:
        document: the ONNX graph.
        images: channels, height and width of the images, for sizes that the ONNX graph leaves
            open; can be empty if it leaves none open.

    Raises:
        InvalidInput: ``malformed_model``; ``unsupported_operator``, with the operator and the node;
            ``image_shape_mismatch`` if the size of the images is not known.
    """
    sizes = [
        own or (images[axis] if images else None) for axis, own in enumerate(document.input_shape)
    ]
    known = [size for size in sizes if size is not None]
    open_sizes = ", ".join(document.images.open_sizes)
    if len(known) != 3:
        raise InvalidInput(
            "image_shape_mismatch",
            f"the graph leaves the size of its images open: {open_sizes}",
            "model",
        )
    try:
        return _Import(document, (known[0], known[1], known[2])).run()
    except InvalidInput as error:
        if not open_sizes or error.code != "malformed_model":
            raise
        raise InvalidInput(
            error.code,
            f"{error.message} (for images of {known}, channels, height and width; the file leaves "
            f"open: {open_sizes})",
            error.param,
        ) from error


class _Import:
    def __init__(self, document: Document, input_shape: tuple[int, int, int]) -> None:
        self.document = document
        self.builder = GraphBuilder(input_shape)
        self.values: dict[str, Operand] = dict(document.constants)
        self.values[document.input_name] = self.builder.images
        # The names of the images as they are in a file that has the channels last.
        self.channels_last = {document.input_name} if document.images.channels_last else set()
        # What stands in one row with the other images of the batch, by name.
        self.rows: dict[str, Value] = {}
        self.uses = Counter(name for each in document.operations for name in each.inputs)
        self.uses[document.output_name] += 1
        self.operations = document.operations
        self.head = Head()
        self._done: set[int] = set()
        # The constants that were computed ahead, by the places of their operations.
        self._early: dict[int, Array] = {}
        self._folded = 0

    def run(self) -> Imported:
        constants = self._find_constants()
        self.head = find_head(
            self.operations, self.document.output_name, constants, self.document.opset
        )
        for place, operation in enumerate(self.operations):
            if place not in self._done:
                self._convert(place, operation)
        output = self._scores()
        graph = self.builder.graph(output, self.document.input_name, self.document.output_name)
        used = {node.name for node in graph.nodes}
        tensors = {
            name: tensor
            for name, tensor in self.builder.tensors.items()
            if name in used or name.rpartition(".")[0] in used
        }
        return Imported(graph, tensors, output.shape[0], self.head, self.document)

    def _scores(self) -> Value:
        """The output as ``[N, classes]``; axes of one entry behind the classes are left out."""
        output = self.values.get(self.document.output_name)
        if not isinstance(output, Value):
            raise malformed("its output does not depend on the images")
        if output.ndim > 2 and output.shape[0] == math.prod(output.shape):
            of_output = Operation("Flatten", "the output", (), (), {})
            return self.builder.function(of_output, "reshape", [output], shape=[output.shape[0]])
        if output.ndim != 2:
            sizes = ", ".join(map(str, output.shape))
            raise malformed(f"its output is [N, {sizes}]; a classifier's is [N, classes]")
        return output

    def _find_constants(self) -> dict[str, Array]:
        """Compute what does not depend on the images, for all that looks ahead.

        Constant nodes are done with this, because groups of operations are recognised by their
        constants. What is computed from them counts as known when its place comes.
        """
        constants = dict(self.document.constants)
        for place, operation in enumerate(self.operations):
            if operation.op == "Constant":
                self._set(operation, [_constant(operation)])
                self._done.add(place)
                constants[operation.outputs[0]] = _constant(operation)
            elif all(name in constants for name in operation.inputs if name):
                folded = self._fold(operation, [constants.get(name) for name in operation.inputs])
                if folded is not None:
                    self._early[place] = constants[operation.outputs[0]] = folded
        return constants

    def _fold(self, operation: Operation, operands: list[Array | None]) -> Array | None:
        """Compute an operation on constants; returns None if there is no rule for it."""
        folded = fold(operation, operands)
        if folded is not None:
            self._folded += folded.size
            if self._folded > MAX_ELEMENTS:
                raise malformed("it computes too many constants", operation.label)
        return folded

    def _convert(self, place: int, operation: Operation) -> None:
        """Add the operation at index ``place`` to the graph."""
        if self._keeps_channels_last(operation):
            return
        operands = [self._operand(operation, name) for name in operation.inputs]
        folded = self._early.get(place)
        if folded is None and not any(isinstance(operand, Value) for operand in operands):
            folded = self._fold(operation, _constants_of(operands))
        if folded is not None:
            self._set(operation, [folded])
            return
        scores = self.head.scores(operation, operands)
        if scores is not None:
            self._set(operation, [scores])
            return
        if self._in_a_row(operation, operands):
            return
        pool = find_window_means(self.operations, place, self.values)
        if pool is not None:
            self._done.update(pool.places)
            value = adaptive_pool(self.builder, operation, operands[pool.pooled], pool.size)
            self._set(self.operations[pool.places[-1]], [value])
            return
        if operation.op == "Dropout" and any(
            o is not None and o.any() for o in _constants_of(operands[2:3])
        ):
            raise unsupported(
                operation, "it is in training mode: call model.eval() and export again"
            )
        if operation.op not in RULES:
            raise unsupported(operation, why_not(operation.op))
        made = self._apply(place, operation, operands)
        self._set(self.operations[place], made)

    def _apply(
        self, place: int, operation: Operation, operands: list[Operand | None]
    ) -> list[Operand]:
        try:
            if operation.op == "MatMul":
                return [matmul(self.builder, operation, operands, self._bias(place, operands))]
            made = RULES[operation.op](self.builder, operation, operands)
        except InvalidInput:
            raise
        except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
            raise malformed(f"{operation.label}: {error}", operation.label) from error
        return made if isinstance(made, list) else [made]

    def _operand(self, operation: Operation, name: str) -> Operand | None:
        if not name:
            return None
        if name in self.channels_last:
            for_all = Operation("Transpose", operation.label, (), (), {})
            images = self.builder.function(
                for_all, "permute", [self.builder.images], dims=[0, 2, 3, 1]
            )
            self.values.update(dict.fromkeys(self.channels_last, images))
            self.channels_last = set()
        if name in self.rows:
            return self.rows[name]
        if name not in self.values:
            raise malformed(
                f"{operation.label} uses {shown(name)}, which no node makes", operation.label
            )
        return self.values[name]

    def _keeps_channels_last(self, operation: Operation) -> bool:
        """Follow images with the channels last up to the operation that puts them first."""
        if self.channels_last.isdisjoint(operation.inputs[:1]) or not operation.outputs:
            return False
        if operation.op == "Transpose" and operation.attributes.get("perm") == [0, 3, 1, 2]:
            self._set(operation, [self.builder.images])
            return True
        if changes_nothing(operation) and operation.op in ("Identity", "Cast"):
            self.channels_last.add(operation.outputs[0])
            return True
        return False

    def _in_a_row(self, operation: Operation, operands: list[Operand | None]) -> bool:
        """Follow the entries of all images in one row, up to where they are apart again."""
        if len(operands) < 2:
            return False
        value, constant = operands[0], operands[1]
        if not isinstance(value, Value) or not isinstance(constant, np.ndarray):
            return False
        if operation.op == "Reshape" and is_flat(value, constant, self.document.batch):
            self.rows[operation.outputs[0]] = value
            return True
        if operation.inputs[0] not in self.rows or operation.op == "Reshape":
            return False
        if operation.op != "Gather" or operation.attributes.get("axis", 0) != 0:
            raise unsupported(operation, "it mixes the images of a batch")
        self._set(operation, [gather_per_image(self.builder, operation, value, constant)])
        return True

    def _set(self, operation: Operation, made: list[Operand]) -> None:
        names = [name for name in operation.outputs[: len(made)] if name]
        for name, value in zip(names, made, strict=False):
            if name in self.values:
                raise malformed(f"{operation.label} makes {name[:80]!r} again", operation.label)
            self.values[name] = value

    def _bias(self, place: int, operands: list[Operand | None]) -> Array | None:
        """The bias of a linear layer: a constant that the next operation adds to this product.

        Returns:
            The bias, ``[features]``, or None if nothing is added or the product is used elsewhere.
        """
        operation = self.operations[place]
        weight = operands[1] if len(operands) > 1 else None
        product = operation.outputs[0] if operation.outputs else ""
        if isinstance(weight, Value) or weight is None or self.uses[product] != 1:
            return None
        for later, candidate in enumerate(self.operations[place + 1 :], start=place + 1):
            if product not in candidate.inputs:
                continue
            others = [self.values.get(name) for name in candidate.inputs if name != product]
            if candidate.op != "Add" or len(others) != 1:
                return None
            bias = others[0]
            if isinstance(bias, np.ndarray) and bias.shape == weight.shape[1:]:
                # The layer computes the sum, so its output gets the sum's name, and the addition
                # is done.
                self._done.add(later)
                self._rename(product, candidate.outputs[0])
                return bias
            return None
        return None

    def _rename(self, old: str, new: str) -> None:
        for place, operation in enumerate(self.operations):
            if old in operation.outputs:
                outputs = tuple(new if name == old else name for name in operation.outputs)
                self.operations[place] = Operation(
                    operation.op, operation.label, operation.inputs, outputs, operation.attributes
                )


def _constant(operation: Operation) -> Array:
    attributes = operation.attributes
    if isinstance(attributes.get("value"), np.ndarray):
        value: Array = attributes["value"]
        return value
    for name, dtype in (
        ("value_float", "float32"),
        ("value_floats", "float32"),
        ("value_int", "int64"),
        ("value_ints", "int64"),
    ):
        if name in attributes:
            return np.array(attributes[name], dtype)
    raise unsupported(operation, "a constant that is neither a number nor a tensor")


def _constants_of(operands: Sequence[Operand | None]) -> list[Array | None]:
    return [operand for operand in operands if not isinstance(operand, Value)]
