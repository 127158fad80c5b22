"""Assembles the application: one router a noun, one document for every error."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from api import docs, handlers, openapi
from api.admission import Admission, limit_threads
from api.artifacts import routes as artifacts
from api.audit import routes as audit
from api.catalogue import routes as catalogue
from api.datasets import routes as datasets
from api.disclosure import routes as disclosure
from api.health import metrics
from api.health import routes as health
from api.jobs import events
from api.jobs import routes as jobs
from api.keys import routes as keys
from api.methods import HeadLikeGet
from api.models import routes as models
from api.page import routes as page
from api.ratelimit import RateLimitHeaders
from api.reports import routes as reports
from api.requests import RequestLog, RequestMetrics
from api.schemas import routes as schemas
from api.services import open_services
from api.signingkeys import routes as signing_keys
from api.sources import routes as connections
from api.sources.carrying import Carrier
from api.sweeps import routes as sweeps
from api.tenants import erasure
from api.tenants import routes as tenants
from api.tracing import RequestTrace
from api.uploads import direct as direct_uploads
from api.uploads import routes as uploads
from api.webhooks import routes as webhooks
from jobstore import traces
from jobstore.settings import Settings

# This is the version of the calls and their fields, not of the software behind them.
CONTRACT = "0.1"

SUMMARY = "Compress image classifiers a hundredfold without giving up adversarial robustness."
DESCRIPTION = """
Send a network and a data set to `POST /jobs` with a target (non-zeros, bits) and a threat; follow
`GET /jobs/{id}`; fetch the compressed network and its report.

Every error is a problem document (RFC 9457) with a stable `code` and, where there is one, the
offending `param`. Times are RFC 3339 in UTC. Unknown fields are refused. A `POST` with an
`Idempotency-Key` can be sent again safely.
"""


def create_app(settings: Settings) -> FastAPI:
    """Return the HTTP service on the database, store and broker that the settings choose.

    Nothing is connected to yet: the service starts without its parts, and `/readyz` names those
    that are missing.
    """
    services = open_services(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        limit_threads(settings.api_threads)
        carrier = None
        if services.connections:
            carrier = asyncio.create_task(Carrier(services).run())
        yield
        if carrier is not None:
            carrier.cancel()
            await asyncio.gather(carrier, return_exceptions=True)
        services.database.engine.dispose()
        services.rates.close()
        if services.provider is not None:
            await services.provider.close()

    app = FastAPI(
        title="ATMC",
        version=CONTRACT,
        summary=SUMMARY,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        # A redirect would lead to whatever host the request names.
        redirect_slashes=False,
        lifespan=lifespan,
        # `api.tracing` tells what may be told; the framework's own would tell queries and callers.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.services = services
    app.add_middleware(Admission)
    if traces.is_on():
        app.add_middleware(RequestTrace)
    app.add_middleware(RequestLog, metrics=RequestMetrics(services.registry))
    app.add_middleware(HeadLikeGet)
    app.add_middleware(RateLimitHeaders)
    if proxies := settings.proxies():
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=proxies)
    for noun in (
        jobs,
        events,
        sweeps,
        direct_uploads,
        uploads,
        models,
        datasets,
        connections,
        reports,
        artifacts,
        catalogue,
        schemas,
        signing_keys,
        webhooks,
        keys,
        tenants,
        audit,
        erasure,
        health,
        disclosure,
        metrics,
        page,
    ):
        app.router.routes += noun.router.routes

    handlers.install(app)
    openapi.install(app)
    docs.install(app)
    return app
