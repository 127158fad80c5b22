"""`GET /tenants`, `PATCH /tenants/{name}`: calls of an admin, the first of a tenant's, too."""

from datetime import datetime
from typing import Annotated, Self

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from api.openapi import json_body
from api.problems import documented
from api.router import Router
from api.services import AdminDep, Services, TenantAdminDep
from api.strict_json import read_body
from api.text import PathText
from jobstore import audit
from jobstore.tables import Tenant
from jobstore.tenants import change_tenant, get_tenant, list_tenants
from jobstore.terms import Terms

router = Router(tags=["tenants"])

_Count = Annotated[int, Field(ge=0, le=2**62)]
_Seconds = Annotated[float, Field(ge=0, le=1e10)]


class TermsView(BaseModel):
    """A tenant's limits, and for how many seconds after a job's end things are kept."""

    max_stored_bytes: _Count | None
    max_queued_jobs: _Count | None
    max_running_jobs: _Count | None
    requests_per_minute: Annotated[int, Field(ge=1, le=2**31)] | None
    keep_uploads_s: _Seconds | None
    keep_checkpoints_s: _Seconds | None
    keep_artifacts_s: _Seconds | None
    keep_events_s: _Seconds | None


class NewTerms(TermsView):
    """The terms to change; null for the service's own, which its settings say."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"max_running_jobs": 2, "keep_uploads_s": 604_800}]},
    )

    max_stored_bytes: _Count | None = None
    max_queued_jobs: _Count | None = None
    max_running_jobs: _Count | None = None
    requests_per_minute: Annotated[int, Field(ge=1, le=2**31)] | None = None
    keep_uploads_s: _Seconds | None = None
    keep_checkpoints_s: _Seconds | None = None
    keep_artifacts_s: _Seconds | None = None
    keep_events_s: _Seconds | None = None


class TenantView(BaseModel):
    """A team, and the terms that hold for it."""

    name: str = Field(examples=["vision"])
    created_at: datetime
    erase_requested_at: datetime | None = Field(
        description="Since when it is being erased; null for one that stays."
    )
    terms: TermsView = Field(
        description="The tenant's own terms, else the service's; null is no limit."
    )

    @classmethod
    def of(cls, tenant: Tenant, services: Services) -> Self:
        """Show the tenant's row."""
        terms = Terms.of(services.settings, tenant)
        return cls(
            name=tenant.id,
            created_at=tenant.created_at,
            erase_requested_at=tenant.erase_requested_at,
            terms=TermsView(**vars(terms)),
        )


class TenantList(BaseModel):
    """All tenants, by name."""

    data: list[TenantView]
    has_more: bool = False
    next: None = None


@router.get("/tenants", summary="List the tenants")
def list_(services: TenantAdminDep) -> TenantList:
    """Return every tenant, or one's own; `POST /keys` with a new name makes one."""
    own = services.database.tenant
    with services.database.read() as session:
        found = list_tenants(session) if own is None else [get_tenant(session, own)]
        return TenantList(data=[TenantView.of(each, services) for each in found])


@router.patch(
    "/tenants/{name}",
    summary="Change a tenant's terms",
    openapi_extra=json_body(NewTerms),
    responses=documented(
        "malformed_json", "file_too_large", "not_found", "unknown_field", "invalid_value"
    ),
)
async def change(name: PathText, request: Request, services: AdminDep) -> TenantView:
    """Change the terms that are sent, from now on; the others stay. An operator's call."""
    new = await read_body(request, NewTerms)
    return await run_in_threadpool(_change, services, name, new)


def _change(services: Services, name: str, new: NewTerms) -> TenantView:
    with services.database.write() as session:
        terms = new.model_dump(exclude_unset=True)
        tenant = change_tenant(session, name, terms)
        audit.record(session, "tenant.change", name, tenant=name, terms=terms)
    return TenantView.of(tenant, services)
