"""What a pickled checkpoint may refer to, and the inert values that stand for it."""

from dataclasses import dataclass

from api.inspection.headers import ITEM_BYTES, TensorHeader

STORAGE_DTYPES = {
    "torch.BoolStorage": "BOOL",
    "torch.ByteStorage": "U8",
    "torch.CharStorage": "I8",
    "torch.ShortStorage": "I16",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.IntStorage": "I32",
    "torch.FloatStorage": "F32",
    "torch.LongStorage": "I64",
    "torch.DoubleStorage": "F64",
    "torch.ComplexFloatStorage": "C64",
}
# The younger types have no storage of their own: a tensor of theirs is a view of plain bytes.
UNTYPED_STORAGE = "torch.storage.UntypedStorage"
VIEW_DTYPES = {
    "torch.uint16": "U16",
    "torch.uint32": "U32",
    "torch.uint64": "U64",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e4m3fnuz": "F8_E4M3FNUZ",
    "torch.float8_e5m2": "F8_E5M2",
    "torch.float8_e5m2fnuz": "F8_E5M2FNUZ",
    "torch.float8_e8m0fnu": "F8_E8M0",
}
ORDERED_DICT = "collections.OrderedDict"
COUNTER = "collections.Counter"
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
REBUILD_PARAMETERS = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
)
REBUILD_VIEW = "torch._utils._rebuild_tensor_v3"
_PLAIN = ("bytearray", "complex", "set")
# Plain values as `torch.load(weights_only=True)` makes them: of no use here, and harmless.
VALUES = {
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
    "_codecs.encode",
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _PLAIN),
}
DTYPES = {
    f"torch.{name}"
    for name in (
        *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
        *("bool", "uint8", "int8", "int16", "int32", "int64"),
    )
}
ALLOWED_GLOBALS = {
    *(ORDERED_DICT, COUNTER, REBUILD_TENSOR, *REBUILD_PARAMETERS, REBUILD_VIEW),
    *(UNTYPED_STORAGE, *STORAGE_DTYPES, *VIEW_DTYPES, *DTYPES, *VALUES),
}


@dataclass(frozen=True, slots=True)
class Storage:
    """A member of the archive, `data/{key}`, that holds `elements` numbers of type `dtype`."""

    dtype: str
    key: str
    elements: int

    def viewed(self, dtype: str) -> "Storage":
        """Return the same bytes as numbers of another type."""
        size = self.elements * ITEM_BYTES[self.dtype]
        return Storage(dtype, self.key, size // ITEM_BYTES[dtype])


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor and the storage that it is a view of."""

    header: TensorHeader
    storage: Storage


def as_tensor(value: object) -> StoredTensor | None:
    """Return the value if it is a tensor, else None."""
    return value if isinstance(value, StoredTensor) else None


@dataclass(frozen=True, slots=True)
class Global:
    name: str


@dataclass(frozen=True, slots=True)
class Value:
    """A plain value of a type that says nothing here: a set, bytes, a device."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A global that is not allowed, or whatever it would make."""
