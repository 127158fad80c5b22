# Written from atmc_client/aio/administration.py by `make generate`: edit that.
"""The calls on keys, tenants and the audit log, most of which take an admin's key."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from atmc_client.sync.calls import Body, Calls
from atmc_client.sync.transport import Content
from atmc_client.types.answers import Audit, Chain, CreatedKey, Key, Tenant


class Administration(Calls):
    """The calls on keys, tenants and the audit log."""

    def create_key(
        self,
        tenant: str | None,
        scopes: Sequence[str],
        *,
        expires_at: datetime | None = None,
        addresses: Sequence[str] = (),
    ) -> CreatedKey:
        """Make a key (an admin's call).

        Args:
            tenant: whose; None is the `default` tenant, or the caller's own if they are its admin.
            scopes: what it is for: `jobs:read`, `jobs:write`, `audit:read`, `tenant:admin` or
                `admin`.
            expires_at: until when it holds, with a time zone; None is for ever.
            addresses: the networks (CIDR) that it may be shown from; none is anywhere.

        Returns:
            The key; its `key` is shown in this answer only.

        Raises:
            InvalidRequest: a scope or an address is none.
            NotAuthorized: the caller is not an admin, or of another tenant.
        """
        new: Body = {"scopes": list(scopes)}
        if tenant is not None:
            new["tenant"] = tenant
        if expires_at is not None:
            new["expires_at"] = expires_at.isoformat()
        if addresses:
            new["addresses"] = list(addresses)
        key: CreatedKey = self._transport.post("/keys", lambda: {"json": new})
        return key

    def keys(self) -> list[Key]:
        """The keys of all tenants, or of one's own, but not what is shown (an admin's call)."""
        return self._all("/keys")

    def limit_key(self, key_id: str, addresses: Sequence[str]) -> Key:
        """Have the key hold at these networks only (an admin's call).

        Args:
            key_id: which.
            addresses: the networks (CIDR); none is anywhere.

        Raises:
            InvalidRequest: an address is none.
            NotFound: there is no such key.
        """
        key: Key = self._transport.patch(f"/keys/{key_id}", {"addresses": list(addresses) or None})
        return key

    def revoke_key(self, key_id: str) -> None:
        """Revoke the key (an admin's call).

        Args:
            key_id: which.

        Raises:
            NotFound: there is no such key.
        """
        self._transport.delete(f"/keys/{key_id}")

    def audit(self, *, limit: int = 100, **which: str | None) -> list[Audit]:
        """The newest records of the audit log.

        Args:
            limit: at most so many.
            which: the filters of `GET /audit`, by name.

        Raises:
            NotAuthorized: the key is not for that.
        """
        return self._list("/audit", limit, which, page=1000)

    def audit_export(self, **which: str | None) -> Iterator[str]:
        """The lines of the audit log, oldest first, as `atmc audit verify` reads them.

        Args:
            which: the filters of `GET /audit`, by name.

        Raises:
            NotAuthorized: the key is not for that.
        """
        given = {name: value for name, value in which.items() if value is not None}
        content: Content = partial(dict[str, Any], params=given | {"format": "jsonl"})
        with self._transport.exchange("GET", "/audit", content) as response:
            for line in response.iter_lines():
                yield line

    def audit_heads(self) -> list[Chain]:
        """Where the chains of the audit log stand: keep it elsewhere, and verify against it."""
        return self._all("/audit/heads")

    def tenants(self) -> list[Tenant]:
        """All tenants, also those that are being erased (an admin's call)."""
        return self._all("/tenants")

    def erase_tenant(self, name: str) -> None:
        """Have the tenant erased with all that is its own (an admin's call); it takes seconds.

        Args:
            name: which.

        Raises:
            NotFound: there is no such tenant.
        """
        self._transport.delete(f"/tenants/{name}")
