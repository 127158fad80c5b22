"""What a token says, once its signature, issuer, audience and times hold."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from api.oidc.keyset import ALGORITHMS, KeySet
from api.problems import Problem
from api.text import shown
from jobstore.keys import PREFIX, Scope
from jobstore.settings import Settings
from jobstore.tenants import TENANT_NAME

MAX_BYTES = 16 * 1024

_SUBJECT = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,255}")


@dataclass(frozen=True)
class Token:
    """Who a token speaks for, by the provider's name for them, and what they may do here."""

    subject: str
    tenant: str
    scopes: frozenset[Scope]


class UnknownKey(Exception):
    """None of the keys at hand has signed the token: the provider may have new ones."""


def is_token(secret: str | None) -> bool:
    """Tell whether this has a token's form; a key has another."""
    return secret is not None and secret.count(".") == 2 and not secret.startswith(PREFIX)


def read_token(text: str, keys: KeySet, settings: Settings) -> Token:
    """Return what the token says; raises `token_invalid`, `token_expired`,
    `token_without_tenant`, and `UnknownKey`.
    """
    return _as_token(_verified(text, keys, settings), settings)


def _verified(text: str, keys: KeySet, settings: Settings) -> dict[str, Any]:
    if len(text) > MAX_BYTES:
        raise token_invalid(f"it is longer than {MAX_BYTES} bytes")
    try:
        header = jwt.get_unverified_header(text)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise token_invalid("it cannot be read as a JWT") from error
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise token_invalid(f"its algorithm {shown(algorithm)} is none of a key pair's")
    tried = 0
    for key in keys.of(kid, algorithm):
        tried += 1
        try:
            return _decoded(text, key, algorithm, settings)
        except jwt.InvalidSignatureError:
            continue
    if kid is not None and tried:
        raise token_invalid("its signature does not hold")
    raise UnknownKey


def _decoded(text: str, key: jwt.PyJWK, algorithm: str, settings: Settings) -> dict[str, Any]:
    try:
        return jwt.decode(
            text,
            key,
            algorithms=[algorithm],
            audience=settings.oidc_audience,
            issuer=settings.oidc_issuer,
            leeway=settings.oidc_clock_skew_s,
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
    except jwt.InvalidSignatureError:
        raise
    except jwt.ExpiredSignatureError as error:
        detail = "The token has expired; get a new one from the provider, and send this again."
        raise Problem("token_expired", detail, headers=_challenge("it has expired")) from error
    except jwt.InvalidAudienceError as error:
        raise token_invalid(f"its 'aud' is not {settings.oidc_audience!r}") from error
    except jwt.InvalidIssuerError as error:
        raise token_invalid(f"its 'iss' is not {settings.oidc_issuer!r}") from error
    except jwt.ImmatureSignatureError as error:
        raise token_invalid("its time has not come yet ('nbf' or 'iat')") from error
    except jwt.MissingRequiredClaimError as error:
        raise token_invalid(f"it has no {error.claim!r}") from error
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise token_invalid("what it says cannot be read") from error


def _as_token(claims: Mapping[str, Any], settings: Settings) -> Token:
    subject = claims["sub"]
    if not isinstance(subject, str) or _SUBJECT.fullmatch(subject) is None:
        raise token_invalid("its 'sub' is not a text of 1 to 255 characters")
    tenant = find_claim(claims, settings.oidc_tenant_claim)
    if isinstance(tenant, list) and len(tenant) == 1:
        tenant = tenant[0]
    if not isinstance(tenant, str) or TENANT_NAME.fullmatch(tenant) is None:
        detail = (
            f"The token's claim {settings.oidc_tenant_claim!r} is to name one tenant (up to 63 of "
            f"a-z, 0-9 and -), and is {shown(tenant)}. Have the provider put it into the token."
        )
        raise Problem("token_without_tenant", detail)
    return Token(subject, tenant, _scopes(claims, settings))


def _scopes(claims: Mapping[str, Any], settings: Settings) -> frozenset[Scope]:
    """Return the scopes of ours among those of the token; it may have others for others."""
    listed = find_claim(claims, settings.oidc_scopes_claim)
    listed = listed.split() if isinstance(listed, str) else listed
    prefix = settings.oidc_scope_prefix
    known = {f"{prefix}{scope.value}": scope for scope in Scope}
    if not prefix:
        # Other applications have an `admin`, too, whom nobody meant to let in here.
        del known[Scope.ADMIN.value]
    words = [word for word in listed if isinstance(word, str)] if isinstance(listed, list) else []
    return frozenset(known[word] for word in words if word in known)


def find_claim(claims: Mapping[str, Any], path: str) -> Any:
    """Return the claim at a dotted path, None if there is none; names may have dots themselves."""
    if path in claims:
        return claims[path]
    parts = path.split(".")
    for count in range(1, len(parts)):
        inner = claims.get(".".join(parts[:count]))
        if isinstance(inner, dict):
            found = find_claim(inner, ".".join(parts[count:]))
            if found is not None:
                return found
    return None


def token_invalid(why: str) -> Problem:
    """Return the refusal of a token that does not hold."""
    detail = f"The token does not hold: {why}. Get another one from the provider."
    return Problem("token_invalid", detail, headers=_challenge(why))


def _challenge(why: str) -> dict[str, str]:
    # By RFC 6750, whose texts have neither quotes nor characters outside ASCII.
    text = "".join(c for c in why if " " <= c <= "~" and c not in '"\\')
    return {"WWW-Authenticate": f'Bearer error="invalid_token", error_description="{text}"'}
