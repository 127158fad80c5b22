"""`DELETE /tenants/{name}`: an admin's call."""

from api.problems import Problem, documented
from api.router import Router
from api.services import AdminDep
from api.tenants.routes import TenantView
from api.text import PathText
from jobstore import audit
from jobstore.erasure import request_erasure

router = Router(tags=["tenants"])


@router.delete(
    "/tenants/{name}",
    status_code=202,
    summary="Erase a tenant",
    responses=documented("not_found", "invalid_value"),
)
def erase(name: PathText, services: AdminDep) -> TenantView:
    """Refuse the tenant's keys from now on, cancel its jobs, and erase all that is its own.

    The keeper does so within seconds once its last job has ended; then the tenant is not listed any
    more, and `GET /tenants` says so. Asking again changes nothing. This cannot be undone.
    """
    with services.database.write() as session:
        try:
            tenant = request_erasure(session, name)
            audit.record(session, "tenant.erase", name, tenant=name)
        except ValueError as error:
            raise Problem("invalid_value", f"{name!r} {error}.", "name") from error
    return TenantView.of(tenant, services)
