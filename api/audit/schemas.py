"""How the API shows the audit log."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.text import Moment
from api.views import RowView
from jobstore.audit import Filter
from jobstore.tenants import TENANT_NAME

_NAME = r"^[^\x00-\x1f]{1,300}$"


class AuditQuery(BaseModel):
    """Which records are asked for, and in which form."""

    model_config = ConfigDict(extra="forbid")

    since: Moment | None = Field(None, description="From this moment on.")
    until: Moment | None = Field(None, description="Before this moment.")
    actor: str | None = Field(
        None,
        pattern=_NAME,
        description="A key's id, `oidc:` and a subject, `operator`, `keeper` or `unknown`.",
    )
    action: str | None = Field(
        None, pattern=r"^[a-z_.]{1,64}$", description="`key.create`; or `key`, for all of a key."
    )
    outcome: Literal["done", "refused"] | None = None
    tenant: str | None = Field(
        None,
        pattern=f"^({TENANT_NAME.pattern}|-)$",
        description="One tenant's, `-` for what is nobody's; only an `admin` sees several.",
    )
    format: Literal["json", "jsonl"] | None = Field(
        None, description="`jsonl` is the export: a record a line, oldest first, all of them."
    )
    limit: int = Field(100, ge=1, le=1000, description="Records a page; an export has no pages.")
    cursor: str | None = Field(None, description="The `next` of the page before.")

    def filter(self, tenant: str | None) -> Filter:
        """Return what is asked of the log, of `tenant` if the caller sees no other."""
        return Filter(
            since=self.since,
            until=self.until,
            actor=self.actor,
            action=self.action,
            outcome=self.outcome,
            tenant=tenant or self.tenant,
        )


class AuditView(BaseModel):
    """A record: who did what with which key, from where."""

    id: str = Field(examples=["aud_0197f3a2c5d87c3e9b1a4f60d2e8b7c1"])
    time: str = Field(description="RFC 3339 in UTC, in the form that the hash has it.")
    tenant: str = Field(description="Whose log it is in; `-` is nobody's.")
    actor: str = Field(examples=["key_0197f3a2c5d87c3e9b1a4f60d2e8b7c1", "oidc:alice", "operator"])
    action: str = Field(examples=["job.create", "key.revoke"])
    object: str | None = Field(description="The id or name of what it was done to.")
    address: str | None = Field(description="The sender's address.")
    request: str | None = Field(description="The answer's `X-Request-Id`.")
    outcome: str = Field(examples=["done", "refused"])
    detail: dict[str, Any] | None
    seq: int = Field(description="Its number in its tenant's chain, from 1 without gaps.")
    previous: str = Field(description="The hash of the record before it.")
    hash: str = Field(
        description="SHA-256 (hex) of the record's JSON without `hash`: names sorted, no white "
        "space, UTF-8."
    )


class AuditPageView(BaseModel):
    """Some records, newest first; `next` goes back as `cursor`."""

    data: list[AuditView]
    has_more: bool
    next: str | None


class ChainView(RowView):
    """Where a tenant's chain stands. Keep it elsewhere: a log that was cut does not lead to it."""

    tenant: str = Field(validation_alias="tenant_id")
    seq: int = Field(description="The newest record's number.")
    hash: str = Field(description="The newest record's hash.")
    sealed_at: datetime
    expired_seq: int = Field(description="The last record that has expired; 0: none has.")
    expired_hash: str


class ChainList(BaseModel):
    """Where the chains stand that the caller may see."""

    data: list[ChainView]
    has_more: bool = False
    next: None = None
