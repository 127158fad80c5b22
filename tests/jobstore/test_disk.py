"""A disk's room: what is kept free, and what a folder takes."""

import tempfile
import threading
from pathlib import Path

import pytest

from jobstore.disk import Disk, taken_by
from jobstore.errors import DiskFull
from jobstore.settings import Settings


def test_what_is_reserved_is_kept_free(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "not" / "yet", reserved_bytes=1)
    disk = Disk(settings)
    free = disk.free()
    assert free > 0
    disk.check(free // 2)
    with pytest.raises(DiskFull, match="are kept so"):
        disk.check(2 * free)
    full = Disk(settings.model_copy(update={"reserved_bytes": 2**62}))
    with pytest.raises(DiskFull):
        full.check()
    Disk(settings.model_copy(update={"reserved_bytes": 0})).check(2 * free)


def test_a_folder_takes_what_its_files_do(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"x" * 1_000_000)
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 30)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert 1_000_000 <= taken_by(tmp_path) < 1_100_000


def test_folders_may_come_and_go_while_it_looks(tmp_path: Path) -> None:
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
                (Path(folder) / "inner").mkdir()
                (Path(folder) / "inner" / "file").write_bytes(b"x" * 5_000)

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            taken_by(tmp_path)
    finally:
        done.set()
        for thread in threads:
            thread.join()
