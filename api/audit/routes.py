"""`GET /audit`: pages, or the whole as JSON Lines; `GET /audit/heads`: where the chains stand."""

import json
from collections.abc import Iterator
from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from api.accept import prefers
from api.audit.schemas import AuditPageView, AuditQuery, ChainList, ChainView
from api.problems import Problem, documented
from api.router import Router
from api.services import AuditorDep, Services
from jobstore import audit
from jobstore.audit import Filter

router = Router(tags=["audit"])

JSON_LINES = "application/jsonl"
_FORMS = (JSON_LINES, "application/x-ndjson", "application/x-jsonlines")
# What a keeper that is away has left: the rest of it is sealed by the next who ask.
_MOST_SEALINGS = 20


@router.get(
    "/audit",
    summary="List or export who did what",
    response_model=AuditPageView,
    responses={
        200: {
            "description": "A page, newest first; or, with `format=jsonl` or where `Accept` "
            "prefers it, all records, oldest first and a line each, and then, if nothing was left "
            "out, where each chain stands.",
            "content": {JSON_LINES: {"schema": {"type": "string"}}},
        },
        **documented("unknown_field", "invalid_value", "tenant_forbidden"),
    },
)
def list_(
    query: Annotated[AuditQuery, Query()], request: Request, services: AuditorDep
) -> Response:
    """Return records of the caller's tenant; an `admin` sees every tenant's."""
    own = services.database.tenant
    if own is not None and query.tenant not in (None, own):
        detail = f"The key is for the tenant {own!r}, and sees no other's records."
        raise Problem("tenant_forbidden", detail, "tenant")
    seal(services)
    which = query.filter(own)
    accepted = request.headers.get("Accept", "*/*")
    if query.format == "jsonl" or (
        query.format is None and any(prefers(accepted, form) for form in _FORMS)
    ):
        return StreamingResponse(
            _lines(services, which),
            media_type=JSON_LINES,
            headers={"Content-Disposition": 'attachment; filename="audit.jsonl"'},
        )
    with services.database.read() as session:
        page = audit.list_records(session, which, limit=query.limit, cursor=query.cursor)
        data = [audit.document_of(row) for row in page.records]
    return JSONResponse({"data": data, "has_more": page.next is not None, "next": page.next})


@router.get("/audit/heads", summary="Get where the chains of the audit log stand")
def heads(services: AuditorDep) -> ChainList:
    """Return each chain's newest record; whoever keeps it notices if the log is cut or changed."""
    seal(services)
    with services.database.read() as session:
        chains = audit.list_chains(session, services.database.tenant)
        return ChainList(data=[ChainView.model_validate(chain) for chain in chains])


def seal(services: Services) -> None:
    """Chain what has been committed, so that whoever reads sees all of it."""
    for _ in range(_MOST_SEALINGS):
        with services.database.of(None).write() as session:
            if audit.seal(session) == 0:
                return


def _lines(services: Services, which: Filter) -> Iterator[bytes]:
    """Yield the records up to where the chains stand now, some at a time, and those heads."""
    with services.database.read() as session:
        chains = audit.list_chains(session, which.tenant)
    for chain in chains:
        after = chain.expired_seq
        while True:
            with services.database.read() as session:
                rows = audit.records_of(session, chain, which, after)
            if not rows:
                break
            yield b"".join(_line(audit.document_of(row)) for row in rows)
            after = rows[-1].seq or chain.seq
    if which.is_open:
        for chain in chains:
            yield _line({"head": ChainView.model_validate(chain).model_dump(mode="json")})


def _line(document: dict[str, object]) -> bytes:
    # In ASCII, since some readers end a line at characters of Unicode's.
    return json.dumps(document, sort_keys=True).encode() + b"\n"
