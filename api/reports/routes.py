"""`GET /jobs/{id}/report`: JSON for programs, the page that the job made for people."""

from fastapi import Request, Response

from api.accept import prefers
from api.problems import Problem, documented
from api.router import Router
from api.services import ServicesDep
from api.text import PathText
from jobstore.artifacts import list_artifacts
from jobstore.jobs import get_job
from jobstore.objects import blob_key

REPORT = "report.json"
PAGE = "report.html"

# The page brings its styles and pictures along. Whatever else stands in it, a browser neither runs
# nor loads nor sends anything.
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = Router(tags=["reports"])


@router.get(
    "/jobs/{job_id}/report",
    summary="Get the report of a finished job",
    response_class=Response,
    responses={
        200: {
            "description": "The figures, by the schema of `GET /schemas/report`; a page where "
            "`Accept` prefers HTML and the job made one.",
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
        made = {artifact.name: artifact for artifact in list_artifacts(session, job_id)}
    if REPORT not in made:
        raise Problem(
            "not_found",
            f"There is no report: the job is {job.state}, and only one that succeeded has one.",
        )
    as_page = PAGE in made and prefers(request.headers.get("Accept", "*/*"), "text/html")
    artifact = made[PAGE if as_page else REPORT]
    with services.store.open(blob_key(artifact.sha256, artifact.tenant_id)) as file:
        content = file.read()
    headers = {
        "Content-Type": artifact.media_type,
        "Content-Security-Policy": PAGE_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept",
    }
    return Response(content, headers=headers)
