"""Writes the memory use of this machine's GPUs to the database, in a thread of its own.

The figures come from `nvidia-smi`, because torch itself takes GPU memory when it is asked.
"""

import logging
import shutil
import socket
import subprocess
import threading
from dataclasses import dataclass

from jobstore import metrics
from jobstore.database import Database
from jobstore.logs import brief
from jobstore.retry import TRANSIENT

log = logging.getLogger(__name__)

# The memory is written every so many seconds.
EVERY_S = 15.0
_TIMEOUT_S = 10.0
_MIB = 1 << 20
_QUERY = ("--query-gpu=index,memory.used,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class GpuMemory:
    """The memory of one GPU, in bytes."""

    gpu: str
    used: int
    total: int


def read_gpus() -> list[GpuMemory]:
    """Return the memory of each GPU; nothing if there is no NVIDIA driver, or if it fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        answer = subprocess.run(
            [program, *_QUERY], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except (subprocess.SubprocessError, OSError) as error:
        log.warning("nvidia-smi fails: %s", brief(error))
        return []
    return parse(answer.stdout)


def parse(table: str) -> list[GpuMemory]:
    """Read nvidia-smi's table; GPUs whose memory is not known ([N/A]) are left out."""
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines()]
    return [
        GpuMemory(row[0], int(row[1]) * _MIB, int(row[2]) * _MIB)
        for row in rows
        if len(row) == 3 and row[1].isdecimal() and row[2].isdecimal()
    ]


class GpuReport:
    """Writes the GPUs' memory every `EVERY_S` seconds until `stop` is set, if there are GPUs."""

    def __init__(self, database: Database, stop: threading.Event) -> None:
        self._database = database
        self._stop = stop

    def begin(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._keep, name="gpus", daemon=True).start()

    def tell(self, gpus: list[GpuMemory]) -> None:
        """Write the memory of these GPUs to the database."""
        host = socket.gethostname()
        with self._database.write() as session:
            for each in gpus:
                labels = {"worker": host, "gpu": each.gpu}
                metrics.tell(session, metrics.GPU_USED, each.used, **labels)
                metrics.tell(session, metrics.GPU_TOTAL, each.total, **labels)

    def _keep(self) -> None:
        gpus = read_gpus()
        while gpus:
            try:
                self.tell(gpus)
            except TRANSIENT as error:
                log.warning("the GPUs' memory is not told: %s", brief(error))
            if self._stop.wait(EVERY_S):
                return
            gpus = read_gpus() or gpus
