"""Reads an ONNX file as untrusted data: its protobuf, its initializers and its nodes."""

from collections.abc import Mapping
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

#: A constant.
Array = NDArray[Any]

#: The versions of ONNX's operator set that are known.
OPSETS = range(9, 24)
_MAX_BYTES = 2**31 - 1
# The largest number of elements and of axes of a constant.
_MAX_CONSTANT, _MAX_CONSTANT_AXES = 2**28, 8
# The largest height, width or number of channels of the images is below this.
_MAX_IMAGE_SIZE = 2**16
# At most this many characters of a name from the file, and of an operator's or an attribute's name,
# appear in messages.
_SHOWN_NAME, _SHOWN_OPERATOR = 80, 40

# How a tensor of each type is stored, and the type that it is read as. Training is in float32, so
# half precision becomes float32.
_DTYPES: Mapping[int, tuple[str, str]] = {
    TensorProto.FLOAT: ("<f4", "float32"),
    TensorProto.FLOAT16: ("<f2", "float32"),
    TensorProto.DOUBLE: ("<f8", "float32"),
    TensorProto.INT64: ("<i8", "int64"),
    TensorProto.INT32: ("<i4", "int64"),
    TensorProto.BOOL: ("|b1", "bool"),
}
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}
#: The numbers of ONNX's types of floating-point numbers.
FLOAT_TYPES = _FLOATS | {TensorProto.DOUBLE, TensorProto.BFLOAT16}


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
    """An ONNX graph with one input and one output.

    Attributes:
        opset: the version of the operator set.
        input_name: the name of the images.
        batch: the size of the batch; None if the graph leaves it open.
        input_shape: channels, height and width of the images; None if the graph leaves it open.
        half: whether the graph takes images as float16.
        output_name: the name of the output.
        constants: the initializers by name.
        operations: the nodes in running order.
    """

    opset: int
    input_name: str
    batch: int | None
    input_shape: tuple[int | None, int | None, int | None]
    half: bool
    output_name: str
    constants: dict[str, Array]
    operations: list[Operation]


def malformed(message: str, param: str = "model") -> InvalidInput:
    """The error for a file that is not valid, or contradicts itself."""
    return InvalidInput("malformed_model", f"the ONNX file cannot be used: {message}", param)


def read_document(path: Path) -> Document:
    """Read and check an ONNX file.

    Raises:
        InvalidInput: ``malformed_model`` if the file is not valid; ``external_data`` if weights are
            in other files; ``non_finite_weights``; ``unsupported_operator`` for operators that are
            not ONNX's own.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise malformed("it is larger than 2 GiB, which protobuf does not allow")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except (DecodeError, ValueError, RuntimeError) as error:
        raise malformed(f"it is no ONNX protobuf ({error})") from error
    graph = model.graph
    if len(graph.node) > MAX_NODES:
        raise malformed(f"{len(graph.node)} nodes; {MAX_NODES} are allowed")
    constants = _initializers(graph)
    inputs = [each for each in graph.input if each.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise malformed(
            f"{len(inputs)} inputs and {len(graph.output)} outputs; a classifier has one of each"
        )
    batch, *shape = _image_dimensions(inputs[0])
    return Document(
        opset=_opset(model),
        input_name=inputs[0].name,
        batch=batch,
        input_shape=(shape[0], shape[1], shape[2]),
        half=inputs[0].type.tensor_type.elem_type == TensorProto.FLOAT16,
        output_name=graph.output[0].name,
        constants=constants,
        operations=[_operation(index, node) for index, node in enumerate(graph.node)],
    )


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
            "onnx.save_model(onnx.load('model.onnx'), 'whole.onnx')",
            label,
        )
    if tensor.data_type not in _DTYPES:
        raise malformed(f"{label} is of the type {_type_name(tensor.data_type)}", label)
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
    return np.array(tensor.int32_data, "<i4")


def _type_name(number: int) -> str:
    known = TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(number)) if number in known else str(number)


def _opset(model: onnx.ModelProto) -> int:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            if entry.version not in OPSETS:
                raise malformed(
                    f"opset {entry.version}; {OPSETS[0]} to {OPSETS[-1]} are known: export again "
                    "with torch.onnx.export(..., opset_version=18)"
                )
            return int(entry.version)
    raise malformed("it imports no ONNX operator set")


def _initializers(graph: onnx.GraphProto) -> dict[str, Array]:
    if graph.sparse_initializer:
        raise malformed("it has sparse initializers; export it with dense ones")
    constants: dict[str, Array] = {}
    for tensor in graph.initializer:
        if tensor.name in constants:
            raise malformed(f"two initializers have the name {tensor.name[:_SHOWN_NAME]!r}")
        constants[tensor.name] = read_tensor(tensor, tensor.name[:_SHOWN_NAME])
    return constants


def _image_dimensions(value: onnx.ValueInfoProto) -> list[int | None]:
    tensor = value.type.tensor_type
    if tensor.elem_type not in _FLOATS:
        raise malformed(
            f"the input {value.name[:_SHOWN_NAME]!r} is {_type_name(tensor.elem_type)}; "
            "images are float32 or float16"
        )
    sizes = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    if len(sizes) != 4:
        raise malformed(f"the input has {len(sizes)} dimensions; images are [N, C, H, W]")
    if any(size is not None and not 1 <= size < _MAX_IMAGE_SIZE for size in sizes):
        raise malformed(f"the input has the shape {sizes}")
    return sizes


def _operation(index: int, node: onnx.NodeProto) -> Operation:
    operator, name = node.op_type[:_SHOWN_OPERATOR], node.name[:_SHOWN_NAME]
    label = f"{operator} node {name!r}" if name else f"{operator} node number {index}"
    if node.domain not in ("", "ai.onnx"):
        domain = node.domain[:_SHOWN_OPERATOR]
        raise InvalidInput(
            "unsupported_operator",
            f"{label}: operators of the domain {domain!r} are not supported",
            name or str(index),
        )
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
    name = attribute.name[:_SHOWN_OPERATOR]
    raise InvalidInput(
        "unsupported_operator",
        f"{label}: its attribute {name!r} (a graph, or a list of texts) is not supported",
        label,
    )
