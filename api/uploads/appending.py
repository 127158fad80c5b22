"""Takes in the body of a request as a piece of an upload, chunk by chunk."""

from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api.problems import Problem
from api.uploads.multipart import too_large
from api.uploads.tus import Checksum
from jobstore import incoming
from jobstore.database import Database
from jobstore.errors import OffsetConflict
from jobstore.incoming import Chunk
from jobstore.objects import ObjectStore
from jobstore.tables import IncomingUpload

# Each upload holds this much in memory, and loses it if the process dies.
CHUNK_BYTES = 4 << 20


class Appending:
    """One request's part of an upload.

    If the connection breaks, what has come is kept. A body with a checksum is kept whole or not at
    all, so its rows are written in the end.
    """

    def __init__(
        self,
        database: Database,
        store: ObjectStore,
        upload: IncomingUpload,
        checksum: Checksum | None = None,
    ) -> None:
        self._database = database
        self._store = store
        self._upload = upload
        self._checksum = checksum
        self._digest = checksum.new() if checksum else None
        self._buffer = bytearray()
        self._chunks: list[Chunk] = []
        self._came = upload.received
        self.received = upload.received

    async def take(self, body: AsyncIterator[bytes]) -> int:
        """Return the offset after the body.

        Raises `file_too_large` past the announced length, `checksum_mismatch`, `offset_conflict`;
        none of the body that is not counted in the offset is kept.
        """
        try:
            try:
                async for data in body:
                    await self._add(data)
            except ClientDisconnect:
                if self._checksum is None:
                    await self._write()
                raise
            await self._store_chunk()
            if self._checksum and self._digest and self._digest.digest() != self._checksum.digest:
                raise Problem(
                    "checksum_mismatch",
                    f"The body's {self._checksum.algorithm} is another; send it again.",
                    "Upload-Checksum",
                )
            await self._write()
        finally:
            for chunk in self._chunks:
                await run_in_threadpool(self._store.delete, chunk.key)
        return self.received

    async def _add(self, data: bytes) -> None:
        self._came += len(data)
        if self._came > self._upload.bytes:
            raise too_large("The upload goes on past its length", self._upload.bytes)
        if self._digest is not None:
            self._digest.update(data)
        self._buffer += data
        if len(self._buffer) >= CHUNK_BYTES:
            await self._store_chunk()
            if self._checksum is None:
                await self._write()

    async def _store_chunk(self) -> None:
        if self._buffer:
            content = bytes(self._buffer)
            self._buffer.clear()
            self._chunks.append(Chunk(await self._store.put_chunk(content), len(content)))

    async def _write(self) -> None:
        """Make what is stored part of the upload."""
        await self._store_chunk()
        try:
            self.received = await run_in_threadpool(self._append)
        except OffsetConflict as error:
            raise offset_conflict(error.received) from error
        self._chunks = []

    def _append(self) -> int:
        with self._database.write() as session:
            return incoming.append(session, self._upload.id, self.received, self._chunks)


def offset_conflict(received: int) -> Problem:
    """Return the refusal of a body that does not begin where the upload stands."""
    detail = f"The upload stands at {received}: ask by HEAD, and go on from there."
    return Problem("offset_conflict", detail, "Upload-Offset")
