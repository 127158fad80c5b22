"""Reads what an ONNX file says of its input: the images' type, shape and layout."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import NodeProto, TensorProto, TensorShapeProto, ValueInfoProto

from atmc_core.networks.onnx.refusals import malformed, shown

# The largest height, width or number of channels of the images is below this.
_MAX_SIZE = 2**16
# The most numbers that a batch of the size that the file fixes may have.
_MAX_BATCH = 2**27
# An axis of so many entries is taken for the channels where nothing else tells the layout.
_CHANNELS = (1, 3, 4)
# Operations that leave the layout of the images as it is.
_KEEP_LAYOUT = {"Identity", "Cast", "Dropout", "Pad", "Slice", "Gather", "Split", "Concat"}
_KEEP_LAYOUT |= {"Add", "Sub", "Mul", "Div", "Neg", "Pow", "Sqrt", "Abs", "Clip", "Max", "Min"}
# The layers that take the channels first.
_CHANNELS_FIRST = {"Conv", "BatchNormalization", "InstanceNormalization", "GroupNormalization"}
_CHANNELS_FIRST |= {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LRN"}
_CHANNELS_FIRST |= {"DepthToSpace", "SpaceToDepth", "Resize", "Upsample"}
_REMEDIES: Mapping[int, str] = {
    TensorProto.DOUBLE: ("export it in float32, with model.float() before torch.onnx.export"),
    TensorProto.BFLOAT16: (
        "export it in float32, with model.float() before torch.onnx.export; bfloat16 has two "
        "digits, too few for images"
    ),
    TensorProto.UINT8: (
        "export it with float32 images in [0, 1]; where the network takes 0 to 255, say so with "
        "a normalization of mean 0 and std 1/255 = 0.00392157"
    ),
}


@dataclass(frozen=True)
class Images:
    """The input of a classifier.

    Attributes:
        name: the name of the images.
        batch: the size of the batch; None if the graph leaves it open.
        shape: channels, height and width of the images; None if the graph leaves it open.
        half: whether the graph takes images as float16.
        channels_last: whether the graph takes images as ``[N, H, W, C]``.
        open_sizes: the axes that the graph leaves open, with the names that it gives them.
    """

    name: str
    batch: int | None
    shape: tuple[int | None, int | None, int | None]
    half: bool
    channels_last: bool
    open_sizes: tuple[str, ...]


def read_images(value: ValueInfoProto, nodes: Sequence[NodeProto]) -> Images:
    """Read the declaration of the images.

    Args:
        value: the declaration of the input.
        nodes: the needed nodes in running order, which tell the layout.

    Raises:
        InvalidInput: ``malformed_model`` if these are no images.
    """
    _check_type(value, nodes)
    dims = list(value.type.tensor_type.shape.dim)
    # Some exporters write an open size as -1.
    sizes = [d.dim_value if d.HasField("dim_value") and d.dim_value != -1 else None for d in dims]
    if not value.type.tensor_type.HasField("shape"):
        sizes, dims = [None] * 4, [TensorShapeProto.Dimension()] * 4
    if len(sizes) != 4:
        raise malformed(
            f"the input {shown(value.name)} has {len(sizes)} dimensions; images are [N, C, H, W], "
            "or [N, H, W, C]: let the network take these, and reshape them itself"
        )
    if any(size is not None and not 1 <= size < _MAX_SIZE for size in sizes):
        raise malformed(f"the input {shown(value.name)} has the shape {sizes}")
    if math.prod(size or 1 for size in sizes) > _MAX_BATCH:
        raise malformed(
            f"the input {shown(value.name)} has the shape {sizes}, too much for one batch: export "
            "the network with an open batch"
        )
    last = _are_channels_last(value.name, sizes, nodes)
    order = (3, 1, 2) if last else (1, 2, 3)
    titles = zip(("channels", "height", "width"), order, strict=True)
    names = [(title, dims[axis].dim_param) for title, axis in titles if sizes[axis] is None]
    return Images(
        name=value.name,
        batch=sizes[0],
        shape=(sizes[order[0]], sizes[order[1]], sizes[order[2]]),
        half=value.type.tensor_type.elem_type == TensorProto.FLOAT16,
        channels_last=last,
        open_sizes=tuple(f"{title} {shown(name)}" if name else title for title, name in names),
    )


def _check_type(value: ValueInfoProto, nodes: Sequence[NodeProto]) -> None:
    found = value.type.tensor_type.elem_type
    if found in (TensorProto.FLOAT, TensorProto.FLOAT16):
        return
    if found == TensorProto.DOUBLE and all(map(_is_cast_to_float, _users(value.name, nodes))):
        # Images in float32 are the same numbers in double precision.
        return
    known = TensorProto.DataType.values()
    kind = TensorProto.DataType.Name(found) if found in known else f"type {found}"
    remedy = _REMEDIES.get(found, "export it with float32 images in [0, 1]")
    raise malformed(
        f"the input {shown(value.name)} is {kind.lower()}; images are float32 or float16: {remedy}"
    )


def _users(name: str, nodes: Sequence[NodeProto]) -> list[NodeProto]:
    return [node for node in nodes if name in node.input]


def _is_cast_to_float(node: NodeProto) -> bool:
    to = [attribute.i for attribute in node.attribute if attribute.name == "to"]
    return node.op_type == "Cast" and to == [TensorProto.FLOAT]


def _are_channels_last(name: str, sizes: Sequence[int | None], nodes: Sequence[NodeProto]) -> bool:
    """Whether images are ``[N, H, W, C]``, told by their first layer, else by their shape."""
    first, last = sizes[1] in _CHANNELS, sizes[3] in _CHANNELS
    carried = {name}
    for node in nodes:
        if carried.isdisjoint(node.input):
            continue
        if node.op_type in _KEEP_LAYOUT:
            carried.update(node.output)
        elif node.op_type in _CHANNELS_FIRST:
            return False
        elif node.op_type == "Transpose":
            perms = [list(a.ints) for a in node.attribute if a.name == "perm"]
            return perms[:1] == [[0, 3, 1, 2]] and (last or not first)
        elif node.op_type != "Shape":
            break
    return last and not first
