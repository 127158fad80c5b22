"""Fetches what lies elsewhere and puts results there, beside the requests.

What is to be carried stands in the database (`jobstore.transfers`), so any number of processes may
be at it, and what a killed one was at another one begins anew. A file passes through this process
in pieces of a mebibyte, and is inspected and kept as an upload is.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import anyio

from api.datasets.intake import dataset_rule, summary_of
from api.inspection import ModelHeader
from api.models.intake import check_model, model_rule
from api.models.schemas import Normalization
from api.problems import Problem
from api.services import Services
from api.uploads.keeping import keep
from api.uploads.receiving import FileRule
from jobstore import audit, transfers, uploads
from jobstore.artifacts import list_artifacts
from jobstore.connections import Connection, NotAllowed, Place
from jobstore.errors import DiskFull, LeaseLost, QuotaExceeded, TenantGone, TooLarge
from jobstore.logs import brief
from jobstore.objects import Stored, blob_key
from jobstore.remote import Found, Remote, SourceError, put, stream
from jobstore.retry import TRANSIENT
from jobstore.tables import Artifact, Document, Model, Tenant
from jobstore.tenancy import Origin
from jobstore.transfers import Carried
from jobstore.wakeups import wake

log = logging.getLogger(__name__)

T = TypeVar("T")

CARRIER = "carrier"
"""Who acts, in the audit log."""

#: The time between two looks for what is due, and between two words on how far a fetch is.
POLL_S, TELL_S = 0.5, 2.0
# So many transfers are made at once, each of another tenant.
_AT_ONCE = 4
_LONGEST_DELAY_S = 60.0


class Carrier:
    """Carries what is due until it is cancelled."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._busy: dict[str, asyncio.Task[None]] = {}
        # Threads of its own: those that answer requests are not to wait for strangers' servers.
        self._threads = anyio.CapacityLimiter(2 * _AT_ONCE + 1)

    async def run(self) -> None:
        """Look for what is due, again and again."""
        delay_s = POLL_S
        try:
            while True:
                await asyncio.sleep(delay_s)
                self._busy = {t: task for t, task in self._busy.items() if not task.done()}
                try:
                    taken = await self._in_thread(self._claim)
                    delay_s = POLL_S
                except TRANSIENT as error:
                    delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
                    log.warning("transfers wait: %s", brief(error), extra={"next_in_s": delay_s})
                    continue
                for carried in taken:
                    self._busy[carried.tenant] = asyncio.create_task(self._carry(carried))
        finally:
            for task in self._busy.values():
                task.cancel()
            await asyncio.gather(*self._busy.values(), return_exceptions=True)

    async def _in_thread(self, act: Callable[..., T], *args: Any) -> T:
        return await anyio.to_thread.run_sync(
            act, *args, limiter=self._threads, abandon_on_cancel=True
        )

    def _claim(self) -> list[Carried]:
        room = _AT_ONCE - len(self._busy)
        if room <= 0:
            return []
        with self._services.database.write() as session:
            return transfers.claim(session, list(self._busy), room)

    def _part(self, carried: Carried) -> Services:
        with self._services.database.read() as session:
            tenant = session.get_one(Tenant, carried.tenant)
        return self._services.of(tenant, Origin(CARRIER))

    async def _carry(self, carried: Carried) -> None:
        ids = {"transfer": carried.id, "tenant": carried.tenant, "try": carried.number}
        try:
            part = await self._in_thread(self._part, carried)
            try:
                if carried.kind == transfers.RESULTS:
                    await self._deliver(part, carried)
                else:
                    await self._fetch(part, carried)
                log.info("carried", extra=ids)
            except (LeaseLost, TenantGone):
                raise
            except Exception as error:
                failed = _explained(error)
                if failed.code == "internal_error":
                    log.exception("a mistake of ours", extra=ids)
                gives_up = await self._in_thread(_put_off, part, carried, failed)
                extra = ids | {"code": failed.code, "gives_up": gives_up}
                log.warning("not carried: %s: %s", failed.message, brief(error), extra=extra)
        except (LeaseLost, TenantGone):
            log.info("a transfer is given up: it is another's, or gone", extra=ids)
        except TRANSIENT as error:
            log.warning("a transfer is made again: %s", brief(error), extra=ids)

    async def _fetch(self, part: Services, carried: Carried) -> None:
        """Fetch the file, and let it be the model's or data set's."""
        asked = carried.asked
        rule: FileRule[Any]
        if carried.kind == transfers.MODEL:
            rule = model_rule("uri", part.settings)
        else:
            rule = dataset_rule("uri", part.settings)
        place, connection = _place_of(part, asked)
        chunks = self._told(part, carried, stream(connection, place, _found(asked["found"])))
        stored = await part.store.put_stream(part.disk.watched(chunks), max_bytes=rule.max_bytes)
        try:
            if asked["sha256"] not in (None, stored.sha256):
                said = f"its SHA-256 is {stored.sha256}, another one was named"
                raise SourceError("source_changed", said)
            await self._in_thread(_renew, part, carried, stored.bytes)
            header = await rule.inspect(part.store, stored)
            queues = await self._in_thread(_keep, part, carried, stored, header)
        finally:
            part.store.delete(stored.key)
        for queue in queues:
            await self._in_thread(wake, part.celery, queue)

    async def _told(
        self, part: Services, carried: Carried, chunks: Iterator[bytes]
    ) -> AsyncIterator[bytes]:
        """Yield the chunks, and tell now and then how many bytes have come."""
        came, told = 0, time.monotonic()
        while (chunk := await self._in_thread(next, chunks, None)) is not None:
            came += len(chunk)
            if time.monotonic() - told >= TELL_S:
                await self._in_thread(_renew, part, carried, came)
                told = time.monotonic()
            yield chunk

    async def _deliver(self, part: Services, carried: Carried) -> None:
        """Put a job's files to where they were asked for, over what is there."""
        place, connection = _place_of(part, carried.asked, writing=True)
        artifacts = await self._in_thread(_artifacts_of, part, carried)
        if not artifacts:
            raise SourceError("source_missing", "the job's files are no longer kept")
        for each in artifacts:
            key = blob_key(each.sha256, part.store.tenant)
            content = self._renewed(part, carried, part.store.stream(key, 0, each.bytes))
            await put(connection, place, each.name, content, each.bytes)
        names = [each.name for each in artifacts]
        await self._in_thread(_tell_delivered, part, carried, names)

    async def _renewed(
        self, part: Services, carried: Carried, chunks: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """Yield the chunks, and hold the transfer meanwhile."""
        await self._in_thread(_renew, part, carried)
        told = time.monotonic()
        async for chunk in chunks:
            if time.monotonic() - told >= TELL_S:
                await self._in_thread(_renew, part, carried)
                told = time.monotonic()
            yield chunk


def _artifacts_of(part: Services, carried: Carried) -> Sequence[Artifact]:
    with part.database.read() as session:
        return list_artifacts(session, carried.id)


def _tell_delivered(part: Services, carried: Carried, names: Sequence[str]) -> None:
    with part.database.write() as session:
        transfers.delivered(session, carried, names)
        audit.record(session, "results.deliver", carried.id, files=len(names))


def _renew(part: Services, carried: Carried, came: int | None = None) -> None:
    with part.database.write() as session:
        transfers.renew(session, carried, came)


def _keep(part: Services, carried: Carried, stored: Stored, header: Any) -> list[str]:
    """Make the staged file the row's; returns the queues of the jobs that may go on."""
    with part.database.write() as session:
        row = transfers.file_of(session, carried)
        # The transfer goes first, because the file takes over its share of the quota.
        transfers.done(session, carried)
        if isinstance(row, Model):
            said, format = _fitted(session, row, header)
            kept = keep(session, part, stored)
            row.summary, row.format = said, format
        else:
            said, inflated_bytes = summary_of(header)
            kept = keep(session, part, stored, inflated_bytes)
            row.summary = said
        row.sha256, row.bytes = kept.sha256, kept.bytes
        uploads.count(session, row)
        audit.record(session, f"{carried.kind}.fetch", row.id, sha256=kept.sha256)
        return transfers.arrived(session, row, kept.bytes)


def _fitted(session: Any, row: Model, header: ModelHeader) -> tuple[Document, str]:
    normalization = row.normalization and Normalization.model_validate(row.normalization)
    fitted = check_model(session, header, row.architecture, normalization or None)
    return asdict(fitted), header.format


def _place_of(
    part: Services, asked: Document, *, writing: bool = False
) -> tuple[Place, Connection]:
    place = Place.of(asked["uri"])
    tenant = part.store.tenant
    return place, part.connections.find(tenant, asked["connection"], place, writing=writing)


def _found(document: Document) -> Found:
    files = tuple(Remote(**file) for file in document["files"])
    return Found(files, document["is_folder"])


def _put_off(part: Services, carried: Carried, failed: SourceError) -> bool:
    with part.database.write() as session:
        return transfers.put_off(
            session, carried, failed.code, failed.message, passes=failed.passes
        )


def _explained(error: Exception) -> SourceError:
    """Return why it failed, in the words of a refusal."""
    match error:
        case SourceError():
            return error
        case NotAllowed():
            return SourceError("source_not_allowed", str(error))
        case Problem():
            return SourceError(error.code, error.detail.rstrip("."))
        case TooLarge():
            said = f"it has more than the {error.max_bytes:,} bytes that are allowed"
            return SourceError("file_too_large", said)
        case QuotaExceeded():
            said = f"the quota of {error.limit:,} bytes has no room for it: delete what is unused"
            return SourceError("quota_exceeded", said)
        case DiskFull():
            said = "a disk of the service is full"
            return SourceError("insufficient_storage", said, passes=True)
    if isinstance(error, TRANSIENT):
        return SourceError("unavailable", "a part of the service is away", passes=True)
    return SourceError("internal_error", "the service failed", passes=True)
