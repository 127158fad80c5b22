"""Rules for operations that change the size of maps; see ``layers`` for what rules do."""

import numpy as np

from atmc_core.networks.onnx.builder import GraphBuilder, Value, unsupported
from atmc_core.networks.onnx.document import Operation, malformed
from atmc_core.networks.onnx.operands import Operands, optional_of, value_of

# The longest list of scales or sizes.
_MAX_AXES = 4
# A map gets at most this many rows or columns.
_MAX_SIDE = 2**14
# A size may differ by this from the map's size times the scale.
_ROUNDING = 1e-3

_HALF_PIXEL = ("half_pixel", "pytorch_half_pixel")
_MODES = {"linear": "bilinear", "cubic": "bicubic"}


def resize(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """Resize or Upsample of ``[N, C, H, W]`` by a fixed factor: nearest, linear or cubic."""
    value, attributes = value_of(operation, operands), operation.attributes
    if value.ndim != 4:
        raise unsupported(operation, "only maps [N, C, H, W] can be resized")
    size = _size(operation, operands, value)
    mode = attributes.get("mode", "nearest")
    # Upsample and Resize of opset 10 have no such attribute and count from the corner.
    older = operation.op == "Upsample" or len(operands) == 2
    where = attributes.get(
        "coordinate_transformation_mode", "asymmetric" if older else "half_pixel"
    )
    shown = f"mode {str(mode)[:20]!r} with coordinates {str(where)[:30]!r}"
    if attributes.get("antialias") or attributes.get("exclude_outside"):
        raise unsupported(operation, "antialias and exclude_outside are not supported")
    rounding = attributes.get("nearest_mode", "floor" if older else "round_prefer_floor")
    if mode == "nearest" and _is_repeated(rounding, where, value, size):
        return builder.function(operation, "resize", [value], size=size, mode=mode, corners=0)
    corners = where == "align_corners"
    if mode not in _MODES or not (corners or where in _HALF_PIXEL):
        raise unsupported(
            operation, f"{shown} is not supported: torch's interpolate exports modes that are"
        )
    return builder.function(
        operation, "resize", [value], size=size, mode=_MODES[mode], corners=int(corners)
    )


def _is_repeated(rounding: str, where: str, value: Value, size: list[int]) -> bool:
    """Whether each pixel of the nearest mode is the one that PyTorch takes: floor(x / scale)."""
    for own, new in zip(value.shape[1:], size, strict=True):
        places, scale = np.arange(new, dtype=np.float64), new / own
        if where in _HALF_PIXEL:
            exact = (places + 0.5) / scale - 0.5
        elif where == "align_corners":
            exact = places * (own - 1) / max(new - 1, 1)
        elif where == "asymmetric":
            exact = places / scale
        else:
            return False
        rounded = {
            "floor": np.floor(exact),
            "ceil": np.ceil(exact),
            "round_prefer_ceil": np.floor(exact + 0.5),
        }.get(rounding, np.ceil(exact - 0.5))
        if not np.array_equal(rounded.clip(0, own - 1), places * own // new):
            return False
    return True


def _size(operation: Operation, operands: Operands, value: Value) -> list[int]:
    """The new height and width."""
    if operation.op == "Upsample" or len(operands) == 2:
        scales, sizes = optional_of(operation, operands, 1), None
    else:
        scales, sizes = (optional_of(operation, operands, place) for place in (2, 3))
    if "scales" in operation.attributes:
        scales = np.array(operation.attributes["scales"], np.float32)
    given = sizes if scales is None or scales.size == 0 else scales
    if given is None or given.ndim != 1 or not 1 <= given.size <= _MAX_AXES:
        raise malformed(f"{operation.label} has no scales and no sizes", operation.label)
    own = value.meta.shape
    axes = operation.attributes.get("axes", list(range(given.size)))
    if len(axes) != given.size or not all(-4 <= axis < 4 for axis in axes):
        raise malformed(f"{operation.label} has the axes {axes[:8]}", operation.label)
    wanted: dict[int, float] = {axis: float(n) for axis, n in enumerate(own)}
    for axis, number in zip(axes, given.tolist(), strict=True):
        # A batch is left as it is, however its size is written.
        if axis % 4:
            wanted[axis % 4] = number if given is sizes else number * own[axis]
        elif given is not sizes and number != 1:
            raise unsupported(operation, "it works along the batch")
    if wanted[1] != own[1]:
        raise unsupported(operation, "it changes the number of channels")
    if operation.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise unsupported(operation, "keep_aspect_ratio_policy is not supported")
    return [_whole(operation, wanted[axis]) for axis in (2, 3)]


def _whole(operation: Operation, size: float) -> int:
    if not 1 <= size <= _MAX_SIDE or abs(size - round(size)) > _ROUNDING:
        raise unsupported(operation, f"a map of {size:g} rows or columns; a whole number is needed")
    return round(size)


def depth_to_space(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """DepthToSpace: blocks of pixels are read off the channels."""
    value, block = _map_of(operation, operands)
    channels, height, width = value.shape
    if channels % block**2:
        raise malformed(f"{operation.label}: {channels} channels by {block}", operation.label)
    fewer = channels // block**2
    if operation.attributes.get("mode", "DCR") == "CRD":
        parts, order = [fewer, block, block, height, width], [0, 1, 4, 2, 5, 3]
    else:
        parts, order = [block, block, fewer, height, width], [0, 3, 4, 1, 5, 2]
    value = builder.function(operation, "reshape", [value], shape=parts)
    value = builder.function(operation, "permute", [value], dims=order)
    shape = [fewer, height * block, width * block]
    return builder.function(operation, "reshape", [value], shape=shape)


def space_to_depth(builder: GraphBuilder, operation: Operation, operands: Operands) -> Value:
    """SpaceToDepth: blocks of pixels become channels."""
    value, block = _map_of(operation, operands)
    channels, height, width = value.shape
    if height % block or width % block:
        raise malformed(f"{operation.label}: {height}x{width} by {block}", operation.label)
    parts = [channels, height // block, block, width // block, block]
    value = builder.function(operation, "reshape", [value], shape=parts)
    value = builder.function(operation, "permute", [value], dims=[0, 3, 5, 1, 2, 4])
    shape = [channels * block**2, height // block, width // block]
    return builder.function(operation, "reshape", [value], shape=shape)


def _map_of(operation: Operation, operands: Operands) -> tuple[Value, int]:
    """The input, which is a map, and the side of a block."""
    value, block = value_of(operation, operands), operation.attributes["blocksize"]
    if value.ndim != 4 or not 1 <= block <= _MAX_SIDE:
        raise unsupported(operation, f"blocks of {block} in {value.ndim} dimensions")
    return value, block
