"""`/uploads`: large files in several requests, by the tus protocol or straight into the store."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api.openapi import FILE, LOCATION, json_body
from api.problems import Problem, documented
from api.services import Services, ServicesDep
from api.strict_json import read_body
from api.text import WITHOUT_NUL, PathText
from api.uploads import tus
from api.uploads.appending import Appending, offset_conflict
from api.uploads.multipart import too_large
from api.uploads.receiving import read_out
from jobstore import incoming
from jobstore.quotas import check_incoming
from jobstore.settings import Settings
from jobstore.tables import IncomingUpload

router = APIRouter(tags=["uploads"])

# Of a URL that puts an object into the store.
URL_LIFETIME_S = 3600

# As headers, so that they stand in the document; the protocol's own rules are in `tus`.
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
        description=f"Of the body: one of {', '.join(tus.ALGORITHMS)}, then its base64.",
    ),
]

_Method = Annotated[Literal["PATCH", "DELETE"], Header(alias="X-HTTP-Method-Override")]

_BODY = {"requestBody": {"content": {tus.CONTENT_TYPE: {"schema": FILE}}}}
_STATE: dict[str, Any] = {
    name: {"schema": {"type": "string"}}
    for name in ("Tus-Resumable", "Upload-Offset", "Upload-Expires")
}


class UploadView(BaseModel):
    """An upload that is on its way."""

    id: str = Field(examples=["upl_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"])
    filename: str
    bytes: int
    received: int = Field(description="Of those bytes; a direct upload's are not counted.")
    sha256: str | None = Field(description="What a direct upload must be.")
    created_at: datetime
    expires_at: datetime
    links: dict[str, str]

    @classmethod
    def of(cls, upload: IncomingUpload) -> Self:
        """Show the upload's row."""
        return cls(
            id=upload.id,
            filename=upload.filename,
            bytes=upload.bytes,
            received=upload.received,
            sha256=upload.sha256,
            created_at=upload.created_at,
            expires_at=upload.expires_at,
            links={"self": f"/uploads/{upload.id}"},
        )


class NewDirectUpload(BaseModel):
    """A file that its owner puts into the store; it is checked against this before its use."""

    model_config = ConfigDict(extra="forbid")

    filename: str = Field("", max_length=255, pattern=WITHOUT_NUL, examples=["net.safetensors"])
    bytes: int = Field(gt=0, lt=2**63, examples=[250_000])
    sha256: str = Field(pattern="^[0-9a-f]{64}$", examples=["0123456789abcdef" * 4])


class DirectUpload(UploadView):
    """Where to PUT the file."""

    url: str = Field(description=f"Takes one PUT of the file, for {URL_LIFETIME_S} seconds.")


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
        "Tus-Max-Size": str(_max_bytes(services.settings)),
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
        **documented(
            "missing_field",
            "invalid_value",
            "file_too_large",
            "unknown_tus_version",
            "unsupported_media_type",
            "unknown_checksum",
            "checksum_mismatch",
            "offset_conflict",
        ),
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
    _check_size(size, services.settings)
    filename = tus.filename(upload_metadata or "")
    checksum = tus.checksum(request.headers)
    has_body = _has_body(request)
    if has_body:
        tus.check_content_type(request.headers)
    upload = await run_in_threadpool(
        _create, services, filename=filename, bytes=size, metadata=upload_metadata or ""
    )
    received = 0
    if has_body:
        try:
            received = await _append(services, upload, checksum, request)
        except BaseException:
            # The client has not heard of it, so it cannot go on.
            await run_in_threadpool(_forget, services, upload.id)
            raise
    location = f"/uploads/{upload.id}"
    headers = tus.headers_of(upload, received) | {"Location": location}
    return Response(status_code=201, headers=headers)


@router.post(
    "/uploads/direct",
    status_code=201,
    summary="Begin an upload straight into the object store",
    response_model=DirectUpload,
    openapi_extra=json_body(NewDirectUpload),
    responses={
        201: LOCATION,
        **documented(
            "malformed_json",
            "missing_field",
            "unknown_field",
            "invalid_value",
            "file_too_large",
            "no_direct_uploads",
        ),
    },
)
async def create_direct(request: Request, services: ServicesDep) -> JSONResponse:
    """Return a URL for one PUT of the file, where the store has such URLs (S3).

    What lies there is read through, and held against size and digest, when it is used as
    `upload_id` of `POST /models` or `POST /datasets`.
    """
    new = await read_body(request, NewDirectUpload)
    _check_size(new.bytes, services.settings)
    view = await run_in_threadpool(_create_direct, services, new)
    headers = {"Location": view.links["self"]}
    return JSONResponse(view.model_dump(mode="json"), status_code=201, headers=headers)


