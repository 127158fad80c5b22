"""Files that lie elsewhere: what is there now, and its bytes as long as it is still that.

`look` says what a URI names, with the ETag or version of each file; `Remote.stream` gives their
bytes, and no others. A folder of Parquet files is packed into a tar file on the way, which is the
same whenever its files are.
"""

import tarfile
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpcore
import obstore
from obstore import exceptions as stores

from jobstore.connections import Connection, Place
from jobstore.destinations import Forbidden
from jobstore.reaching import Checked, Deadline, resolve

_CHUNK_BYTES = 1 << 20
_LOOK_S, _FETCH_S, _READ_S = 20.0, 6 * 3600.0, 30.0
_BLOCK = 512
MAX_FILES = 10_000
PARQUET = ".parquet"


class SourceError(Exception):
    """A file cannot be had: a stable `code`, and in the message what to do next.

    `passes` says that another try may go well.
    """

    def __init__(self, code: str, message: str, *, passes: bool = False) -> None:
        super().__init__(message)
        self.code, self.message, self.passes = code, message, passes


@dataclass(frozen=True)
class Remote:
    """A file as it was looked at; `bytes` is None where nobody tells before it has come."""

    path: str
    bytes: int | None
    etag: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class Found:
    """What a URI names: one file, or the Parquet files of a folder, in order."""

    files: tuple[Remote, ...]
    is_folder: bool = False

    @property
    def total_bytes(self) -> int | None:
        """The bytes that will come, if that is known."""
        sizes = [file.bytes for file in self.files]
        if not self.is_folder:
            return sizes[0]
        known = [size for size in sizes if size is not None]
        return sum(_BLOCK + -(-size // _BLOCK) * _BLOCK for size in known) + 2 * _BLOCK


def look(
    connection: Connection,
    place: Place,
    *,
    etag: str | None = None,
    version: str | None = None,
    folders: bool = False,
) -> Found:
    """Return what lies there, if it has this ETag and version; raises `SourceError`.

    With `folders` a folder of Parquet files will do, too.
    """
    if place.scheme == "https":
        # Not every server knows HEAD; of this answer only the head is read.
        with _answering(place, connection, _LOOK_S) as response:
            file = _described(place, response)
        _check_etag(file, etag)
        return Found((file,))
    with _explained(place):
        store = connection.bucket(place.host)
        if place.path and not place.path.endswith("/"):
            try:
                options = {"head": True} | ({"version": version} if version else {})
                meta = obstore.get(store, place.path, options=options).meta  # type: ignore[arg-type]
                file = Remote(place.path, meta["size"], meta["e_tag"], version or meta["version"])
                _check_etag(file, etag)
                # A bucket without versions leaves out what it was asked for.
                if version is not None and meta["version"] != version:
                    raise _changed()
                return Found((file,))
            except FileNotFoundError:
                if not folders:
                    raise
        if not folders:
            raise _wrong("it is a folder; name a file")
        if etag or version:
            raise _wrong("a folder has no ETag and no version: leave them out")
        return Found(tuple(_listed(store, place)), is_folder=True)


def _listed(store: "obstore.store.S3Store", place: Place) -> list[Remote]:
    folder = f"{place.path.removesuffix('/')}/" if place.path else ""
    found, seen = [], 0
    for chunk in obstore.list(store, folder or None):
        for each in chunk:
            seen += 1
            if seen > MAX_FILES:
                raise _wrong(f"more than {MAX_FILES:,} files lie below it: pack them into one")
            if each["path"].lower().endswith(PARQUET):
                found.append(Remote(each["path"], each["size"], each["e_tag"], each["version"]))
    if not seen:
        raise FileNotFoundError(place.uri)
    if not found:
        raise _wrong("no Parquet files lie below it: name an archive, an .npz or a Parquet file")
    return sorted(found, key=lambda file: file.path)


def names(place: Place, found: Found) -> list[str]:
    """Return the names of a folder's files below it."""
    folder = f"{place.path.removesuffix('/')}/" if place.path else ""
    return [file.path.removeprefix(folder) for file in found.files]


def stream(connection: Connection, place: Place, found: Found) -> Iterator[bytes]:
    """Yield the bytes of what was found; raises `SourceError` if it has become another one."""
    if not found.is_folder:
        yield from _read(connection, place, found.files[0])
        return
    for file, name in zip(found.files, names(place, found), strict=True):
        entry = tarfile.TarInfo(name)
        entry.size = file.bytes or 0
        header = entry.tobuf(tarfile.GNU_FORMAT)
        if len(header) > _BLOCK:
            raise _wrong("the name of a file in it has more than 100 bytes")
        yield header
        yield from _read(connection, place, file)
        yield bytes(-entry.size % _BLOCK)
    yield bytes(2 * _BLOCK)


def _read(connection: Connection, place: Place, file: Remote) -> Iterator[bytes]:
    came = 0
    chunks = _by_https if place.scheme == "https" else _by_s3
    with _explained(place):
        for chunk in chunks(connection, place, file):
            came += len(chunk)
            if file.bytes is not None and came > file.bytes:
                raise _changed()
            yield chunk
    if file.bytes is not None and came != file.bytes:
        raise SourceError("source_away", "the connection ended early", passes=True)


def _by_s3(connection: Connection, place: Place, file: Remote) -> Iterator[bytes]:
    options = {"if_match": file.etag, "version": file.version}
    given = {name: value for name, value in options.items() if value}
    got = obstore.get(connection.bucket(place.host), file.path, options=given)  # type: ignore[arg-type]
    if got.meta["size"] != file.bytes or (file.etag and got.meta["e_tag"] != file.etag):
        raise _changed()
    for chunk in got.stream(_CHUNK_BYTES):
        yield bytes(chunk)


def _by_https(connection: Connection, place: Place, file: Remote) -> Iterator[bytes]:
    with _answering(place, connection, _FETCH_S, file.etag) as response:
        now = _described(place, response)
        if now.etag != file.etag or (file.bytes is not None and now.bytes != file.bytes):
            raise _changed()
        gathered = bytearray()
        for chunk in response.iter_stream():
            gathered += chunk
            if len(gathered) >= _CHUNK_BYTES:
                yield bytes(gathered)
                gathered.clear()
        yield bytes(gathered)


@contextmanager
def _answering(
    place: Place, connection: Connection, limit_s: float, etag: str | None = None
) -> Iterator[httpcore.Response]:
    """Yield the answer to a request for the file; redirects are not followed."""
    timeout = dict.fromkeys(("connect", "read", "write", "pool"), _READ_S)
    headers = [("Accept-Encoding", "identity"), ("User-Agent", "atmc"), *connection.headers()]
    # A weak one matches nothing here (RFC 9110); it is compared with the answer's.
    if etag is not None and etag.startswith('"'):
        headers.append(("If-Match", etag))
    with _explained(place):
        destinations = connection.destinations()
        destinations.check_url(place.uri)
        backend = Checked(destinations, resolve, Deadline(limit_s))
        with (
            httpcore.ConnectionPool(ssl_context=connection.tls(), network_backend=backend) as pool,
            pool.stream(
                "GET", place.uri, headers=headers, extensions={"timeout": timeout}
            ) as response,
        ):
            _check_status(response.status)
            yield response


def _check_status(status: int) -> None:
    match status:
        case 200:
            return
        case 404 | 410:
            raise _missing()
        case 412:
            raise _changed()
        case 429:
            raise SourceError("source_away", "its server is asked too often", passes=True)
        case _ if 300 <= status < 400:
            raise _refused("its server answers with a redirect, and none is followed: name the URI")
        case _ if status >= 500:
            raise SourceError("source_away", f"its server answers {status}", passes=True)
    raise _refused(f"its server answers {status}")


def _described(place: Place, response: httpcore.Response) -> Remote:
    fields = {name.lower(): value.decode("latin-1") for name, value in response.headers}
    if fields.get(b"content-encoding", "identity") != "identity":
        raise _refused("its server sends it packed, in another form than it lies there")
    length = fields.get(b"content-length", "")
    pinned = fields.get(b"etag") or fields.get(b"last-modified")
    return Remote(place.path, int(length) if length.isdecimal() else None, pinned)


def _check_etag(file: Remote, wanted: str | None) -> None:
    if wanted is not None and (file.etag or "").strip('"') != wanted.strip('"'):
        raise _changed()


@contextmanager
def _explained(place: Place) -> Iterator[None]:
    """Raise what goes wrong with a store or a server as `SourceError`, without its details."""
    try:
        yield
    except SourceError:
        raise
    except (FileNotFoundError, stores.NotFoundError) as error:
        raise _missing() from error
    except stores.PreconditionError as error:
        raise _changed() from error
    except (stores.PermissionDeniedError, stores.UnauthenticatedError) as error:
        raise _refused("its store refuses the connection's credentials") from error
    except stores.InvalidPathError as error:
        raise _wrong("it has characters that no key has here") from error
    except Forbidden as error:
        raise SourceError("source_not_allowed", str(error)) from error
    except (
        stores.BaseError,
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        OSError,
    ) as error:
        said = "its server does not answer, or breaks off"
        raise SourceError("source_away", said, passes=True) from error
    except ValueError as error:
        # A secret's file that is not there: the operator's matter, and told by the log.
        raise SourceError("source_away", "the connection's credentials cannot be read") from error


async def put(
    connection: Connection, place: Place, name: str, content: AsyncIterable[bytes], size: int
) -> None:
    """Put a result below the place; raises `SourceError`."""
    key = "/".join(filter(None, [place.path.removesuffix("/"), name]))
    with _explained(place):
        store = connection.bucket(place.host)
        await obstore.put_async(store, key, content)
        if (await obstore.head_async(store, key))["size"] != size:
            raise SourceError("source_away", f"{name} did not arrive whole", passes=True)


def _missing() -> SourceError:
    return SourceError("source_missing", "nothing lies there: put it there, or name another URI")


def _changed() -> SourceError:
    said = "it is not what it was when it was named: name it again, as it is now"
    return SourceError("source_changed", said)


def _refused(why: str) -> SourceError:
    return SourceError("source_refused", f"{why}. Ask the operator of the connection")


def _wrong(why: str) -> SourceError:
    return SourceError("source_unusable", why)
