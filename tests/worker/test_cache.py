"""Inputs that a host keeps: fetched once, checked at use, within a limit, by tenant."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jobstore.blobs import touch
from jobstore.retry import GaveUp
from jobstore.settings import Settings
from worker.cache import InputCache, WrongBytes

CONTENT = b"images" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Source:
    """A store that counts what it is asked for."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content, self.asked = content, 0

    def __call__(self, path: Path) -> None:
        self.asked += 1
        path.write_bytes(self.content)


def cache(home: Path, limit: int = 10_000, reserved: int = 0) -> InputCache:
    return InputCache(Settings(home=home, input_cache_bytes=limit, reserved_bytes=reserved))


def fetch(
    kept: InputCache, to: Path, source: Callable[[Path], None], tenant: str = "vision"
) -> bytes:
    content = getattr(source, "content", CONTENT)
    kept.fetch(tenant, hashlib.sha256(content).hexdigest(), to, source, until=lambda: False)
    return to.read_bytes()


def kept_files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "kept-inputs").glob("*/*"))


def test_it_is_fetched_once_and_each_job_has_a_copy_of_its_own(tmp_path: Path) -> None:
    source = Source()
    first, second = tmp_path / "first", tmp_path / "second"
    assert fetch(cache(tmp_path), first, source) == CONTENT
    first.write_bytes(b"a child wrote here")
    # Another worker of the host.
    assert fetch(cache(tmp_path), second, source) == CONTENT
    assert source.asked == 1
    kept = tmp_path / "kept-inputs" / "vision" / SHA256
    assert len({path.stat().st_ino for path in (first, second, kept)}) == 3
    assert kept.parent.stat().st_mode & 0o077 == 0


def test_another_tenant_does_not_gain_from_it(tmp_path: Path) -> None:
    source = Source()
    for tenant in ("vision", "audio"):
        fetch(cache(tmp_path), tmp_path / tenant, source, tenant)
    assert source.asked == 2


def test_a_damaged_file_is_fetched_anew_and_a_wrong_one_is_not_used(tmp_path: Path) -> None:
    source = Source()
    fetch(cache(tmp_path), tmp_path / "a", source)
    (tmp_path / "kept-inputs" / "vision" / SHA256).write_bytes(b"damaged")
    assert fetch(cache(tmp_path), tmp_path / "b", source) == CONTENT
    assert source.asked == 2
    for limit in (0, 10_000):
        with pytest.raises(WrongBytes):
            cache(tmp_path, limit).fetch("vision", "0" * 64, tmp_path / "c", source, lambda: False)
        assert not (tmp_path / "c").exists()
    assert kept_files(tmp_path) == [SHA256]


def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    sources = [Source(bytes([n]) * 400) for n in range(4)]
    names = [hashlib.sha256(source.content).hexdigest() for source in sources]
    kept = cache(tmp_path, limit=1000)
    for moment, index in enumerate((0, 1, 0, 2)):
        fetch(kept, tmp_path / "to", sources[index])
        path = tmp_path / "kept-inputs" / "vision" / names[index]
        os.utime(path, (moment, moment))
    assert kept_files(tmp_path) == sorted([names[0], names[2]])
    large = Source(b"x" * 1001)
    fetch(kept, tmp_path / "to", large)
    assert kept_files(tmp_path) == sorted([names[0], names[2]])
    kept.clear()
    assert kept_files(tmp_path) == []
    # Nothing is kept of a limit of 0, and nothing that the disk's reserve needs.
    for other in (cache(tmp_path, limit=0), cache(tmp_path, reserved=2**60)):
        assert fetch(other, tmp_path / "to", sources[3]) == sources[3].content
        assert kept_files(tmp_path) == []


def test_two_workers_at_once_fetch_it_once_and_a_stopped_one_does_not_wait(tmp_path: Path) -> None:
    begun, go_on, asked = threading.Event(), threading.Event(), []

    def slow(path: Path) -> None:
        asked.append(path)
        begun.set()
        assert go_on.wait(30)
        path.write_bytes(CONTENT)

    first = threading.Thread(target=fetch, args=[cache(tmp_path), tmp_path / "a", slow])
    first.start()
    assert begun.wait(30)
    with pytest.raises(GaveUp):
        cache(tmp_path).fetch("vision", SHA256, tmp_path / "b", slow, until=lambda: True)
    second = threading.Thread(target=fetch, args=[cache(tmp_path), tmp_path / "b", slow])
    second.start()
    go_on.set()
    for thread in (first, second):
        thread.join(30)
    assert (tmp_path / "b").read_bytes() == CONTENT
    assert len(asked) == 1


def test_what_the_service_has_deleted_is_not_kept_any_longer(bench) -> None:
    home = bench.settings.home
    known, deleted = Source(b"known"), Source(b"deleted")
    kept = cache(home)
    for source in (known, deleted):
        fetch(kept, home / "to", source, "default")
    name = hashlib.sha256(known.content).hexdigest()
    with bench.database.write() as session:
        touch(session, "default", name, 5)
    kept.tend(bench.database)
    assert kept_files(home) == [name]
