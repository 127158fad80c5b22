"""Bytes: a folder or an S3 bucket, behind the same calls.

Uploads and artifacts are blobs: content-addressed by their SHA-256, so a tenant's same bytes are
stored once and a write can be repeated safely. Each tenant has blobs of its own: what another one
has stored shows in nothing, not even in the time that an upload takes. An upload is first staged
under a random key, looked at, and then kept (moved to its blob) or deleted. Whole objects appear at
once or not at all.
"""

import contextlib
import hashlib
import io
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import obstore
from obstore.store import LocalStore, S3Store

from jobstore.errors import TooLarge
from jobstore.presigned import PresignedPut, presign_put
from jobstore.settings import Settings
from jobstore.tables import DEFAULT_TENANT

if TYPE_CHECKING:
    from obstore import ReadableFile
    from obstore.store import ClientConfig, RetryConfig, S3Config
    from typing_extensions import Buffer

_CHUNK_BYTES = 1 << 20
# A store that is slower than the network lets this much of an upload pile up in memory, instead of
# obstore's default of sixty mebibytes. S3 takes no smaller parts.
_PART_BYTES, _PARTS_AT_ONCE = 5 << 20, 3


@dataclass(frozen=True)
class Stored:
    """Where an object lies, and what it is."""

    key: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Found:
    """An object of the store, and when it was last written by the store's clock."""

    key: str
    bytes: int
    modified: datetime


STAGED, CHECKPOINTS = "staged/", "checkpoints/"
"""Where uploads lie until they are kept or dropped, and where the checkpoints of jobs do."""

_BLOB_KEY = re.compile(r"(?:tenants/(?P<tenant>[a-z0-9-]+)/)?blobs/../(?P<sha256>[0-9a-f]{64})")


def read_blob_key(key: str) -> tuple[str, str] | None:
    """Return the tenant and the digest that the key was made of; None if it is no blob's."""
    parts = _BLOB_KEY.fullmatch(key)
    return (parts["tenant"] or DEFAULT_TENANT, parts["sha256"]) if parts else None


def checkpoint_key(job_id: str, attempt: int, name: str) -> str:
    """Return the key of a checkpoint that an attempt of a job has made."""
    return f"{CHECKPOINTS}{job_id}/{attempt}/{name}"


def tenant_folder(tenant: str) -> str:
    """Return the beginning of the keys of all blobs of a tenant other than the default one."""
    return f"tenants/{tenant}/"


def blob_folder(tenant: str = DEFAULT_TENANT) -> str:
    """Return what the keys of the tenant's blobs begin with."""
    # The default tenant's lie where they lay before there were others.
    return "blobs" if tenant == DEFAULT_TENANT else f"{tenant_folder(tenant)}blobs"


def blob_key(sha256: str, tenant: str = DEFAULT_TENANT) -> str:
    """Return the key of the tenant's blob with this digest (hex)."""
    return f"{blob_folder(tenant)}/{sha256[:2]}/{sha256}"


