"""A provider's public keys: found by its discovery document, kept, and fetched again in time.

They are fetched in the event loop by whoever needs them first, once for all who wait; no thread
waits, so whoever shows a key is served as ever while a provider is slow or away.
"""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import httpx

from api.oidc.keyset import KeySet
from api.oidc.tokens import Token, UnknownKey, read_token, token_invalid
from api.problems import Problem
from jobstore.logs import brief
from jobstore.settings import Settings, is_loopback, is_secure

FRESH_S = 300.0
"""After so long the keys are fetched again, while those at hand are used."""
DEADLINE_S = 5.0
"""The time limit of a fetch, the discovery document's and the keys' together."""
PAUSE_S = 5.0
"""A provider that was away is left alone for so long; tokens that need it are refused at once."""
BURST, REFILL_S = 5, 10.0
"""For keys that nobody knows it is asked this often at once, and once in `REFILL_S` after that."""
EXCHANGES = 8
"""So many codes are exchanged at once: one costs its sender nothing, but the provider a call."""
MAX_BYTES = 512 * 1024

log = logging.getLogger(__name__)


class Provider:
    """Verifies tokens by the keys of one issuer. But for `verify_known` it is the event loop's."""

    def __init__(self, settings: Settings) -> None:
        """Open nothing yet; raises nothing, also while the provider is away."""
        assert settings.oidc_issuer is not None
        self._settings = settings
        self._issuer = settings.oidc_issuer
        nearby = is_loopback(httpx.URL(self._issuer).host)
        # Made now, since reading the authorities' certificates takes long.
        self._http = httpx.AsyncClient(timeout=DEADLINE_S, trust_env=not nearby)
        self._keys: KeySet | None = None
        self._document: dict[str, Any] = {}
        self._fetched_at = self._failed_at = self._refilled_at = -float("inf")
        self._left = 0.0
        self.exchanges = asyncio.Semaphore(EXCHANGES)
        self._fetching: asyncio.Task[None] | None = None

    async def verify(self, text: str) -> Token:
        """Return what the token says; keys that are not at hand are fetched.

        Raises `token_invalid`, `token_expired`, `token_without_tenant`, and `provider_away` if it
        takes keys that cannot be fetched.
        """
        keys = self._kept()
        if keys is None:
            await self._fetch()
            keys = self._kept()
        elif time.monotonic() - self._fetched_at > FRESH_S:
            self._begin()
        if keys is None:
            raise _away()
        try:
            return read_token(text, keys, self._settings)
        except UnknownKey:
            return _read_at_last(text, await self._newer(), self._settings)

    def verify_known(self, text: str) -> Token:
        """Return what the token says by the keys at hand, for threads; raises as `verify`."""
        keys = self._kept()
        if keys is None:
            raise _away()
        return _read_at_last(text, keys, self._settings)

    async def document(self) -> Mapping[str, Any]:
        """Return the provider's discovery document; raises `provider_away`."""
        if self._kept() is None:
            await self._fetch()
            if self._kept() is None:
                raise _away()
        return self._document

    async def post(self, url: str, form: Mapping[str, str], auth: httpx.Auth | None) -> Any:
        """Send a form to one of the provider's addresses.

        Returns its document; None if it refuses. Raises `provider_away`.
        """
        try:
            async with asyncio.timeout(DEADLINE_S):
                status, document = await self._ask("POST", url, data=dict(form), auth=auth)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
            log.warning(
                "the OIDC provider cannot be asked: %s", brief(error) or type(error).__name__
            )
            raise _away() from error
        return document if status == httpx.codes.OK else None

    async def close(self) -> None:
        """Close the connections."""
        if self._fetching is not None:
            self._fetching.cancel()
        await self._http.aclose()

    def _kept(self) -> KeySet | None:
        age = time.monotonic() - self._fetched_at
        return self._keys if age <= self._settings.oidc_keep_keys_s else None

    async def _newer(self) -> KeySet:
        """Return the keys as they are now, unless too many have asked for unknown ones."""
        if self._fetching is None and not self._may_ask():
            raise token_invalid("it is signed with a key that the provider does not list")
        before = self._fetched_at
        await self._fetch()
        keys = self._kept()
        if keys is None or self._fetched_at == before:
            raise _away()
        return keys

    def _may_ask(self) -> bool:
        now = time.monotonic()
        self._left = min(float(BURST), self._left + (now - self._refilled_at) / REFILL_S)
        self._refilled_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    async def _fetch(self) -> None:
        task = self._begin()
        if task is not None:
            # Whoever goes away leaves the fetch to the others.
            await asyncio.shield(task)

    def _begin(self) -> "asyncio.Task[None] | None":
        """Begin a fetch or join the one at work; None shortly after one that has failed."""
        if self._fetching is None:
            if time.monotonic() - self._failed_at < PAUSE_S:
                return None
            self._fetching = asyncio.create_task(self._fetch_now())
        return self._fetching

    async def _fetch_now(self) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                self._document, self._keys = await self._look()
            self._fetched_at = time.monotonic()
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
            self._failed_at = time.monotonic()
            said = brief(error) or type(error).__name__
            log.warning("the keys of the OIDC provider cannot be fetched: %s", said)
        finally:
            self._fetching = None

    async def _look(self) -> tuple[dict[str, Any], KeySet]:
        base = self._issuer.rstrip("/")
        found = await self._get(f"{base}/.well-known/openid-configuration")
        if not isinstance(found, dict) or found.get("issuer") != self._issuer:
            raise ValueError(f"its discovery document is not that of {self._issuer}")
        where = found.get("jwks_uri")
        if not isinstance(where, str) or not is_secure(where):
            raise ValueError("its discovery document has no 'jwks_uri' with https")
        return found, KeySet(await self._get(where))

    async def _get(self, url: str) -> Any:
        status, document = await self._ask("GET", url)
        if status != httpx.codes.OK:
            raise ValueError(f"{url} answers {status}")
        return document

    async def _ask(self, method: str, url: str, **options: Any) -> tuple[int, Any]:
        """Return the status, and the document, which is None where the status is not 200."""
        body = bytearray()
        async with self._http.stream(method, url, **options) as response:
            if response.status_code != httpx.codes.OK:
                return response.status_code, None
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError(f"{url} answers with more than {MAX_BYTES} bytes")
        try:
            return response.status_code, json.loads(body)
        except RecursionError as error:
            raise ValueError(f"{url} answers with no JSON to be read") from error


def _read_at_last(text: str, keys: KeySet, settings: Settings) -> Token:
    """Return what the token says, and hold an unknown key to be a forged one."""
    try:
        return read_token(text, keys, settings)
    except UnknownKey as error:
        why = "it is signed with a key that the provider does not list"
        raise token_invalid(why) from error


def _away() -> Problem:
    detail = (
        "The identity provider does not answer, and the token cannot be verified without it. Send "
        "this again; keys (atmc_...) hold meanwhile."
    )
    return Problem("provider_away", detail, headers={"Retry-After": f"{PAUSE_S:.0f}"})
