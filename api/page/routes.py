"""`GET /`: the page, the files it is made of, and how somebody signs in on it."""

from typing import Any

from fastapi import Request, Response

from api.artifacts.ranges import is_known
from api.oidc.provider import Provider
from api.oidc.signin import Code, exchange, where_to_sign_in
from api.page.files import ENTRY, File, site
from api.problems import Problem
from api.router import Router
from api.services import ProcessDep, Services
from api.strict_json import read_body

# Nothing stands in the page but addresses of its own files. The report of a job is shown in a frame
# without scripts, which inherits this policy.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types report"
)
_SAFE = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "Accept-Encoding",
}
_FOR_EVER = "public, max-age=31536000, immutable"

router = Router(include_in_schema=False)


# All are `async`, because what they give lies in memory: no thread is waited for.


@router.get("/")
async def entry(request: Request) -> Response:
    """Return the page itself, which is asked for anew each time and names its files' digest."""
    return _send(request, site().files[ENTRY], "no-cache")


@router.get("/page/{digest}/{path:path}")
async def file(digest: str, path: str, request: Request) -> Response:
    """Return one of its files; those of another release are gone with it."""
    found = site().files.get(path)
    if found is None or digest != site().digest:
        raise Problem("not_found", "The page has no such file; load it anew from /.")
    return _send(request, found, _FOR_EVER)


@router.get("/page.json")
async def settings(services: ProcessDep) -> dict[str, Any]:
    """Return whether callers are asked who they are, and by whom tokens may be issued."""
    known = services.settings
    return {
        "asks_who_calls": known.asks_who_calls,
        "oidc_issuer": known.oidc_issuer,
        "signs_in_there": known.oidc_client_id is not None,
        "max_model_bytes": known.max_model_bytes,
        "max_dataset_bytes": known.max_dataset_bytes,
    }


@router.get("/page/sign-in")
async def where_to(services: ProcessDep) -> dict[str, Any]:
    """Return where the provider signs people in, and under which name it knows this service."""
    return await where_to_sign_in(_provider(services), services.settings)


@router.post("/page/sign-in")
async def sign_in(request: Request, services: ProcessDep, response: Response) -> dict[str, str]:
    """Return the token that a provider's code stands for."""
    # RFC 6749, section 5.1: no cache keeps a token.
    response.headers["Cache-Control"] = "no-store"
    provider = _provider(services)
    return {"token": await exchange(provider, services.settings, await read_body(request, Code))}


def _provider(services: Services) -> Provider:
    if services.provider is None or services.settings.oidc_client_id is None:
        detail = "Nobody signs in by a provider here: ATMC_OIDC_CLIENT_ID is not set."
        raise Problem("not_found", detail)
    return services.provider


def _send(request: Request, file: File, keep: str) -> Response:
    headers = _SAFE | {"ETag": file.tag, "Cache-Control": keep}
    if is_known(request.headers, file.tag):
        return Response(status_code=304, headers=headers)
    content = file.content
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        content, headers = file.packed, headers | {"Content-Encoding": "gzip"}
    return Response(content, headers=headers, media_type=file.media_type)
