"""`GET /jobs/{id}/report`: JSON, or a page for a browser."""

import json

from fastapi import APIRouter, Request, Response

from api.problems import Problem, documented
from api.reports.accept import prefers_html
from api.reports.page import render
from api.services import ServicesDep
from api.text import PathText
from jobstore.artifacts import get_artifact
from jobstore.errors import NotFound
from jobstore.jobs import get_job
from jobstore.objects import blob_key

REPORT = "report.json"

# The page brings its style along and needs nothing else from anywhere.
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

router = APIRouter(tags=["reports"])


@router.get(
    "/jobs/{job_id}/report",
    summary="Get the report of a finished job",
    response_class=Response,
    responses={
        200: {
            "description": "The figures before and after; a page where `Accept` prefers HTML.",
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "text/html": {"schema": {"type": "string"}},
            },
        },
        **documented("not_found", "invalid_value"),
    },
)
def get(job_id: PathText, request: Request, services: ServicesDep) -> Response:
    """Return accuracies, sizes and every layer's share, as measured on the decoded artifact."""
    with services.database.read() as session:
        job = get_job(session, job_id)
        try:
            artifact = get_artifact(session, job_id, REPORT)
        except NotFound as error:
            detail = (
                f"There is no report: the job is {job.state}, and only one that succeeded has one."
            )
            raise Problem("not_found", detail) from error
    with services.store.open(blob_key(artifact.sha256)) as file:
        document = file.read()
    if not prefers_html(request.headers.get("Accept", "*/*")):
        return Response(document, media_type="application/json", headers={"Vary": "Accept"})
    return Response(
        render(job, json.loads(document)),
        media_type="text/html",
        headers={"Vary": "Accept", "Content-Security-Policy": PAGE_POLICY},
    )
