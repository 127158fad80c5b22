"""`GET /connections`: from where files may be fetched, and where results may be put."""

from api.router import Router
from api.services import ServicesDep
from api.sources.schemas import ConnectionList, ConnectionView

router = Router(tags=["connections"])


@router.get("/connections", summary="List where files may lie and results be put")
def list_(services: ServicesDep) -> ConnectionList:
    """Return the connections of the caller's tenant, without secrets."""
    found = services.connections.of(services.store.tenant)
    return ConnectionList(
        data=[
            ConnectionView(name=each.name, kind=each.kind, read=each.read, write=each.write)
            for each in found
        ]
    )
