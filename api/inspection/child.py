"""Looks into files for the API, in a process that has nothing to lose: no secret, no store.

`api.inspection.process` starts it with a socket, whose descriptor is its first argument; the second
are the restrictions of the sandbox, which it enters before it reads anything. It is sent a function
and a file's size; it asks for the bytes that it wants to read, and answers with what the function
returns. It does so until the socket closes.
"""

import io
import pickle
import resource
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, BinaryIO, cast

import sandbox
from api.problems import Problem

if TYPE_CHECKING:
    from typing_extensions import Buffer

# A header of the largest that is taken needs a fraction of it.
_MEMORY_BYTES = 2 << 30
_BUFFER_BYTES = 1 << 16


class _AskedFor(io.RawIOBase):
    """A file whose bytes the API reads for us."""

    def __init__(self, connection: Connection, size: int) -> None:
        self._connection = connection
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("a negative position")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: "Buffer") -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._position))
        if wanted == 0:
            return 0
        self._connection.send_bytes(pickle.dumps(("read", self._position, wanted)))
        data = self._connection.recv_bytes()
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def main() -> None:
    """Answer until nobody asks."""
    # Ctrl-C is for the API, whose end closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sandbox.enter(sandbox.Restrictions.from_argument(sys.argv[2]))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    with Connection(int(sys.argv[1])) as connection:
        while True:
            try:
                asked = connection.recv_bytes()
            except EOFError:
                return
            try:
                # What cannot be loaded here is no fault of the file's.
                look, size = pickle.loads(asked)
                raw = io.BufferedReader(_AskedFor(connection, size), _BUFFER_BYTES)
                answer = ("found", look(cast(BinaryIO, raw)))
            except Problem as problem:
                answer = ("refused", (problem.code, problem.detail, problem.param))
            except MemoryError:
                answer = ("too much", None)
            except Exception:
                answer = ("failed", traceback.format_exc())
            connection.send_bytes(pickle.dumps(answer))
