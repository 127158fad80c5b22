"""What counts as the memory of a child."""

import sys
from pathlib import Path

import psutil
import pytest

from tests.bench import poll
from worker.process import ChildProcess

SIZE = 200 * 2**20
HOLD = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    held = mmap.mmap(file.fileno(), 0)
    seen = sum(held[place] for place in range(0, len(held), 4096))
own = bytearray(int(sys.argv[2]))
own[::4096] = b"x" * len(own[::4096])
open(sys.argv[3], "w").close()
sys.stdin.read()
"""


@pytest.mark.parametrize("own", [0, SIZE])
def test_a_mapped_file_is_not_memory_that_a_child_holds(own: int, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(SIZE)
    names = (str(tmp_path / "large"), str(own), str(tmp_path / "ready"))
    child = ChildProcess([sys.executable, "-c", HOLD, *names])
    try:
        poll((tmp_path / "ready").exists)
        resident = psutil.Process(child.pid).memory_info().rss
        assert resident > SIZE + own
        assert own <= child.memory() < own + 100 * 2**20
    finally:
        child.end()
        child.reap()
