"""Child processes: each is started in a session of its own and ended with all that it started."""

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

TERM_GRACE_S = 2.0
"""A child may take this long to end after SIGTERM; a cancel must be over within five seconds."""

_POLL_S = 0.05
# Operation of Linux's prctl.
_PR_SET_PDEATHSIG = 1

# Children inherit only these variables, which a Python program with torch may need. The service's
# settings and keys are not among them.
_ENVIRONMENT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "PYTHONPATH",
    "PYTHONSAFEPATH",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
)
# Fixes the order of sets, and the workspace of cuBLAS, so that results are repeatable.
_DETERMINISM = {"PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
# OpenMP's threads sleep while they wait. If they spin, a busy machine is several times slower.
_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; if that has ended already, do it now.

    `parent` is the process id of whoever started this one.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The kernel tells of an end to come. Of one that was before, another parent does.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _own_memory(process: psutil.Process) -> int:
    """The bytes of memory of a process, without the pages of files."""
    held = int(process.memory_info().rss)
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("RssFile:"):
                held -= 1024 * int(line.split()[1])
    return held


class ChildProcess:
    """A running child; its methods may be called from several threads.

    Until `reap` is called, the child's process id, and so its process group's, cannot be reused.
    """

    def __init__(
        self, command: Sequence[str], log: Path | None = None, home: Path | None = None
    ) -> None:
        """Start `command`; its output goes to `log`, if that is given. Raises OSError.

        `home` is its folder for temporary files and what it would write to its user's home.
        """
        inherited = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        if home is not None:
            inherited |= {"HOME": str(home), "TMPDIR": str(home)}
        with (log or Path(os.devnull)).open("ab") as output:
            # The child notices the end of this process, however it ends, because the pipe closes.
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=inherited | _DETERMINISM | _THREADS,
                start_new_session=True,
            )
        self._lock = threading.Lock()

    def tell(self, line: str) -> bool:
        """Write a line to the child's standard input; returns False if the child has ended."""
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(os.fsencode(line) + b"\n")
            self._popen.stdin.flush()
        except BrokenPipeError:
            return False
        return not self.exited()

    def memory(self) -> int:
        """Return the bytes of memory of the child and all processes that it started; 0 if ended.

        Pages of mapped files do not count, because the kernel can take them back at any time. Large
        data sets are in such files.
        """
        held = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            leader = psutil.Process(self.pid)
            for process in (leader, *leader.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    held += _own_memory(process)
        return held

    @property
    def pid(self) -> int:
        return self._popen.pid

    def exited(self) -> bool:
        """Tell whether the child itself has ended."""
        with self._lock:
            if self._popen.returncode is not None:
                return True
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self._popen.pid, options) is not None

    def wait(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds for the child's end; tell whether it has ended."""
        deadline = time.monotonic() + timeout_s
        while not self.exited():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def end(self) -> None:
        """End the child and its group: by SIGTERM, and by SIGKILL after `TERM_GRACE_S` seconds."""
        self._signal(signal.SIGTERM)
        self.wait(TERM_GRACE_S)
        self._signal(signal.SIGKILL)

    def reap(self) -> int:
        """Kill what is left of the group; returns the child's exit status (negative: a signal)."""
        self._signal(signal.SIGKILL)
        with self._lock:
            assert self._popen.stdin is not None
            # What a dead child was told and never read is told once more here.
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.close()
            return self._popen.wait()

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if self._popen.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._popen.pid, number)
