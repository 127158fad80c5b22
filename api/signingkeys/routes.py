"""`GET /signing-keys`, and `DELETE /signing-keys/{id}`, which is an admin's call."""

from datetime import datetime

from fastapi import Response
from pydantic import BaseModel, Field

from api.problems import documented
from api.router import Router
from api.services import AdminDep, ProcessDep
from api.text import PathText
from jobstore import audit
from jobstore.catalogue import list_entries, withdraw

KIND = "signing_key"

router = Router(tags=["signing_keys"])


class SigningKeyView(BaseModel):
    """A public key of the workers'."""

    id: str = Field(description="The SHA-256 of the key as SubjectPublicKeyInfo in DER.")
    public_key: str = Field(description="The Ed25519 key in PEM.")
    published_at: datetime = Field(description="When a worker last started with it.")


class SigningKeyList(BaseModel):
    """All keys that workers sign with, or have signed with; empty if results are not signed."""

    data: list[SigningKeyView]
    has_more: bool = False
    next: None = None


@router.get("/signing-keys", summary="List the keys that results are signed with")
def list_(services: ProcessDep) -> SigningKeyList:
    """Return the public keys, to everybody.

    Whoever answers this call chooses the keys: to rely on them, get them once by another way and
    keep them (`atmc verify --key`).
    """
    with services.database.read() as session:
        rows = list_entries(session, KIND)
    return SigningKeyList(
        data=[
            SigningKeyView(
                id=row.name,
                public_key=row.document["public_key"],
                published_at=row.published_at,
            )
            for row in rows
        ]
    )


@router.delete(
    "/signing-keys/{signing_key_id}",
    status_code=204,
    response_class=Response,
    summary="Show a key no longer",
    responses=documented("not_found", "invalid_value"),
)
def delete(signing_key_id: PathText, services: AdminDep) -> None:
    """Take the key off the list, after a leak, say.

    A worker that starts with it puts it there again; what it has signed stays signed.
    """
    with services.database.write() as session:
        withdraw(session, KIND, signing_key_id)
        audit.record(session, "signing_key.delete", signing_key_id, tenant=audit.NOBODYS)
