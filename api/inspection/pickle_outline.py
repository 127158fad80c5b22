"""Reads the outline of a pickled checkpoint without unpickling it.

`torch.save` writes the names, shapes and types of the tensors as a pickle. A pickle is a program;
this module interprets the few opcodes that a state dict and plain data need, and on inert values
only: there is nothing here that could be called. Any global outside `ALLOWED_GLOBALS` is refused by
name; until the end it stands for an object of which nothing is known, so that the refusal can say
where in the file the state dict is.
"""

import math
import pickletools
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any

from api.inspection.headers import TensorHeader, is_shape
from api.inspection.pickle_values import (
    ALLOWED_GLOBALS,
    COUNTER,
    ORDERED_DICT,
    REBUILD_PARAMETERS,
    REBUILD_TENSOR,
    REBUILD_VIEW,
    STORAGE_DTYPES,
    UNTYPED_STORAGE,
    VALUES,
    VIEW_DTYPES,
    Foreign,
    Global,
    Storage,
    StoredTensor,
    Value,
)
from api.inspection.unsafe_pickle import unsafe
from api.problems import Problem
from api.text import clip

# 20,000 tensors take less; more opcodes only cost time.
MAX_OPCODES = 1_000_000

# `torch.load(weights_only=True)`, which reads the file later, reads these and no others.
PROTOCOLS = (2, 3)


def read_outline(pickle: bytes) -> tuple[Any, list[Storage]]:
    """Return what the pickle describes, and all storages that it refers to.

    It describes dicts, lists, tuples, numbers, strings and `StoredTensor`s. Raises `unsafe_pickle`
    for a global that is neither a tensor's nor a plain value's, `malformed_model` for anything that
    torch.save does not write.
    """
    try:
        return _interpret(pickle)
    except Problem as problem:
        if problem.code == "malformed_model":
            _refuse_code(pickle)
        raise


def _refuse_code(pickle: bytes) -> None:
    """Raise `unsafe_pickle` for a global named behind what `_interpret` could not read."""
    with suppress(ValueError):
        for opcode, argument, _ in islice(pickletools.genops(pickle), MAX_OPCODES):
            if opcode.name in ("GLOBAL", "INST"):
                name = _dotted(str(argument))
                if name not in ALLOWED_GLOBALS:
                    raise unsafe(name)


def _interpret(pickle: bytes) -> tuple[Any, list[Storage]]:
    machine = _Machine()
    try:
        outline = _run(machine, pickle)
    except Problem:
        if machine.foreign:
            raise unsafe(machine.foreign) from None
        raise
    if machine.foreign:
        raise unsafe(machine.foreign, outline)
    return outline, list(machine.storages)


def _run(machine: "_Machine", pickle: bytes) -> Any:
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
            if count == MAX_OPCODES:
                raise malformed(f"it takes more than {MAX_OPCODES} steps")
            machine.execute(opcode.name, argument)
    except ValueError as error:
        raise malformed(clip(str(error))) from error
    return machine.result()


def malformed(reason: str, param: str | None = None) -> Problem:
    """Return the refusal of an index that torch.save did not write, or not for a state dict."""
    return Problem(
        "malformed_model",
        f"The pickle in the .pt file does not describe a state dict: {reason}. "
        "Write it again with torch.save(model.state_dict(), 'state_dict.pt').",
        clip(param) if param else None,
    )


