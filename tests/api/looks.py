"""What `tests/api/test_inspection.py` has called in the other process, which loads no more."""

import errno
import io
import os
import socket
import time
from collections.abc import Callable
from typing import Any, BinaryIO


def its_process(file: BinaryIO) -> int:
    return os.getpid()


def its_environment(file: BinaryIO) -> dict[str, str]:
    return dict(os.environ)


def others_files(file: BinaryIO, paths: list[str]) -> list[str]:
    """What comes of each attempt to read a file or to list a folder, and to write beside it."""
    return [
        *(_error(lambda path=path: open(path).close()) for path in paths),
        *(_error(lambda path=path: os.listdir(os.path.dirname(path))) for path in paths),
        *(_error(lambda path=path: open(f"{path}.mine", "w").close()) for path in paths),
    ]


def sockets(file: BinaryIO) -> list[str]:
    """What comes of each attempt to open a socket, or to reach another process."""
    return [
        _error(socket.socket),
        _error(lambda: socket.socket(type=socket.SOCK_DGRAM)),
        _error(lambda: socket.socket(socket.AF_UNIX).connect("/run/anything")),
        _error(lambda: os.symlink("a", "b")),
        _error(lambda: os.kill(os.getppid(), 0)),
    ]


def _error(attempt: Callable[[], Any]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


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
