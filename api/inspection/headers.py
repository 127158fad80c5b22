"""The header of an uploaded file, in one vocabulary for every format."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from atmc_spec.checkpoints import StateDict
from atmc_spec.state_dicts import TensorHeader

__all__ = ["ITEM_BYTES", "ArrayHeader", "ModelHeader", "TensorHeader", "is_shape"]

# Bytes an element takes, by the name that safetensors uses for its type.
ITEM_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2": 1,
    "F8_E5M2FNUZ": 1,
    "F8_E8M0": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}

# More dimensions, or longer ones, than any tensor has: past these a header is not a header.
MAX_DIMENSIONS = 16
MAX_TENSORS = 20_000
MAX_LENGTH = 2**48


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """The tensors of a model file by name, and the format that its content (not its name) is.

    Of a file that holds more than one state dict, `tensors` are the largest one's, and `nested` has
    all of them.
    """

    format: Literal["safetensors", "torch", "onnx"]
    tensors: dict[str, TensorHeader]
    nested: tuple[StateDict[TensorHeader], ...] = ()

    @property
    def state_dicts(self) -> tuple[StateDict[TensorHeader], ...]:
        """All state dicts of the file."""
        return self.nested or (StateDict((), self.tensors),)


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """The type (`"uint8"`, as numpy names it) and shape of one array of a data set."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """The bytes that the array takes when nothing is packed; its type's name ends in bits."""
        bits = re.search(r"\d+$", self.dtype)
        return math.prod(self.shape) * (int(bits[0]) // 8 if bits else 1)


def is_shape(value: object) -> bool:
    """Tell whether `value` is a list or tuple of plausible dimensions (booleans are not)."""
    return (
        isinstance(value, list | tuple)
        and len(value) <= MAX_DIMENSIONS
        and all(type(length) is int and 0 <= length <= MAX_LENGTH for length in value)
    )