class _Machine:
    """The pickle stack machine, reduced to what a state dict needs."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.protocol = 0
        # The first global that is not allowed.
        self.foreign = ""
        self.storages: dict[Storage, None] = {}

    def execute(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        else:
            self._check_protocol()
            raise malformed(f"it contains {opcode}, which torch.save does not write")

    def result(self) -> Any:
        self._check_protocol()
        return self.pop()

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise malformed("it takes from an empty stack")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise malformed("a mark is missing")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def set_protocol(self, version: int) -> None:
        self.protocol = version

    def mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    def put(self, index: int) -> None:
        self.memo[index] = self._top()

    def memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self._top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise malformed("it refers to something not yet written")
        self.stack.append(self.memo[index])

    def push_global(self, name: str) -> None:
        self._push_named(_dotted(name))

    def push_stack_global(self, _: None) -> None:
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise malformed("a global has no name")
        self._push_named(f"{module}.{name}")

    def _push_named(self, name: str) -> None:
        if name in ALLOWED_GLOBALS:
            self.stack.append(Global(name))
            return
        self.foreign = self.foreign or name
        self.stack.append(Foreign())

    def refuse_instance(self, name: str) -> None:
        raise unsafe(_dotted(name))

    def new_object(self, _: None) -> None:
        arguments, kind = self.pop(), self.pop()
        if not (isinstance(kind, Foreign) and isinstance(arguments, tuple)):
            self.refuse_call(None)
        self.stack.append(kind)

    def refuse_call(self, _: None) -> None:
        raise unsafe(self.foreign or "a class that it would instantiate")

    def tuple_to_mark(self, _: None) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def append(self, _: None) -> None:
        self._extend([self.pop()])

    def appends(self, _: None) -> None:
        self._extend(self.pop_to_mark())

    def setitem(self, _: None) -> None:
        value, key = self.pop(), self.pop()
        self._update([key, value])

    def setitems(self, _: None) -> None:
        self._update(self.pop_to_mark())

    def reduce(self, _: None) -> None:
        arguments, function = self.pop(), self.pop()
        match function, arguments:
            case Foreign(), tuple():
                self.stack.append(function)
            case Global(name), () if name == ORDERED_DICT:
                self.stack.append({})
            case Global(name), (dict() as counts,) if name == COUNTER:
                self.stack.append(counts)
            case Global(name), tuple() if name in VALUES:
                self.stack.append(Value())
            case Global(name), (StoredTensor() as tensor, *_) if name in REBUILD_PARAMETERS:
                self.stack.append(tensor)
            case Global(name), (Foreign(), *_) if name.startswith("torch._utils."):
                self.stack.append(Foreign())
            case Global(name), (Storage() as storage, offset, shape, stride, *_) if (
                name == REBUILD_TENSOR
            ):
                self.stack.append(_tensor(storage, offset, shape, stride))
            case (
                Global(name),
                (Storage() as storage, offset, shape, stride, _, _, Global(dtype), *_),
            ) if name == REBUILD_VIEW and dtype in VIEW_DTYPES:
                viewed = storage.viewed(VIEW_DTYPES[dtype])
                self.stack.append(_tensor(viewed, offset, shape, stride))
            case _:
                raise malformed("it calls something with arguments that torch.save does not write")

    def build(self, _: None) -> None:
        # A module's state_dict carries `_metadata` (versions of its layers); loading ignores it.
        state = self.pop()
        if isinstance(self._top(), Foreign):
            return
        if not (isinstance(state, dict) and isinstance(self._top(), dict)):
            raise malformed("it sets attributes on something that is not a dict")

    def persistent_id(self, _: None) -> None:
        match self.pop():
            case ("storage", Global(name), str(key), str(), elements) if (
                name in STORAGE_DTYPES and is_shape([elements])
            ):
                self._push_storage(Storage(STORAGE_DTYPES[name], key, elements))
            case ("storage", Global(name), str(key), str(), size) if (
                name == UNTYPED_STORAGE and is_shape([size])
            ):
                self._push_storage(Storage("U8", key, size))
            case ("storage", Foreign(), *_):
                self.stack.append(Foreign())
            case _:
                raise malformed("it refers to a storage of a kind that is not read")

    def _push_storage(self, storage: Storage) -> None:
        self.storages[storage] = None
        self.stack.append(storage)

    def _check_protocol(self) -> None:
        if self.protocol not in PROTOCOLS:
            # The first two leave no mark of their own.
            named = self.protocol or "0 or 1"
            raise malformed(
                f"it uses pickle protocol {named}; leave pickle_protocol out, it is 2 then"
            )

    def _top(self) -> Any:
        if not self.stack:
            raise malformed("it takes from an empty stack")
        return self.stack[-1]

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self._top(), Foreign):
            return
        if not isinstance(self._top(), list):
            raise malformed("it appends to something that is not a list")
        self._top().extend(items)

    def _update(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Foreign):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise malformed("it sets items of something that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a nested tuple can take for ever, so only plain keys are taken.
            if not isinstance(key, str | int | float | None):
                raise malformed("a key is neither a string nor a number")
            target[key] = value


_LITERALS = {
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINUNICODE",
    "SHORT_BINUNICODE",
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
    "PROTO": _Machine.set_protocol,
    "FRAME": lambda machine, length: None,
    "STOP": lambda machine, argument: None,
    "MARK": _Machine.mark,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.push_global,
    "STACK_GLOBAL": _Machine.push_stack_global,
    "INST": _Machine.refuse_instance,
    "OBJ": _Machine.refuse_call,
    "NEWOBJ": _Machine.new_object,
    "NEWOBJ_EX": _Machine.refuse_call,
    "EXT1": _Machine.refuse_call,
    "EXT2": _Machine.refuse_call,
    "EXT4": _Machine.refuse_call,
    "TUPLE": _Machine.tuple_to_mark,
    "TUPLE1": lambda machine, _: machine.stack.append((machine.pop(),)),
    "TUPLE2": lambda machine, _: machine.stack.append((machine.pop(), machine.pop())[::-1]),
    "TUPLE3": lambda machine, _: machine.stack.append(
        (machine.pop(), machine.pop(), machine.pop())[::-1]
    ),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent_id,
}


def _dotted(argument: str) -> str:
    # pickletools joins module and name by a space.
    return argument.replace(" ", ".", 1)


def _tensor(storage: Storage, offset: Any, shape: Any, stride: Any) -> StoredTensor:
    if not (is_shape([offset]) and is_shape(shape) and is_shape(stride)):
        raise malformed("a tensor's shape is not a tuple of numbers")
    if len(shape) != len(stride):
        raise malformed(f"a tensor has {len(shape)} dimensions but {len(stride)} strides")
    elements = math.prod(shape)
    last = offset + sum((n - 1) * apart for n, apart in zip(shape, stride, strict=True))
    # An expanded tensor (stride 0) would claim memory that the file does not have.
    if elements > storage.elements or (elements and last >= storage.elements):
        raise malformed(
            f"a tensor of shape {list(shape)} is no part of its {storage.elements} stored numbers"
        )
    return StoredTensor(TensorHeader(storage.dtype, tuple(shape)), storage)
