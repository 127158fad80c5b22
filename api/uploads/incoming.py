"""Uses an upload that came in several requests as a file: read through once, checked, inspected."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.idempotency import answer_once, replayed
from api.problems import Problem
from api.services import Services
from api.sources.asking import Looked, in_thread_of, look_at
from api.uploads.multipart import too_large
from api.uploads.receiving import FileRule, Upload
from api.uploads.schemas import ByReference
from jobstore import incoming
from jobstore.errors import NotFound, TooLarge
from jobstore.idempotency import Answer
from jobstore.incoming import Chunk, Leftovers
from jobstore.objects import Stored
from jobstore.tables import Document, IncomingUpload

T = TypeVar("T")


@asynccontextmanager
async def assembled(
    services: Services, upload_id: str, rule: FileRule[T]
) -> AsyncIterator[Upload[T]]:
    """Stage the upload as one object, hashed on the way, and inspect that by the rule.

    What is inspected and kept is a copy: its owner can put another file in a direct upload's place
    at any time. The upload itself stays until `use_up`.

    Raises `invalid_value` for an upload that is not there, `upload_incomplete`, `digest_mismatch`,
    `file_too_large`, and what inspecting raises.
    """
    upload, sources = await run_in_threadpool(_find, services, upload_id)
    services.disk.check(upload.bytes)
    parts = services.store.stream_all((source.key, source.bytes) for source in sources)
    try:
        stored = await services.store.put_stream(parts, max_bytes=rule.max_bytes)
    except TooLarge as error:
        raise too_large("The upload is larger", rule.max_bytes) from error
    try:
        await run_in_threadpool(_check_digest, services, upload, stored)
        header = await _inspect(services, stored, rule)
        yield Upload(upload.filename or upload.id, stored, header)
    finally:
        await run_in_threadpool(services.store.delete, stored.key)


async def answer_by_upload(
    services: Services,
    call: str,
    key: str | None,
    new: ByReference,
    upload_id: str,
    rule: FileRule[T],
    act: Callable[[Session, Upload[T]], Answer],
) -> JSONResponse:
    """Answer once by `act` on the assembled upload, which is used up with it."""
    content = {"by_upload": new.model_dump(exclude_unset=True)}
    known = await run_in_threadpool(replayed, services.database, call, key, content)
    if known is not None:
        return known
    async with assembled(services, upload_id, rule) as upload:
        left = Leftovers()

        def use_up_too(session: Session) -> Answer:
            nonlocal left
            # The upload goes first, because the file takes over its share of the quota.
            left = use_up(session, upload_id)
            return act(session, upload)

        answer = await run_in_threadpool(
            answer_once, services.database, call, key, content, use_up_too
        )
    await run_in_threadpool(left.clear, services.store)
    return answer


async def answer_by_source(
    services: Services,
    call: str,
    key: str | None,
    new: ByReference,
    act: Callable[[Session, Looked], Answer],
    **how: Any,
) -> JSONResponse:
    """Answer once by `act` on what lies at the URI now; `how` is what `look_at` is told."""
    source, content = new.source(), {"by_source": new.model_dump(exclude_unset=True)}
    assert source is not None

    def answer() -> JSONResponse:
        known = replayed(services.database, call, key, content)
        if known is not None:
            return known
        looked = look_at(services, source, param="uri", **how)
        return answer_once(services.database, call, key, content, lambda s: act(s, looked))

    return await in_thread_of(services.store.tenant, answer)


def answer_by_file(
    services: Services,
    call: str,
    key: str | None,
    upload: Upload[T],
    said: Document,
    act: Callable[[Session, Upload[T]], Answer],
) -> JSONResponse:
    """Answer once by `act` on a file that came in the request; `said` is what came beside it."""
    content = {"file": [upload.filename, upload.stored.sha256], **said}
    return answer_once(services.database, call, key, content, lambda s: act(s, upload))


def use_up(session: Session, upload_id: str) -> Leftovers:
    """Forget the upload; what is left of it is to be cleared after the commit."""
    try:
        return incoming.forget(session, incoming.get_upload(session, upload_id, lock=True))
    except NotFound as error:
        raise _not_there(error) from error


def _find(services: Services, upload_id: str) -> tuple[IncomingUpload, list[Chunk]]:
    with services.database.read() as session:
        try:
            upload = incoming.get_upload(session, upload_id)
        except NotFound as error:
            raise _not_there(error) from error
        sources = incoming.sources(session, upload)
    if upload.direct_key is None and upload.received < upload.bytes:
        detail = f"{upload.received} of {upload.bytes} bytes have arrived; send the rest first."
        raise Problem("upload_incomplete", detail, "upload_id")
    if upload.direct_key is not None:
        _check_size(services, upload, upload.direct_key)
    return upload, sources


def _check_size(services: Services, upload: IncomingUpload, key: str) -> None:
    try:
        size = services.store.size(key)
    except FileNotFoundError as error:
        detail = "Nothing lies at its URL yet; PUT the file there first."
        raise Problem("upload_incomplete", detail, "upload_id") from error
    if size != upload.bytes:
        # The URL takes another length from nobody; a store that let one through is not to keep it.
        services.store.delete(key)
        detail = f"{size} bytes lay at its URL, {upload.bytes} were announced; PUT it there again."
        raise Problem("digest_mismatch", detail, "upload_id")


def _check_digest(services: Services, upload: IncomingUpload, stored: Stored) -> None:
    if upload.sha256 is not None and stored.sha256 != upload.sha256:
        # What was announced can be put there now.
        if upload.direct_key is not None:
            services.store.delete(upload.direct_key)
        detail = (
            f"What lay at its URL had the SHA-256 {stored.sha256}, announced was another; PUT "
            "the file there again."
        )
        raise Problem("digest_mismatch", detail, "upload_id")


async def _inspect(services: Services, stored: Stored, rule: FileRule[T]) -> T:
    try:
        return await rule.inspect(services.store, stored)
    except Problem as problem:
        problem.param = problem.param or "upload_id"
        raise


def _not_there(error: NotFound) -> Problem:
    detail = f"There is no upload {error.id!r}: it was used, has expired, or never was."
    return Problem("invalid_value", detail, "upload_id")
