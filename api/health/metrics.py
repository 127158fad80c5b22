"""`GET /metrics`: what this process counts, and what the database tells of the whole service."""

from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.router import Router
from api.services import ProcessDep

router = Router(tags=["health"])


@router.get(
    "/metrics",
    summary="Get figures for Prometheus",
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus's text format.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
def metrics_(services: ProcessDep) -> Response:
    """Return what this process counts and what the database tells of the whole service.

    The latter is the same from every API process: take the maximum over them, not the sum.
    """
    return Response(generate_latest(services.registry), media_type=CONTENT_TYPE_LATEST)
