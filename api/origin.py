"""From where a request comes."""

import ipaddress

from starlette.requests import Request

from jobstore import logs
from jobstore.tenancy import Origin


def address_of(request: Request) -> str | None:
    """Return the sender's address, None where there is none.

    Behind a proxy that the settings trust it is the one that the proxy names: see `api.app`.
    """
    if request.client is None:
        return None
    try:
        address = ipaddress.ip_address(request.client.host.partition("%")[0])
    except ValueError:
        # What a proxy named, and is no address.
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def origin_of(request: Request, actor: str) -> Origin:
    """Return what the audit log says of who acts."""
    said = logs.bound().get("request")
    return Origin(actor, address_of(request), str(said) if said else None)