def _create_direct(services: Services, new: NewDirectUpload) -> DirectUpload:
    upload = _create(services, filename=new.filename, bytes=new.bytes, sha256=new.sha256)
    assert upload.direct_key is not None  # it has a digest
    url = services.store.presign(upload.direct_key, expires_s=URL_LIFETIME_S, method="PUT")
    if url is None:
        _forget(services, upload.id)
        detail = "This service's store has no URLs of its own: use POST /uploads."
        raise Problem("no_direct_uploads", detail)
    return DirectUpload(**UploadView.of(upload).model_dump(), url=url)


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
    return UploadView.of(_get(services, upload_id))


_PIECE_RESPONSES: dict[int | str, dict[str, Any]] = {
    204: {"description": "It is kept.", "headers": _STATE},
    **documented(
        "not_found",
        "missing_field",
        "invalid_value",
        "file_too_large",
        "unknown_tus_version",
        "unsupported_media_type",
        "unknown_checksum",
        "checksum_mismatch",
        "offset_conflict",
    ),
}


@router.patch(
    "/uploads/{upload_id}",
    status_code=204,
    response_class=Response,
    summary="Send a piece of an upload",
    openapi_extra=_BODY,
    responses=_PIECE_RESPONSES,
)
async def patch(
    upload_id: PathText,
    request: Request,
    services: ServicesDep,
    tus_resumable: _Tus = None,
    upload_offset: _Offset = None,
    upload_checksum: _Checksum = None,
) -> Response:
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
    status_code=204,
    response_class=Response,
    summary="Send a piece, or give an upload up, where no such method comes through",
    openapi_extra=_BODY,
    responses=_PIECE_RESPONSES,
)
async def post_instead(
    upload_id: PathText,
    request: Request,
    services: ServicesDep,
    method: _Method,
    tus_resumable: _Tus = None,
    upload_offset: _Offset = None,
    upload_checksum: _Checksum = None,
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
    _forget(services, upload_id)
    return Response(status_code=204, headers={"Tus-Resumable": tus.VERSION})


async def _append(
    services: Services, upload: IncomingUpload, checksum: tus.Checksum | None, request: Request
) -> int:
    """Return the offset after the request's body."""
    body = request.stream()
    appending = Appending(services.database, services.store, upload, checksum)
    try:
        return await appending.take(body)
    except ClientDisconnect:
        return appending.received  # Nobody hears it: the client asks by HEAD.
    except Problem as problem:
        await read_out(body, problem)
        raise


def _create(services: Services, **fields: Any) -> IncomingUpload:
    with services.database.write() as session:
        check_incoming(session, services.terms.max_stored_bytes, fields["bytes"])
        lifetime_s = services.settings.upload_lifetime_s
        return incoming.create_upload(session, lifetime_s=lifetime_s, **fields)


def _get(services: Services, upload_id: str) -> IncomingUpload:
    with services.database.read() as session:
        return incoming.get_upload(session, upload_id)


def _forget(services: Services, upload_id: str) -> None:
    with services.database.write() as session:
        keys = incoming.forget(session, incoming.get_upload(session, upload_id, lock=True))
    for key in keys:
        services.store.delete(key)


def _max_bytes(settings: Settings) -> int:
    return max(settings.max_model_bytes, settings.max_dataset_bytes)


def _check_size(size: int, settings: Settings) -> None:
    if size > _max_bytes(settings):
        raise too_large(f"The file has {size} bytes", _max_bytes(settings))


def _check_declared(request: Request, upload: IncomingUpload) -> None:
    declared = request.headers.get("Content-Length", "0")
    if declared.isdecimal() and upload.received + int(declared) > upload.bytes:
        raise too_large("The upload goes on past its length", upload.bytes)


def _has_body(request: Request) -> bool:
    return (
        request.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in request.headers
    )