def digest_of(path: Path) -> str:
    """Return the SHA-256 (hex) of the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def staged_key() -> str:
    """Return a new key for something that is not a file yet, or never will be."""
    return f"{STAGED}{uuid4().hex}"


class ObjectStore:
    """Objects by key. A missing object raises FileNotFoundError, whatever the backend.

    `tenant` is whose blobs `keep` and `put_blob` make.
    """

    def __init__(self, store: LocalStore | S3Store, tenant: str = DEFAULT_TENANT) -> None:
        self._store = store
        self.tenant = tenant

    def of(self, tenant: str) -> "ObjectStore":
        """Return the same store, whose blobs are the tenant's."""
        return ObjectStore(self._store, tenant)

    @classmethod
    def from_settings(cls, settings: Settings) -> "ObjectStore":
        """Open `settings.store_url`; raises ValueError for a scheme other than file and s3."""
        scheme = settings.store_url.partition("://")[0]
        if scheme == "file":
            return cls(LocalStore.from_url(settings.store_url, mkdir=True))
        if scheme == "s3":
            return cls(_s3_store(settings))
        raise ValueError(f"ATMC_STORE_URL: {scheme!r} is not one of file, s3")

    async def put_stream(self, chunks: AsyncIterable[bytes], *, max_bytes: int) -> Stored:
        """Stage an upload without holding it in memory, hashing it on the way.

        Raises `TooLarge` as soon as more than `max_bytes` have come, and whatever `chunks` raises;
        nothing is stored then.
        """
        digest = hashlib.sha256()
        size = 0

        async def measured() -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    raise TooLarge(max_bytes)
                digest.update(chunk)
                yield chunk

        key = staged_key()
        await obstore.put_async(
            self._store,
            key,
            measured(),
            chunk_size=_PART_BYTES,
            max_concurrency=_PARTS_AT_ONCE,
        )
        return Stored(key, digest.hexdigest(), size)

    async def put_chunk(self, content: bytes) -> str:
        """Stage a piece of an upload in one write; returns its key."""
        key = staged_key()
        await obstore.put_async(self._store, key, content, use_multipart=False)
        return key

    async def stream_all(self, sources: Iterable[tuple[str, int]]) -> AsyncIterator[bytes]:
        """Yield objects one after the other; each comes with its size."""
        for key, size in sources:
            async for chunk in self.stream(key, 0, size):
                yield chunk

    def keep(self, staged: Stored) -> Stored:
        """Make a staged upload the blob of its digest; the staged key is gone afterwards."""
        key = blob_key(staged.sha256, self.tenant)
        self.move(staged.key, key)
        return Stored(key, staged.sha256, staged.bytes)

    def put_blob(self, path: Path) -> Stored:
        """Store the file as the blob of its digest."""
        sha256 = digest_of(path)
        stored = Stored(blob_key(sha256, self.tenant), sha256, path.stat().st_size)
        if not self.exists(stored.key):
            self.put_file(stored.key, path)
        return stored

    def put_file(self, key: str, path: Path) -> None:
        """Store the file's content under `key`, over what is there."""
        obstore.put(self._store, key, path)

    def get_file(self, key: str, path: Path) -> None:
        """Write the object to `path`, whose folder exists."""
        with path.open("wb") as file:
            for chunk in obstore.get(self._store, key).stream(_CHUNK_BYTES):
                file.write(chunk)

    def open(self, key: str) -> io.BufferedReader:
        """Return a seekable reader of the object that fetches what is read, not the whole."""
        return io.BufferedReader(_RawReader(obstore.open_reader(self._store, key)))

    async def stream(
        self, key: str, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` up to `end` (exclusive; None: the object's end)."""
        end = self.size(key) if end is None else end
        if start == end:  # A range of no bytes is an error to the stores, the end of an empty file.
            return
        result = await obstore.get_async(self._store, key, options={"range": (start, end)})
        async for chunk in result.stream(_CHUNK_BYTES):
            yield bytes(chunk)

    def size(self, key: str) -> int:
        """Return the object's size in bytes."""
        return int(obstore.head(self._store, key)["size"])

    def exists(self, key: str) -> bool:
        """Tell whether there is an object under `key`."""
        try:
            obstore.head(self._store, key)
        except FileNotFoundError:
            return False
        return True

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys of all objects below `prefix`, in order."""
        return sorted(found.key for found in self.find(prefix))

    def find(self, prefix: str = "") -> Iterator[Found]:
        """Yield all objects below `prefix`, in no order."""
        for chunk in obstore.list(self._store, prefix or None):
            for each in chunk:
                yield Found(each["path"], each["size"], each["last_modified"])

    def folders(self, prefix: str) -> list[str]:
        """Return what the keys below `prefix` have up to their next slash."""
        return list(obstore.list_with_delimiter(self._store, prefix)["common_prefixes"])

    def move(self, key: str, new_key: str) -> None:
        """Rename the object, over what is there: atomic in a folder, copy and delete on S3."""
        obstore.rename(self._store, key, new_key)

    def delete(self, key: str) -> None:
        """Delete the object; it is no error if there is none (S3 does not tell)."""
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, key)

    def seal(self, key: str) -> None:
        """Put an empty object there, so that no URL of `presign_put` takes anything any more."""
        obstore.put(self._store, key, b"")

    def presign(self, key: str, *, expires_s: float) -> str | None:
        """Return a URL by which anyone may get the object; None where a store has none."""
        if isinstance(self._store, LocalStore):
            return None
        return obstore.sign(self._store, "GET", key, timedelta(seconds=expires_s))

    def presign_put(self, key: str, *, bytes: int, expires_s: float) -> PresignedPut | None:
        """Return a URL that takes one PUT of so many bytes; None where a store has none."""
        if isinstance(self._store, LocalStore):
            return None
        return presign_put(self._store, key, bytes=bytes, expires_s=expires_s)


class _RawReader(io.RawIOBase):
    """Python's file protocol over obstore's reader, whose `read` returns a type of its own."""

    def __init__(self, reader: "ReadableFile") -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()

    def readinto(self, buffer: "Buffer") -> int:
        view = memoryview(buffer).cast("B")
        data = self._reader.read(len(view))
        view[: len(data)] = data
        return len(data)


def _s3_store(settings: Settings) -> S3Store:
    secret = settings.store_secret_access_key
    config: S3Config = {"region": settings.store_region}
    # Obstore finds what is not set here in the AWS_... variables or the machine's own role.
    if settings.store_endpoint is not None:
        config["endpoint"] = settings.store_endpoint
    if settings.store_access_key_id is not None:
        config["access_key_id"] = settings.store_access_key_id
    if secret is not None:
        config["secret_access_key"] = secret.get_secret_value()
    options: ClientConfig = {
        "allow_http": (settings.store_endpoint or "").startswith("http://"),
        "connect_timeout": timedelta(seconds=5),
        "read_timeout": timedelta(seconds=30),
        # This limits a whole object; the default of 30 seconds would cut large ones off.
        "timeout": timedelta(hours=1),
    }
    # The retries are short, because callers watch other things too and try again by themselves.
    retries: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=15)}
    return S3Store.from_url(
        settings.store_url, config=config, client_options=options, retry_config=retries
    )
