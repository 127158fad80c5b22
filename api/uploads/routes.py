"""`/uploads`: large files in several requests, by the tus protocol."""

from typing import Annotated, Any, Literal

from fastapi import Depends, Header, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api.openapi import FILE, LOCATION
from api.problems import PIECE_CODES, Problem, documented
from api.router import Router
from api.services import Services, ServicesDep
from api.text import PathText
from api.uploads import tus
from api.uploads.appending import Appending, offset_conflict
from api.uploads.beginning import begin, check_size, forget, max_bytes
from api.uploads.multipart import too_large
from api.uploads.receiving import read_out
from api.uploads.schemas import UploadView
from jobstore import incoming
from jobstore.tables import IncomingUpload

router = Router(tags=["uploads"])

# They are declared as headers for the OpenAPI document; the protocol's own rules are in `tus`.
_Tus = Annotated[str | None, Header(alias="Tus-Resumable", examples=[tus.VERSION])]
_Length = Annotated[str | None, Header(alias="Upload-Length", examples=["1048576"])]
_Offset = Annotated[str | None, Header(alias="Upload-Offset", examples=["0"])]
_Metadata = Annotated[
    str | None, Header(alias="Upload-Metadata", examples=["filename bW9kZWwuc2FmZXRlbnNvcnM="])
]
_Checksum = Annotated[
    str | None,
    Header(
        alias="Upload-Checksum",
        description=f"The body's checksum: one of {', '.join(tus.ALGORITHMS)}, then its base64.",
    ),
]

_Method = Annotated[Literal["PATCH", "DELETE"], Header(alias="X-HTTP-Method-Override")]

_BODY = {"requestBody": {"content": {tus.CONTENT_TYPE: {"schema": FILE}}}}
_STATE: dict[str, Any] = {
    name: {"schema": {"type": "string"}}
    for name in ("Tus-Resumable", "Upload-Offset", "Upload-Expires")
}


@router.options(
    "/uploads",
    status_code=204,
    summary="Ask what of the tus protocol is spoken",
    responses={204: {"description": "Version, extensions and limits, in `Tus-...` headers."}},
)
def options(services: ServicesDep) -> Response:
    """Return version, extensions and limits as headers."""
    headers = {
        "Tus-Resumable": tus.VERSION,
        "Tus-Version": tus.VERSION,
        "Tus-Extension": tus.EXTENSIONS,
        "Tus-Max-Size": str(max_bytes(services.settings)),
        "Tus-Checksum-Algorithm": ",".join(tus.ALGORITHMS),
    }
    return Response(status_code=204, headers=headers)


@router.post(
    "/uploads",
    status_code=201,
    response_class=Response,
    summary="Begin an upload that can be resumed",
    openapi_extra=_BODY,
    responses={
        201: {
            "description": "It has begun, with the body if there is one.",
            "headers": LOCATION["headers"] | _STATE,
        },
        **documented(*PIECE_CODES),
    },
)
async def create(
    request: Request,
    services: ServicesDep,
    tus_resumable: _Tus = None,
    upload_length: _Length = None,
    upload_metadata: _Metadata = None,
    upload_checksum: _Checksum = None,
) -> Response:
    """Announce a file by the tus 1.0 protocol; then send it, in pieces, to the `Location`.

    Any tus client does this. Use the file as `upload_id` of `POST /models` or `POST /datasets`.
    """
    tus.check_version(request.headers)
    size = tus.number(request.headers, "Upload-Length")
    check_size(size, services.settings)
    filename = tus.filename(upload_metadata or "")
    checksum = tus.checksum(request.headers)
    has_body = _has_body(request)
    if has_body:
        tus.check_content_type(request.headers)
    upload = await run_in_threadpool(
        begin, services, filename=filename, bytes=size, metadata=upload_metadata or ""
    )
    received = 0
    if has_body:
        try:
            received = await _append(services, upload, checksum, request)
        except BaseException:
            # The client has not heard of the upload, so it cannot go on with it.
            await run_in_threadpool(forget, services, upload.id)
            raise
    location = f"/uploads/{upload.id}"
    headers = tus.headers_of(upload, received) | {"Location": location}
    return Response(status_code=201, headers=headers)


