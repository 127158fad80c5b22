"""The keys of a provider: fetched, kept while it is away, and fetched again when they change."""

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from api.oidc import provider as kept
from api.oidc.keyset import KeySet
from tests.api.conftest import ADMIN_KEY, Service, assert_problem, running
from tests.api.provider import Provider, ask, providing, settings_for
from tests.api.test_oidc import by_another_key
from tests.ports import free_ports


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with providing() as made:
        yield made


@pytest.fixture(scope="module")
def service(
    provider: Provider, tmp_path_factory: pytest.TempPathFactory, template: Path, broker: str
) -> Iterator[Service]:
    """A running API that knows the provider; tests leave nothing behind but tenants."""
    home = tmp_path_factory.mktemp("oidc") / "data"
    yield from running(settings_for(provider.issuer, home, template, broker))


def test_rotated_keys_are_fetched_and_old_ones_hold_no_more(
    tmp_path: Path, template: Path, broker: str
) -> None:
    (port,) = free_ports(1)
    with providing(port) as before:
        settings = settings_for(before.issuer, tmp_path / "data", template, broker)
        services = running(settings)
        service = next(services)
        old = before.login(tenant="red", scope="jobs:read")
        named = before.sign()
        assert ask(service, old).status_code == ask(service, named).status_code == 200
        assert before.asked.count("/jwks") == 1
    # The same provider with a new key, as after a rotation.
    with providing(port) as after:
        # Its own tokens name no key; those of most providers do.
        assert ask(service, after.login(tenant="red", scope="jobs:read")).status_code == 200
        assert ask(service, after.sign()).status_code == 200
        assert_problem(ask(service, old), 401, "token_invalid")
        assert_problem(ask(service, named), 401, "token_invalid")
    services.close()


def test_made_up_kids_do_not_make_us_ask_without_end(service: Service, provider: Provider) -> None:
    assert ask(service, provider.sign()).status_code == 200
    service.services.provider._left = kept.BURST
    asked = provider.asked.count("/jwks")
    for number in range(4 * kept.BURST):
        token = provider.sign({"kid": f"made-up-{number}"})
        assert_problem(ask(service, token), 401, "token_invalid")
    assert provider.asked.count("/jwks") - asked <= kept.BURST + 1
    assert ask(service, provider.sign()).status_code == 200


def test_while_the_provider_is_away_known_keys_serve_for_a_time(
    tmp_path: Path, template: Path, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with providing() as provider:
        settings = settings_for(provider.issuer, tmp_path / "data", template, broker)
        services = running(settings)
        service = next(services)
        admin = service.keyed(ADMIN_KEY)
        good, new = provider.sign(), by_another_key(provider, kid="new")
        assert ask(service, good).status_code == 200
    # It is away. What is fresh and what is not serves on; a key that nobody knows cannot be told.
    assert ask(service, good).status_code == 200
    monkeypatch.setattr(kept, "FRESH_S", -1.0)
    assert ask(service, good).status_code == 200
    away = ask(service, new)
    assert_problem(away, 503, "provider_away")
    assert int(away.headers["Retry-After"]) >= 1
    assert admin.http.get("/keys").status_code == 200
    # Past the time that is set they hold no more.
    service.services.provider._fetched_at -= settings.oidc_keep_keys_s
    assert_problem(ask(service, good), 503, "provider_away")
    assert admin.http.get("/keys").status_code == 200
    services.close()


class Silent:
    """A server that takes connections and says nothing, until it closes them."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        # What waits in its queue is reset with it.
        self._listener.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    made = Silent()
    yield made
    made.close()


def test_a_provider_that_says_nothing_holds_up_nobody_with_a_key(
    silent: Silent,
    provider: Provider,
    tmp_path: Path,
    template: Path,
    broker: str,
    monkeypatch: Any,
) -> None:
    """More wait for it than there are threads; keys are answered meanwhile."""
    monkeypatch.setattr(kept, "DEADLINE_S", 60.0)
    settings = settings_for(silent.url, tmp_path / "data", template, broker)
    token, statuses = provider.sign(), []
    services = running(settings)
    service = next(services)

    def wait() -> None:
        response = ask(service, token)
        statuses.append((response.status_code, response.json()["code"]))

    waiting = [threading.Thread(target=wait) for _ in range(60)]
    for thread in waiting:
        thread.start()
    # Longer than half a second, past which those who wait for their turn count as too many.
    began, answers = time.monotonic(), []
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with httpx.Client(base_url=service.http.base_url, timeout=20, headers=headers) as admin:
        while time.monotonic() - began < 1.5 or len(answers) < 3:
            answers.append(admin.get("/keys").status_code)
    assert (statuses, set(answers)) == ([], {200})
    silent.close()
    for thread in waiting:
        thread.join(20)
    assert set(statuses) == {(503, "provider_away")}
    assert len(statuses) == 60
    services.close()


def test_nobody_waits_for_a_provider_longer_than_its_deadline(
    silent: Silent,
    provider: Provider,
    tmp_path: Path,
    template: Path,
    broker: str,
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(kept, "DEADLINE_S", 0.3)
    settings = settings_for(silent.url, tmp_path / "data", template, broker)
    for service in running(settings):
        for _ in range(3):
            # The first waits; the others are told what it was told, for a while.
            assert_problem(ask(service, provider.sign()), 503, "provider_away")


NO_DISCOVERY = (
    {"issuer": "https://other.example", "jwks_uri": "{issuer}/jwks"},
    {"issuer": "{issuer}", "jwks_uri": "http://192.0.2.1/jwks"},
    {"issuer": "{issuer}"},
    [],
)


@pytest.mark.parametrize("document", NO_DISCOVERY, ids=str)
def test_a_discovery_document_that_is_not_the_issuer_s_is_not_used(
    provider: Provider, tmp_path: Path, template: Path, broker: str, document: Any
) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer = f"http://127.0.0.1:{self.server.server_address[1]}"
            body = json.dumps(document).replace("{issuer}", issuer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    issuer = f"http://127.0.0.1:{server.server_port}"
    try:
        for service in running(settings_for(issuer, tmp_path / "data", template, broker)):
            assert_problem(ask(service, provider.sign(iss=issuer)), 503, "provider_away")
    finally:
        server.shutdown()
        server.server_close()


def test_keys_of_other_uses_and_kinds_verify_nothing() -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
    weak = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(small)) | {"kid": "weak"}
    large = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    good = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(large)) | {"kid": "good"}
    good = {name: value for name, value in good.items() if name != "key_ops"}
    listed = [
        weak,
        good,
        good | {"kid": "sealing", "use": "enc"},
        good | {"kid": "pss", "alg": "PS256"},
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
        {"kty": "RSA", "kid": "broken", "n": "?", "e": "AQAB"},
        "nothing",
    ]
    keys = KeySet({"keys": listed})
    found = {kid: len(list(keys.of(kid, "RS256"))) for kid in ("weak", "good", "sealing", "pss")}
    assert found == {"weak": 0, "good": 1, "sealing": 0, "pss": 0}
    assert len(list(keys.of("pss", "PS256"))) == 1
    for kid in ("shared", "broken", "absent"):
        assert list(keys.of(kid, "RS256")) == []
    for document in (None, {}, {"keys": {}}, []):
        with pytest.raises(ValueError, match="JWKS"):
            KeySet(document)
