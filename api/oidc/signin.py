"""Signing in on the page: the provider is asked there, and here its code becomes a token.

The page sends the browser to the provider and gets a code back in its own address (authorization
code flow with PKCE, RFC 7636). The code is exchanged by this process and not by the page, so the
page asks no other host, and a provider that knows this service by a secret can have one. Nothing is
kept here: the verifier stands in the tab that began.
"""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict, Field

from api.oidc.provider import Provider
from api.oidc.tokens import is_token
from api.problems import Problem
from jobstore.settings import Settings, is_secure


class Code(BaseModel):
    """What the provider sent the browser back with, and what the page kept meanwhile."""

    model_config = ConfigDict(extra="forbid")

    code: Annotated[str, Field(min_length=1, max_length=4096)]
    verifier: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.~-]{43,128}$")]
    redirect_uri: Annotated[str, Field(min_length=1, max_length=2048)]


async def where_to_sign_in(provider: Provider, settings: Settings) -> dict[str, Any]:
    """Return what the page needs to send the browser there; raises `provider_away`."""
    endpoint = _endpoint(await provider.document(), "authorization_endpoint")
    return {
        "authorization_endpoint": endpoint,
        "client_id": settings.oidc_client_id,
        "scope": settings.oidc_sign_in_scope,
    }


async def exchange(provider: Provider, settings: Settings, code: Code) -> str:
    """Return the token that the code stands for, one that this service takes.

    Raises `token_invalid`, `provider_away`, `overloaded`, and the refusals of a token.
    """
    if provider.exchanges.locked():
        detail = "Too many sign in at this moment; send this again."
        raise Problem("overloaded", detail, headers={"Retry-After": "1"})
    async with provider.exchanges:
        return await _taken(provider, await _redeem(provider, settings, code))


async def _redeem(provider: Provider, settings: Settings, code: Code) -> Any:
    document = await provider.document()
    form = {"grant_type": "authorization_code", "code": code.code}
    form |= {"redirect_uri": code.redirect_uri, "code_verifier": code.verifier}
    client = str(settings.oidc_client_id)
    auth = None
    if settings.oidc_client_secret is None:
        form["client_id"] = client
    else:
        secret = settings.oidc_client_secret.get_secret_value()
        # What a provider that says nothing takes: OpenID Connect Discovery 1.0, section 3.
        ways = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if "client_secret_basic" in ways:
            # RFC 6749, section 2.3.1: both are encoded as a form's values are.
            auth = httpx.BasicAuth(quote(client, safe=""), quote(secret, safe=""))
        else:
            form |= {"client_id": client, "client_secret": secret}
    return await provider.post(_endpoint(document, "token_endpoint"), form, auth)


async def _taken(provider: Provider, answer: Any) -> str:
    """Return the first of the answer's tokens that this service takes.

    Some providers make access tokens for an audience, others only the ID token says who it is.
    """
    refusal: Problem | None = None
    named = answer if isinstance(answer, dict) else {}
    for name in ("access_token", "id_token"):
        token = named.get(name)
        if not isinstance(token, str) or not is_token(token):
            continue
        try:
            await provider.verify(token)
        except Problem as problem:
            refusal = problem
        else:
            return token
    raise refusal or Problem(
        "token_invalid",
        "The provider gives no token for this code: it was used already, is too old, or was made "
        "for another client or address. Sign in again; if it stays so, the provider has to know "
        "this service's ATMC_OIDC_CLIENT_ID, its secret, and the page's address.",
    )


def _endpoint(document: Mapping[str, Any], name: str) -> str:
    where = document.get(name)
    if not isinstance(where, str) or not is_secure(where):
        detail = f"The provider's discovery document has no {name!r} with https."
        raise Problem("provider_away", detail)
    return where
