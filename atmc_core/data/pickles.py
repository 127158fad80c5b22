"""Reads the pickles of CIFAR's python version without running them.

A pickle is a program that may call any function. The reader here knows the few operations that
write plain values and arrays of bytes, acts on inert values only, and refuses all others by name:
nothing is imported, and nothing is called.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from atmc_core.errors import InvalidInput

# CIFAR-100's largest file takes 200,000 operations.
_MAX_OPERATIONS = 2_000_000
_MAX_DIMENSIONS = 4

# The functions and classes by which NumPy writes an array, in all of its versions, and the one by
# which Python 3 writes bytes for Python 2. They are compared with, and never called.
_RECONSTRUCT = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
_FROM_BUFFER = {"numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer"}
_NDARRAY, _DTYPE, _ENCODE = "numpy ndarray", "numpy dtype", "_codecs encode"
_KNOWN = {*_RECONSTRUCT, *_FROM_BUFFER, _NDARRAY, _DTYPE, _ENCODE}
_UINT8 = ("u1", "uint8", "|u1")


@dataclass(frozen=True)
class _Name:
    """A function or a class that the pickle names."""

    name: str


class _Type:
    """The type uint8, as a pickle makes it."""


class _Array:
    """An array as a pickle makes it: first empty, then with its content."""

    content: NDArray[np.uint8] | None = None

    def fill(self, shape: object, kind: object, columns_first: object, data: object) -> None:
        if isinstance(data, str):
            # Python 2 wrote bytes as text.
            data = _latin(data)
        if not (isinstance(kind, _Type) and isinstance(data, bytes) and _is_shape(shape)):
            raise ValueError("an array is not one of unsigned bytes")
        order = "F" if columns_first is True or columns_first == "F" else "C"
        self.content = np.frombuffer(data, np.uint8).reshape(shape, order=order)  # type: ignore[call-overload]


def read_pickle(file: IO[bytes], name: str) -> dict[str, Any]:
    """The dictionary in a pickle: its keys as text; plain values and arrays uint8.

    Text of Python 2 stays text, decoded as Latin-1.

    Args:
        file: the pickle; it is at most as long as the caller allows.
        name: its name, for messages.

    Raises:
        InvalidInput: ``malformed_dataset`` if the pickle holds anything else, or is broken.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count >= _MAX_OPERATIONS:
                raise ValueError(f"it takes more than {_MAX_OPERATIONS:,} operations")
            machine.execute(opcode.name, argument)
        found = machine.pop()
        if not isinstance(found, dict):
            raise ValueError("it holds no dictionary")
        return {_text(key): _value(value) for key, value in found.items()}
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise InvalidInput(
            "malformed_dataset",
            f"{name[:120]!r} is not a pickle as CIFAR's archives have them ({str(error)[:200]}); "
            "nothing was run",
            name[:120],
        ) from error


class _Machine:
    """The stack, the marks in it, and the values that the pickle refers to again."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def execute(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        else:
            raise ValueError(f"the operation {opcode} is not one of plain data")

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("it takes from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise ValueError("it takes from an empty stack")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    def put(self, index: int) -> None:
        self.memo[index] = self.top()

    def memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.top()

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def name(self, argument: str) -> None:
        if argument not in _KNOWN:
            raise ValueError(f"it names {argument[:80].replace(' ', '.')}")
        self.stack.append(_Name(argument))

    def stack_name(self, _: None) -> None:
        name, module = self.pop(), self.pop()
        self.name(f"{module} {name}")

    def pack(self, items: list[Any]) -> None:
        self.stack.append(tuple(items))

    def append(self, items: list[Any]) -> None:
        if type(self.top()) is not list:
            raise ValueError("it appends to something that is no list")
        self.top().extend(items)

    def update(self, items: list[Any]) -> None:
        if type(self.top()) is not dict or len(items) % 2:
            raise ValueError("it sets items of something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.top()[_text(key)] = value

    def reduce(self, _: None) -> None:
        """Make what a call would have made."""
        arguments, function = self.pop(), self.pop()
        match function, arguments:
            case _Name(name), (_Name(kind), *_) if name in _RECONSTRUCT and kind == _NDARRAY:
                self.stack.append(_Array())
            case _Name(name), (kind, *_) if name == _DTYPE and kind in _UINT8:
                self.stack.append(_Type())
            case _Name(name), (str(text), *_) if name == _ENCODE:
                self.stack.append(_latin(text))
            case _Name(name), (bytes() | bytearray() as data, kind, shape, order) if (
                name in _FROM_BUFFER
            ):
                array = _Array()
                array.fill(shape, kind, order, bytes(data))
                self.stack.append(array)
            case _:
                raise ValueError("it makes something else than an array of unsigned bytes")

    def build(self, _: None) -> None:
        """Give an array its content; the further properties of uint8 say nothing."""
        state, target = self.pop(), self.top()
        match target, state:
            case _Array(), (_, shape, kind, columns_first, data):
                target.fill(shape, kind, columns_first, data)
            case _Type(), tuple():
                pass
            case _:
                raise ValueError("it sets attributes of something that is no array")


def _latin(text: str) -> bytes:
    return text.encode("latin-1")


def _text(key: object) -> str:
    if isinstance(key, bytes):
        return key.decode("latin-1")
    if not isinstance(key, str):
        raise ValueError("a key is no text")
    return key


def _value(value: object) -> object:
    return value.content if isinstance(value, _Array) else value


def _is_shape(shape: object) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) <= _MAX_DIMENSIONS
        and all(type(length) is int and length >= 0 for length in shape)
    )


_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINSTRING", "SHORT_BINSTRING", "BINUNICODE"),
    *("SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "STOP": lambda machine, _: None,
    "MARK": _Machine.mark,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "TUPLE": lambda machine, _: machine.pack(machine.pop_to_mark()),
    "TUPLE1": lambda machine, _: machine.pack([machine.pop()]),
    "TUPLE2": lambda machine, _: machine.pack([machine.pop(), machine.pop()][::-1]),
    "TUPLE3": lambda machine, _: machine.pack([machine.pop(), machine.pop(), machine.pop()][::-1]),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.update([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.update(machine.pop_to_mark()),
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
