"""`GET /.well-known/security.txt` (RFC 9116)."""

from datetime import UTC, datetime, timedelta

from fastapi import Response
from fastapi.responses import PlainTextResponse

from api.problems import Problem, documented
from api.router import Router
from api.services import ProcessDep

# The standard asks for less than a year; whoever asks again gets a later date.
_HOLDS = timedelta(days=90)

router = Router(tags=["disclosure"])


@router.get(
    "/.well-known/security.txt",
    summary="Tell whom to tell of a weakness",
    response_class=Response,
    responses={
        200: {
            "description": "The fields of RFC 9116.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **documented("not_found"),
    },
)
async def security_txt(services: ProcessDep) -> PlainTextResponse:
    """Return the operator's contact, where `ATMC_SECURITY_CONTACT` names one."""
    contact = services.settings.security_contact
    if contact is None:
        detail = "The operator has named no contact (ATMC_SECURITY_CONTACT); see SECURITY.md."
        raise Problem("not_found", detail)
    expires = datetime.now(UTC) + _HOLDS
    lines = [f"Contact: {contact}", f"Expires: {expires:%Y-%m-%dT%H:%M:%SZ}"]
    return PlainTextResponse("".join(f"{line}\n" for line in [*lines, "Preferred-Languages: en"]))
