import asyncio
import hashlib
import io
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from jobstore.errors import TooLarge
from jobstore.objects import ObjectStore, blob_key
from jobstore.settings import Settings

MEGABYTE = 1_000_000


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _collect(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def _read(store: ObjectStore, key: str, *span: int) -> bytes:
    return asyncio.run(_collect(store.stream(key, *span)))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("parts", [[], [b"abc"], [b"x" * MEGABYTE] * 12], ids=["0", "3", "12M"])
def test_an_upload_is_staged_with_its_digest_then_kept_as_its_blob(
    store: ObjectStore, parts: list[bytes]
) -> None:
    whole = b"".join(parts)
    staged = asyncio.run(store.put_stream(_chunks(*parts), max_bytes=12 * MEGABYTE))
    assert (staged.sha256, staged.bytes) == (hashlib.sha256(whole).hexdigest(), len(whole))

    kept = store.keep(staged)
    assert kept.key == blob_key(staged.sha256)
    assert not store.exists(staged.key)
    assert store.size(kept.key) == len(whole)
    assert _read(store, kept.key) == whole


def test_the_same_bytes_are_stored_once(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"the same")
    first = store.put_blob(path)
    second = store.keep(asyncio.run(store.put_stream(_chunks(b"the ", b"same"), max_bytes=8)))
    assert first == second
    assert _read(store, first.key) == b"the same"


def test_a_stream_past_the_limit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    store = ObjectStore.from_settings(Settings(home=tmp_path))
    with pytest.raises(TooLarge, match="more than 9 bytes"):
        asyncio.run(store.put_stream(_chunks(b"12345", b"67890"), max_bytes=9))
    assert _files(tmp_path) == []


def test_an_error_of_the_caller_comes_out_as_it_is(store: ObjectStore) -> None:
    class Disconnected(Exception):
        pass

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (12 * MEGABYTE)
        raise Disconnected

    with pytest.raises(Disconnected):
        asyncio.run(store.put_stream(broken(), max_bytes=99 * MEGABYTE))


def test_a_range_is_read_alone(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "digits"
    path.write_bytes(b"0123456789")
    store.put_file("digits", path)
    assert _read(store, "digits", 3, 7) == b"3456"
    assert _read(store, "digits", 8) == b"89"


def test_a_file_makes_the_round_trip(store: ObjectStore, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(bytes(range(256)) * 50_000)
    store.put_file("a/checkpoint", there)
    store.get_file("a/checkpoint", back)
    assert back.read_bytes() == there.read_bytes()


def test_an_archive_is_read_through_the_seekable_reader(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", b"\x93NUMPY" + b"0" * MEGABYTE)
    store.put_file("archive", path)
    with store.open("archive") as reader, zipfile.ZipFile(reader) as archive:
        with archive.open("x_train.npy") as member:
            assert member.read(6) == b"\x93NUMPY"
        reader.seek(-4, io.SEEK_END)
        assert len(reader.read(100)) == 4


def test_a_missing_object_is_told_and_deleting_it_is_no_error(store: ObjectStore) -> None:
    assert not store.exists("nothing")
    with pytest.raises(FileNotFoundError):
        store.size("nothing")
    with pytest.raises(FileNotFoundError):
        _read(store, "nothing")
    store.delete("nothing")


def test_a_presigned_url_needs_no_key(s3: dict[str, str], tmp_path: Path) -> None:
    store = ObjectStore.from_settings(Settings(**s3, home=tmp_path))
    path = tmp_path / "model.atmc"
    path.write_bytes(b"small")
    store.put_file("model.atmc", path)
    url = store.presign("model.atmc", expires_s=60)
    assert url is not None
    with urlopen(url, timeout=10) as answer:
        assert answer.read() == b"small"


def test_a_folder_has_no_urls(tmp_path: Path) -> None:
    store = ObjectStore.from_settings(Settings(home=tmp_path))
    assert store.presign("model.atmc", expires_s=60) is None


def test_an_unknown_scheme_is_refused_by_name(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, store_url="ftp://somewhere/else")
    with pytest.raises(ValueError, match="ATMC_STORE_URL: 'ftp' is not one of file, s3"):
        ObjectStore.from_settings(settings)