@router.head("/uploads/{upload_id}", include_in_schema=False)
def head(upload_id: PathText, request: Request, services: ServicesDep) -> Response:
    """Tell a tus client where to go on."""
    tus.check_version(request.headers)
    upload = _get(services, upload_id)
    headers = tus.headers_of(upload) | {"Upload-Length": str(upload.bytes)}
    if upload.tus_metadata:
        headers["Upload-Metadata"] = upload.tus_metadata
    return Response(headers=headers)


@router.get(
    "/uploads/{upload_id}",
    summary="Get how far an upload is",
    responses=documented("not_found", "invalid_value"),
)
def get(upload_id: PathText, services: ServicesDep) -> UploadView:
    """Return what has arrived, and until when the rest may."""
    return UploadView.model_validate(_get(services, upload_id))


async def _piece_headers(
    tus_resumable: _Tus = None, upload_offset: _Offset = None, upload_checksum: _Checksum = None
) -> None:
    """Put the headers into the document; the handlers read them from the request."""


# A piece is documented alike, whichever method brings it.
_PIECE: dict[str, Any] = {
    "status_code": 204,
    "response_class": Response,
    "openapi_extra": _BODY,
    "dependencies": [Depends(_piece_headers)],
    "responses": {
        204: {"description": "It is kept.", "headers": _STATE},
        **documented("not_found", *PIECE_CODES),
    },
}


@router.patch("/uploads/{upload_id}", summary="Send a piece of an upload", **_PIECE)
async def patch(upload_id: PathText, request: Request, services: ServicesDep) -> Response:
    """Append the body at `Upload-Offset`, where the upload stands; HEAD tells where that is.

    If the connection breaks, what has come is kept, unless the body has a checksum.
    """
    tus.check_version(request.headers)
    tus.check_content_type(request.headers)
    offset = tus.number(request.headers, "Upload-Offset")
    checksum = tus.checksum(request.headers)
    upload = await run_in_threadpool(_get, services, upload_id)
    if offset != upload.received or upload.direct_key is not None:
        raise offset_conflict(upload.received)
    _check_declared(request, upload)
    received = await _append(services, upload, checksum, request)
    return Response(status_code=204, headers=tus.headers_of(upload, received))


@router.post(
    "/uploads/{upload_id}",
    summary="Send a piece, or give an upload up, where no such method comes through",
    **_PIECE,
)
async def post_instead(
    upload_id: PathText, request: Request, services: ServicesDep, method: _Method
) -> Response:
    """Do as the method in `X-HTTP-Method-Override` does: for clients behind a proxy that lets
    nothing but GET and POST through.
    """
    if method == "DELETE":
        return await run_in_threadpool(delete, upload_id, services)
    return await patch(upload_id, request, services)


@router.delete(
    "/uploads/{upload_id}",
    status_code=204,
    summary="Give an upload up",
    responses={
        204: {"description": "It is gone."},
        **documented("not_found", "invalid_value"),
    },
)
def delete(upload_id: PathText, services: ServicesDep) -> Response:
    """Delete what has arrived."""
    forget(services, upload_id)
    return Response(status_code=204, headers={"Tus-Resumable": tus.VERSION})


async def _append(
    services: Services, upload: IncomingUpload, checksum: tus.Checksum | None, request: Request
) -> int:
    """Return the offset after the request's body."""
    services.disk.check()
    body = services.disk.watched(request.stream())
    appending = Appending(services.database, services.store, upload, checksum)
    try:
        return await appending.take(body)
    except ClientDisconnect:
        return appending.received  # Nobody hears it: the client asks by HEAD.
    except Problem as problem:
        await read_out(body, problem)
        raise


def _get(services: Services, upload_id: str) -> IncomingUpload:
    with services.database.read() as session:
        return incoming.get_upload(session, upload_id)


def _check_declared(request: Request, upload: IncomingUpload) -> None:
    declared = request.headers.get("Content-Length", "0")
    if declared.isdecimal() and upload.received + int(declared) > upload.bytes:
        raise too_large("The upload goes on past its length", upload.bytes)


def _has_body(request: Request) -> bool:
    return (
        request.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in request.headers
    )
