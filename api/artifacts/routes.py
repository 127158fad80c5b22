"""`GET /jobs/{id}/artifacts`, `GET /jobs/{id}/artifacts/{name}`."""

import base64
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from fastapi import Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from api.artifacts.ranges import is_known, wanted_range
from api.problems import documented
from api.router import Router
from api.services import ServicesDep
from api.text import PathText
from api.views import LinkedView
from jobstore.artifacts import get_artifact, list_artifacts
from jobstore.jobs import get_job
from jobstore.objects import blob_key
from jobstore.tables import Artifact

# A URL holds long enough to start a download, and too short to be passed on.
URL_LIFETIME_S = 300

router = Router(tags=["artifacts"])


class ArtifactView(LinkedView):
    """A file that a job made."""

    job_id: str = Field(exclude=True)
    name: str
    media_type: str
    bytes: int
    sha256: str
    created_at: datetime

    def _path(self) -> str:
        return f"/jobs/{self.job_id}/artifacts/{quote(self.name)}"


class ArtifactList(BaseModel):
    """All files of a job; none before it has succeeded."""

    data: list[ArtifactView]
    has_more: bool = False
    next: None = None


@router.get(
    "/jobs/{job_id}/artifacts",
    summary="List the files that a job made",
    responses=documented("not_found", "invalid_value"),
)
def list_(job_id: PathText, services: ServicesDep) -> ArtifactList:
    """Return every file with its size and digest; download them by `links.self`."""
    with services.database.read() as session:
        get_job(session, job_id)
        found = list_artifacts(session, job_id)
    return ArtifactList(data=[ArtifactView.model_validate(artifact) for artifact in found])


class _Download(BaseModel):
    model_config = ConfigDict(extra="forbid")

    redirect: bool = Field(
        True,
        description="Whether a store with URLs of its own is redirected to; `false` for callers "
        "that may reach this host only, as the page at `/` may.",
    )


@router.head("/jobs/{job_id}/artifacts/{name}", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/artifacts/{name}",
    summary="Download a file that a job made",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "The file, with a strong ETag and its SHA-256 in Repr-Digest.",
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        },
        206: {"description": "The range that was asked for."},
        304: {"description": "The caller has the file already (If-None-Match)."},
        307: {"description": "The file lies in an object store, at a URL valid for minutes."},
        **documented("not_found", "unknown_field", "invalid_value", "range_not_satisfiable"),
    },
)
def download(
    job_id: PathText,
    name: PathText,
    request: Request,
    services: ServicesDep,
    query: Annotated[_Download, Query()],
) -> Response:
    """Stream the file, or a range of it; where the store has URLs of its own, redirect there."""
    with services.database.read() as session:
        get_job(session, job_id)
        artifact = get_artifact(session, job_id, name)
    key, headers = blob_key(artifact.sha256, artifact.tenant_id), _headers(artifact)
    if is_known(request.headers, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        return Response(headers=headers | {"Content-Length": str(artifact.bytes)})
    url = services.store.presign(key, expires_s=URL_LIFETIME_S) if query.redirect else None
    if url is not None:
        return RedirectResponse(url)
    wanted = wanted_range(request.headers, headers["ETag"], artifact.bytes)
    start, end = wanted or (0, artifact.bytes)
    headers["Content-Length"] = str(end - start)
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{artifact.bytes}"
    body = services.store.stream(key, start, end)
    return StreamingResponse(body, status_code=206 if wanted else 200, headers=headers)


def _headers(artifact: Artifact) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(artifact.sha256)).decode()
    return {
        "Content-Type": artifact.media_type,
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(artifact.name)}",
        "ETag": f'"{artifact.sha256}"',
        "Repr-Digest": f"sha-256=:{digest}:",
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
    }
