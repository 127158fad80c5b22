"""A real OIDC provider, from PyPI, on a port of its own, and tokens that it signs."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import flask
import httpx
import jwt
import oidc_provider_mock
from oidc_provider_mock._storage import storage
from pydantic import SecretStr
from werkzeug.serving import make_server

from jobstore.settings import Settings
from tests.api.conftest import ADMIN_KEY, Service, settings_in

AUDIENCE = "atmc"


class Provider:
    """The provider: `login` gets a token from it as a browser would, `sign` makes odd ones."""

    def __init__(self, port: int = 0) -> None:
        self.asked: list[str] = []
        self._app = oidc_provider_mock.app()
        self._app.before_request(self._note)
        self._server = make_server("127.0.0.1", port, self._app, threaded=True)
        self.port = self._server.server_port
        self.issuer = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _note(self) -> None:
        self.asked.append(flask.request.path)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def login(self, subject: str = "alice", audience: str = AUDIENCE, **claims: Any) -> str:
        """Have the provider know somebody and let them log in; returns their ID token."""
        with httpx.Client(base_url=self.issuer, trust_env=False) as http:
            http.put(f"/users/{subject}", json=claims).raise_for_status()
            back = "http://127.0.0.1/back"
            asked = {"client_id": audience, "redirect_uri": back, "scope": "openid"}
            asked |= {"response_type": "code"}
            gone = http.post("/oauth2/authorize", params=asked, data={"sub": subject})
            code = parse_qs(urlsplit(gone.headers["location"]).query)["code"][0]
            grant = {"grant_type": "authorization_code", "code": code, "redirect_uri": back}
            grant |= {"client_id": audience, "client_secret": "any"}
            return str(http.post("/oauth2/token", data=grant).json()["id_token"])

    def key(self) -> dict[str, Any]:
        """The provider's own key pair, as a JWK."""
        with self._app.test_request_context():
            self._app.preprocess_request()
            return dict(storage.jwk.as_dict(is_private=True))

    def claims(self, **changes: Any) -> dict[str, Any]:
        """What a good token says, with changes; None leaves a claim out."""
        now = int(time.time())
        said = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "alice",
            "iat": now,
            "exp": now + 600,
            "tenant": "red",
            "scope": "openid jobs:read jobs:write",
        }
        return {name: value for name, value in (said | changes).items() if value is not None}

    def sign(self, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token by the provider's key; the provider itself would not make all of these."""
        key = self.key()
        headers = {"kid": key["kid"]} if headers is None else headers
        private = jwt.PyJWK(key, "RS256").key
        return jwt.encode(self.claims(**changes), private, algorithm="RS256", headers=headers)


@contextmanager
def providing(port: int = 0) -> Iterator[Provider]:
    """A provider that is there."""
    provider = Provider(port)
    try:
        yield provider
    finally:
        provider.close()


def settings_for(issuer: str, home: Path, template: Path, broker: str, **changes: Any) -> Settings:
    settings = settings_in(home, template, broker)
    oidc = {"oidc_issuer": issuer, "oidc_audience": AUDIENCE, "admin_key": SecretStr(ADMIN_KEY)}
    return settings.model_copy(update=oidc | changes)


def ask(service: Service, token: str, method: str = "GET", path: str = "/jobs") -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return service.http.request(method, path, headers=headers)
