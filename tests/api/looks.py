"""What `tests/api/test_inspection.py` has called in the other process, which loads no more."""

import io
import os
import time
from typing import Any, BinaryIO


def its_process(file: BinaryIO) -> int:
    return os.getpid()


def its_environment(file: BinaryIO) -> dict[str, str]:
    return dict(os.environ)


def for_a_while(file: BinaryIO, seconds: float) -> None:
    time.sleep(seconds)


def for_ever(file: BinaryIO) -> None:
    while True:
        pass


def in_much_memory(file: BinaryIO) -> int:
    return len(bytearray(8 << 30))


def its_end(file: BinaryIO) -> None:
    os._exit(3)


def something_else(file: BinaryIO) -> Any:
    return os.terminal_size((1, 2))


def a_fault(file: BinaryIO) -> None:
    raise LookupError("a mistake of ours")


def pieces(file: BinaryIO) -> list[bytes]:
    file.seek(-5, io.SEEK_END)
    end = file.read()
    file.seek(3)
    return [end, file.read(4), file.read(0)]
