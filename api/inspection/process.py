"""Has files looked into outside of the process that serves.

Even headers cost: a directory of a hundred thousand members is seconds of Python, in which nobody
else was answered. So other processes look, a few at a time, each for a limited time and in limited
memory; and nothing that an uploader wrote is parsed where the secrets are. They are shut in as a
job's child is (`sandbox`), with no folder of their own.
"""

import io
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, BinaryIO, TypeVar

import anyio
from anyio.lowlevel import RunVar

import sandbox
from api.inspection.headers import ArrayHeader, ModelHeader, TensorHeader
from api.loops import of_loop
from api.problems import Problem
from atmc_spec.checkpoints import StateDict

T = TypeVar("T")

LOOK_S = 30.0
"""The longest that looking into one file may take."""

AT_ONCE = 2
"""So many files are looked into at the same time; others wait, and hold no thread meanwhile."""

# Its child may make nothing else in this process.
_KNOWN = {
    (kind.__module__, kind.__qualname__): kind
    for kind in (ArrayHeader, ModelHeader, TensorHeader, StateDict)
}
_RUN = "from api.inspection.child import main; main()"
# What a Python program needs, and no setting of the service.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


async def inspect(
    tenant: str, open_file: Callable[[], BinaryIO], look: Callable[[BinaryIO], T], code: str
) -> T:
    """Return what `look` finds in the file; both have to be known by their module's name.

    Of a tenant's files one at a time is looked into. Raises what `look` raises as a Problem, and
    one of the given `code` for a file that takes more than `LOOK_S` seconds or too much memory.
    """
    async with _turn_of(tenant):
        found: T = await anyio.to_thread.run_sync(
            _inspect, open_file, look, code, limiter=of_loop(_limiter, _new_limiter)
        )
    return found


_limiter: RunVar[anyio.CapacityLimiter] = RunVar("inspections")
_turns: RunVar[dict[str, anyio.Lock]] = RunVar("tenants")


def _new_limiter() -> anyio.CapacityLimiter:
    return anyio.CapacityLimiter(AT_ONCE)


def _turn_of(tenant: str) -> anyio.Lock:
    return of_loop(_turns, dict).setdefault(tenant, anyio.Lock())


def shut_in(mode: sandbox.Mode) -> sandbox.Held:
    """Choose how well the processes that look are shut in, and try it; returns what holds.

    Raises `sandbox.NotHeld` for "require" where files, calls and network cannot be shut.
    """
    global _restrictions
    _restrictions = sandbox.Restrictions(mode=mode)
    return sandbox.Held.nothing() if mode == "off" else sandbox.probe(_restrictions)


_restrictions = sandbox.Restrictions()


def warm_up() -> None:
    """Start a process that looks, so that the first upload need not wait for one."""
    _put_back(_take())


def _inspect(open_file: Callable[[], BinaryIO], look: Callable[[BinaryIO], T], code: str) -> T:
    with open_file() as file:
        try:
            kind, value = _asked(file, look)
        except _Lost as error:
            raise Problem(code, f"The file cannot be read: {error}.") from error
    match kind:
        case "found":
            found: T = value
            return found
        case "refused":
            raise Problem(*value)
        case "too much":
            raise Problem(code, "The file cannot be read: its headers take too much memory.")
    raise RuntimeError(f"looking into a file failed:\n{value}")


def _asked(file: BinaryIO, look: Callable[[BinaryIO], Any]) -> tuple[str, Any]:
    """Have a child look; a second one if the first ended before it had read anything.

    Such a one was not ended by the file: it was killed while it waited, say.
    """
    try:
        return _asked_once(file, look)
    except _Unread:
        return _asked_once(file, look)


def _asked_once(file: BinaryIO, look: Callable[[BinaryIO], Any]) -> tuple[str, Any]:
    child = _take()
    try:
        return child.look(file, look)
    finally:
        _put_back(child)


class _Lost(Exception):
    """A child had to be ended, or ended by itself; the message says why."""


class _Unread(_Lost):
    """It ended by itself, and had read nothing of the file."""


class _Child:
    """A process that looks into one file at a time."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-c",
                    _RUN,
                    str(theirs.fileno()),
                    _restrictions.to_argument(),
                ],
                stdin=subprocess.DEVNULL,
                env=environment | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
            )
        self._connection = Connection(ours.detach())

    @property
    def lives(self) -> bool:
        """Whether it can be asked again."""
        return not self._connection.closed and self._process.poll() is None

    def look(self, file: BinaryIO, look: Callable[[BinaryIO], Any]) -> tuple[str, Any]:
        """Return how it went, and what came of it; raises `_Lost`."""
        deadline = time.monotonic() + LOOK_S
        size = file.seek(0, 2)
        lost: type[_Lost] = _Unread
        try:
            self._connection.send_bytes(pickle.dumps((look, size)))
            while self._connection.poll(max(0.0, deadline - time.monotonic())):
                said = _Plain(self._connection.recv_bytes()).load()
                if said[0] != "read":
                    return said[0], said[1]
                lost = _Lost
                file.seek(said[1])
                self._connection.send_bytes(file.read(said[2]))
        except (EOFError, ConnectionError, pickle.UnpicklingError) as error:
            self.end()
            raise lost("whatever looked into it ended") from error
        except BaseException:
            # Of the store, say: what it would still answer belongs to nobody.
            self.end()
            raise
        self.end()
        raise _Lost(f"its headers took longer than {LOOK_S:g} s to look through")

    def end(self) -> None:
        """End it, if it has not ended."""
        if not self._connection.closed:
            self._connection.close()
        self._process.kill()
        self._process.wait()


class _Plain(pickle.Unpickler):
    """Reads plain values and headers, and makes nothing else, whoever wrote them."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name} is no header")
        return _KNOWN[module, name]


_idle: list[_Child] = []
_lock = threading.Lock()


def _take() -> _Child:
    with _lock:
        while _idle:
            child = _idle.pop()
            if child.lives:
                return child
            child.end()
    return _Child()


def _put_back(child: _Child) -> None:
    with _lock:
        if child.lives and len(_idle) < AT_ONCE:
            _idle.append(child)
            return
    child.end()
