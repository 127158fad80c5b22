"""Reads an ONNX file as untrusted data: its protobuf, its initializers and its nodes."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto

from atmc_core.errors import InvalidInput
from atmc_core.networks.graph.ir import MAX_NODES
from atmc_core.networks.onnx.images import Images, read_images
from atmc_core.networks.onnx.needed import Needed, choose_output, drop_unneeded, find_needed
from atmc_core.networks.onnx.opsets import is_raised, opset_of, raised
from atmc_core.networks.onnx.refusals import all_shown, check_kind, label_of, shown
from atmc_core.networks.onnx.refusals import malformed as malformed
from atmc_core.networks.onnx.schemas import check_form

#: A constant.
Array = NDArray[Any]

_MAX_BYTES = 2**31 - 1
# The largest number of elements and of axes of a constant.
_MAX_CONSTANT, _MAX_CONSTANT_AXES = 2**28, 8
# The largest number of initializers, inputs and outputs.
_MAX_NAMED = 3 * MAX_NODES
# At most this many characters of a name from the file, and of an attribute's name, appear in
# messages.
_SHOWN_NAME, _SHOWN_ATTRIBUTE = 80, 40

# How a tensor of each type is stored, and the type that it is read as. Training is in float32, so
# half and double precision become float32.
_DTYPES: Mapping[int, tuple[str, str]] = {
    TensorProto.FLOAT: ("<f4", "float32"),
    TensorProto.FLOAT16: ("<f2", "float32"),
    TensorProto.BFLOAT16: ("<u2", "float32"),
    TensorProto.DOUBLE: ("<f8", "float32"),
    TensorProto.INT64: ("<i8", "int64"),
    TensorProto.INT32: ("<i4", "int64"),
    TensorProto.INT16: ("<i2", "int64"),
    TensorProto.INT8: ("|i1", "int64"),
    TensorProto.UINT16: ("<u2", "int64"),
    TensorProto.UINT8: ("|u1", "int64"),
    TensorProto.BOOL: ("|b1", "bool"),
}
#: The numbers of ONNX's types of floating-point numbers.
FLOAT_TYPES = {
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.DOUBLE,
}


@dataclass(frozen=True)
class Operation:
    """A node of the ONNX graph.

    Attributes:
        op: the operator's name.
        label: a text that names the node in messages.
        inputs: the names of the inputs; empty for an optional one that is left out.
        outputs: the names of the outputs.
        attributes: the attributes by name.
    """

    op: str
    label: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Document:
    """What the classes of an ONNX graph are computed from.

    Attributes:
        opset: the version of the operator set.
        images: the input.
        output_name: the name of the output.
        other_outputs: the names of the outputs that are not taken.
        constants: the initializers by name.
        operations: the nodes in running order.
        half: whether the graph computes in float16.
        whole: whether this is all that is in the file, in the file's order.
    """

    opset: int
    images: Images
    output_name: str
    other_outputs: tuple[str, ...]
    constants: dict[str, Array]
    operations: list[Operation]
    half: bool
    whole: bool

    @property
    def input_name(self) -> str:
        """The name of the images."""
        return self.images.name

    @property
    def batch(self) -> int | None:
        """The size of the batch; None if the graph leaves it open."""
        return self.images.batch

    @property
    def input_shape(self) -> tuple[int | None, int | None, int | None]:
        """Channels, height and width of the images; None if the graph leaves it open."""
        return self.images.shape


def read_document(path: Path) -> Document:
    """Read and check what the classes of an ONNX file are computed from.

    Raises:
        InvalidInput: ``malformed_model`` if the file is not valid; ``external_data`` if weights are
            in other files; ``non_finite_weights``; ``unsupported_operator`` for operators that are
            not ONNX's own.
    """
    model = _read_model(path)
    opset, output = opset_of(model), choose_output(model.graph)
    others = tuple(each.name for each in model.graph.output if each.name != output)
    needed = find_needed(model.graph, output)
    functions = [each.name for each in model.functions]
    for index, node in needed.nodes:
        check_kind(index, node, functions)
        check_form(index, node, opset)
    whole = needed.is_all_of(model.graph)
    if is_raised(opset):
        drop_unneeded(model.graph, needed, output)
        model = raised(model)
        opset, needed = opset_of(model), find_needed(model.graph, output)
    constants = _initializers(model.graph, needed.names)
    images = read_images(
        _only_input(model.graph, needed, constants), [node for _, node in needed.nodes]
    )
    operations = [_operation(index, node) for index, node in needed.nodes]
    return Document(
        opset=opset,
        images=images,
        output_name=output,
        other_outputs=others,
        constants=constants,
        operations=operations,
        half=images.half or any(map(_is_half, operations)),
        whole=whole,
    )


def read_needed(path: Path, output: str) -> bytes:
    """A file's network up to one result, without what that does not need, as ONNX.

    Args:
        path: the file.
        output: the name of the result; it becomes the network's only output.

    Raises:
        InvalidInput: likewise.
    """
    model = _read_model(path)
    if output not in [each.name for each in model.graph.output]:
        model.graph.output.add().name = output
    drop_unneeded(model.graph, find_needed(model.graph, output), output)
    content: bytes = model.SerializeToString()
    return content


def _read_model(path: Path) -> onnx.ModelProto:
    if path.stat().st_size > _MAX_BYTES:
        raise malformed("it is larger than 2 GiB, which protobuf does not allow")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except (DecodeError, ValueError, RuntimeError) as error:
        raise malformed(f"it is no ONNX protobuf ({error})") from error
    graph = model.graph
    if len(graph.node) > MAX_NODES:
        raise malformed(f"{len(graph.node)} nodes; {MAX_NODES} are allowed")
    named = len(graph.initializer) + len(graph.input) + len(graph.output)
    if named > _MAX_NAMED:
        raise malformed(f"{named} initializers, inputs and outputs; {_MAX_NAMED} are allowed")
    # protobuf gives the bytes of a text that is no UTF-8.
    if any(isinstance(text, bytes) for text in _texts(model)):
        raise malformed("one of its names is no text in UTF-8")
    return model


def _texts(model: onnx.ModelProto) -> Iterator[str | bytes]:
    """All names that messages or other names are compared with."""
    graph = model.graph
    yield from (each.domain for each in model.opset_import)
    yield from (each.name for each in model.functions)
    for node in graph.node:
        yield from (node.op_type, node.name, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for named in (graph.initializer, graph.input, graph.output):
        yield from (each.name for each in named)
    for value in graph.input:
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)


def _only_input(
    graph: onnx.GraphProto, needed: Needed, constants: Mapping[str, Array]
) -> onnx.ValueInfoProto:
    """The input that the classes depend on, which has to be the only one."""
    declared = {each.name: each for each in graph.input if each.name not in constants}
    made = {name for _, node in needed.nodes for name in node.output}
    for index, node in needed.nodes:
        for name in node.input:
            if name and name not in made and name not in constants and name not in declared:
                label = label_of(index, node)
                raise malformed(
                    f"{label} uses {shown(name)}, which is no input, and no node makes it: a "
                    "missing initializer",
                    label,
                )
    used: list[onnx.ValueInfoProto] = [
        each for name, each in declared.items() if name in needed.names
    ]
    if not used:
        raise malformed("its output does not depend on the images")
    if len(used) > 1:
        raise malformed(
            f"its inputs {all_shown([each.name for each in used])} are all used; a classifier's "
            "only input is its images: export it in evaluation mode, with the rest as constants"
        )
    return used[0]


def _is_half(operation: Operation) -> bool:
    return operation.op == "Cast" and operation.attributes.get("to") == TensorProto.FLOAT16


def read_tensor(tensor: TensorProto, label: str) -> Array:
    """Read a constant as an array.

    Args:
        tensor: the constant.
        label: a text that names it in messages.

    Raises:
        InvalidInput: ``malformed_model``, ``external_data`` or ``non_finite_weights``.
    """
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise InvalidInput(
            "external_data",
            f"the weights of {label} are in another file: save the model with all weights inside, "
            "torch.onnx.export(..., external_data=False) or "
            "onnx.save_model(onnx.load('model.onnx'), 'whole.onnx')",
            label,
        )
    if tensor.data_type not in _DTYPES:
        raise malformed(
            f"{label} is of the type {_type_name(tensor.data_type)}: export the network in float32",
            label,
        )
    stored, read = _DTYPES[tensor.data_type]
    shape, count = tuple(tensor.dims), 1
    for size in shape:
        count *= size
    if min(shape, default=0) < 0 or count > _MAX_CONSTANT or len(shape) > _MAX_CONSTANT_AXES:
        raise malformed(f"{label} has the shape {list(shape)}", label)
    if tensor.raw_data:
        if len(tensor.raw_data) != count * np.dtype(stored).itemsize:
            raise malformed(
                f"{label} has {len(tensor.raw_data)} bytes for the shape {list(shape)}", label
            )
        flat = np.frombuffer(tensor.raw_data, stored)
    else:
        flat = _listed_values(tensor)
        if len(flat) != count:
            raise malformed(f"{label} has {len(flat)} values for the shape {list(shape)}", label)
    if tensor.data_type == TensorProto.BFLOAT16:
        # It is the upper half of a float32.
        flat = (flat.astype("<u4") << 16).view("<f4")
    array: Array = flat.astype(read).reshape(shape)
    # One infinite number can be a bound or a padding, which the rules of those operators look at.
    if np.isnan(array).any() or (array.size > 1 and not np.isfinite(array).all()):
        raise InvalidInput("non_finite_weights", f"{label} holds NaN or infinite values", label)
    return array


def _listed_values(tensor: TensorProto) -> Array:
    match tensor.data_type:
        case TensorProto.FLOAT:
            return np.array(tensor.float_data, "<f4")
        case TensorProto.DOUBLE:
            return np.array(tensor.double_data, "<f8")
        case TensorProto.INT64:
            return np.array(tensor.int64_data, "<i8")
        case TensorProto.FLOAT16:
            return np.array(tensor.int32_data, "<i4").astype("<u2").view("<f2")
        case TensorProto.BFLOAT16:
            return np.array(tensor.int32_data, "<i4").astype("<u2")
    return np.array(tensor.int32_data, "<i4")


def _type_name(number: int) -> str:
    known = TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(number)) if number in known else str(number)


def _initializers(graph: onnx.GraphProto, names: Set[str]) -> dict[str, Array]:
    if any(each.values.name in names for each in graph.sparse_initializer):
        raise malformed("it has sparse initializers; export it with dense ones")
    constants: dict[str, Array] = {}
    for tensor in graph.initializer:
        if tensor.name in constants:
            raise malformed(f"two initializers have the name {shown(tensor.name)}")
        if tensor.name in names:
            constants[tensor.name] = read_tensor(tensor, tensor.name[:_SHOWN_NAME])
    return constants


def _operation(index: int, node: onnx.NodeProto) -> Operation:
    label = label_of(index, node)
    attributes = {a.name: _attribute(a, label) for a in node.attribute}
    return Operation(node.op_type, label, tuple(node.input), tuple(node.output), attributes)


def _attribute(attribute: onnx.AttributeProto, label: str) -> Any:
    kinds = onnx.AttributeProto
    match attribute.type:
        case kinds.FLOAT:
            return float(attribute.f)
        case kinds.INT:
            return int(attribute.i)
        case kinds.STRING:
            return attribute.s.decode(errors="replace")
        case kinds.INTS:
            return [int(each) for each in attribute.ints]
        case kinds.FLOATS:
            return [float(each) for each in attribute.floats]
        case kinds.TENSOR:
            return read_tensor(attribute.t, label)
    name = attribute.name[:_SHOWN_ATTRIBUTE]
    reason = f"its attribute {name!r} (a list of texts, or the like) is not supported"
    raise InvalidInput("unsupported_operator", f"{label}: {reason}", label)
