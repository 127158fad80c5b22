"""Tokens of a real provider are let in beside keys; forged, old and foreign ones are not."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from api.oidc import provider as kept
from api.oidc.tokens import find_claim
from jobstore.settings import Settings
from tests.api.conftest import ADMIN_KEY, Service, assert_problem, running
from tests.api.provider import Provider, ask, providing, settings_for


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


def test_a_token_of_a_real_provider_opens_its_tenant_s_part(
    service: Service, provider: Provider
) -> None:
    token = provider.login(tenant="red", scope="openid jobs:read jobs:write")
    red = service.keyed(token)
    assert red.http.get("/jobs").json()["data"] == []
    made = red.send_job()
    assert made.status_code == 202, made.text
    assert red.http.get(made.json()["links"]["self"]).status_code == 200
    blue = service.keyed(provider.login("bob", tenant="blue", scope=["jobs:read"]))
    assert blue.http.get("/jobs").json()["data"] == []
    assert_problem(blue.http.get(made.json()["links"]["self"]), 404, "not_found")
    assert_problem(blue.send_model(), 403, "scope_missing")
    # Keys go on beside tokens, and open the same tenant.
    key = service.keyed(ADMIN_KEY).new_tenant("red", "jobs:read")
    assert key.http.get(made.json()["links"]["self"]).status_code == 200
    assert_problem(service.http.get("/jobs"), 401, "key_required")


def test_an_event_stream_ends_with_its_token(
    service: Service, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = provider.sign()
    job = service.keyed(token).send_job().json()
    seen: list[str] = []
    with (
        service.keyed(token).http.stream(
            "GET", job["links"]["events"], headers={"Accept": "text/event-stream"}
        ) as stream,
    ):
        lines = stream.iter_lines()
        while not any("job" in line or "queued" in line for line in seen):
            seen.append(next(lines))
        # The token expires, and something happens.
        changed = service.settings.model_copy(update={"oidc_audience": "nobody"})
        monkeypatch.setattr(service.services.provider, "_settings", changed)
        admin = service.keyed(ADMIN_KEY).new_tenant("red", "jobs:write")
        assert admin.http.post(job["links"]["cancel"]).status_code == 202
        assert not [line for line in lines if "cancelled" in line]


def unsigned(provider: Provider) -> str:
    return jwt.encode(provider.claims(), None, algorithm="none")


def by_the_public_key(provider: Provider) -> str:
    """HS256 with the provider's public key, in PEM, as the secret that both know."""
    public = jwt.PyJWK(provider.key(), "RS256").key.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def part(value: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    head = {"alg": "HS256", "typ": "JWT", "kid": provider.key()["kid"]}
    signed = part(head) + b"." + part(provider.claims())
    mac = hmac.new(pem, signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


def by_another_key(provider: Provider, **header: Any) -> str:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return jwt.encode(provider.claims(), other, algorithm="RS256", headers=header)


def by_another_kind(provider: Provider) -> str:
    headers = {"kid": provider.key()["kid"]}
    other = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(provider.claims(), other, algorithm="ES256", headers=headers)


def changed_after_signing(provider: Provider) -> str:
    head, _, signature = provider.sign().split(".")
    body = json.dumps(provider.claims(tenant="blue")).encode()
    return f"{head}.{base64.urlsafe_b64encode(body).rstrip(b'=').decode()}.{signature}"


def brings_its_own_key(provider: Provider) -> str:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(other.public_key()))
    headers = {"jwk": jwk, "jku": "https://evil.example/jwks", "kid": provider.key()["kid"]}
    return jwt.encode(provider.claims(), other, algorithm="RS256", headers=headers)


FORGED = {
    "alg none": (unsigned, "algorithm 'none'"),
    "the public key as a secret": (by_the_public_key, "algorithm 'HS256'"),
    "another's key under the provider's kid": (
        lambda p: by_another_key(p, kid=p.key()["kid"]),
        "signature",
    ),
    "another's key under a kid of its own": (
        lambda p: by_another_key(p, kid="mine"),
        "does not list",
    ),
    "another's key without a kid": (by_another_key, "does not list"),
    "a key of another kind": (by_another_kind, "does not list"),
    "a key that it brings along": (brings_its_own_key, "signature"),
    "changed after signing": (changed_after_signing, "signature"),
    "a kid that is no text": (lambda p: p.sign({"kid": "../../etc/passwd"}), "does not list"),
    "for another audience": (lambda p: p.sign(aud="other"), "'aud'"),
    "for nobody": (lambda p: p.sign(aud=None), "no 'aud'"),
    "of another issuer": (lambda p: p.sign(iss="http://127.0.0.1:1"), "'iss'"),
    "of the issuer with a slash": (lambda p: p.sign(iss=p.issuer + "/"), "'iss'"),
    "without an end": (lambda p: p.sign(exp=None), "no 'exp'"),
    "without a beginning": (lambda p: p.sign(iat=None), "no 'iat'"),
    "of nobody": (lambda p: p.sign(sub=None), "no 'sub'"),
    "of somebody without a name": (lambda p: p.sign(sub=""), "'sub'"),
    "of a name with a line break": (lambda p: p.sign(sub="a\nb"), "'sub'"),
    "not yet valid": (lambda p: p.sign(nbf=int(time.time()) + 120), "not come yet"),
    "issued in the future": (lambda p: p.sign(iat=int(time.time()) + 120), "not come yet"),
    "with an end that is no number": (lambda p: p.sign(exp="soon"), "cannot be read"),
    "with an end past all numbers": (lambda p: p.sign(exp=float("inf")), "cannot be read"),
    "with an extension": (lambda p: p.sign({"crit": ["x"], "x": 1}), "as a JWT"),
    "no JSON": (lambda p: "a.b.c", "as a JWT"),
    "far too long": (lambda p: p.sign(more="x" * 20_000), "longer"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_refused(service: Service, provider: Provider, name: str) -> None:
    make, why = FORGED[name]
    # Each of them may ask the provider anew, as the first of a day might.
    service.services.provider._left = kept.BURST
    response = ask(service, make(provider))
    assert why in assert_problem(response, 401, "token_invalid", None)
    challenge = response.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer error="invalid_token", error_description="')


def test_the_clocks_may_differ_by_so_much(service: Service, provider: Provider) -> None:
    now = int(time.time())
    within = [{"exp": now - 50}, {"nbf": now + 50}, {"iat": now + 50}]
    for change in within:
        assert ask(service, provider.sign(**change)).status_code == 200, change
    assert_problem(ask(service, provider.sign(exp=now - 61)), 401, "token_expired")
    for change in ({"nbf": now + 70}, {"iat": now + 70}):
        assert_problem(ask(service, provider.sign(**change)), 401, "token_invalid")
    with pytest.raises(ValidationError, match="oidc_clock_skew_s"):
        Settings(oidc_clock_skew_s=301)


@pytest.mark.parametrize("tenant", [None, "", "Red", "../blobs", ["red", "blue"], [], 7, {"a": 1}])
def test_a_token_without_one_tenant_is_refused(
    service: Service, provider: Provider, tenant: Any
) -> None:
    assert_problem(ask(service, provider.sign(tenant=tenant)), 403, "token_without_tenant")


@pytest.mark.parametrize(
    "scope", [None, "", "openid", ["x", 7], 7, {"jobs:read": True}, "JOBS:READ"]
)
def test_a_token_without_scopes_may_do_nothing(
    service: Service, provider: Provider, scope: Any
) -> None:
    assert_problem(ask(service, provider.sign(scope=scope)), 403, "scope_missing")


def test_claims_are_found_where_the_settings_say(
    provider: Provider, tmp_path: Path, template: Path, broker: str
) -> None:
    """As Keycloak has them: roles in an object, others' among them, ours with a prefix."""
    settings = settings_for(
        provider.issuer,
        tmp_path / "data",
        template,
        broker,
        oidc_tenant_claim="organization.name",
        oidc_scopes_claim="realm_access.roles",
        oidc_scope_prefix="atmc:",
    )
    for service in running(settings):
        roles = {"roles": ["admin", "offline_access", "atmc:jobs:read"]}
        token = provider.login("carol", realm_access=roles, organization={"name": ["green"]})
        assert ask(service, token).status_code == 200
        assert_problem(service.keyed(token).send_model(), 403, "scope_missing")
        assert_problem(ask(service, token, path="/keys"), 403, "scope_missing")
        roles = {"roles": ["atmc:admin"]}
        token = provider.login("dan", realm_access=roles, organization={"name": "green"})
        assert ask(service, token, path="/keys").status_code == 200


def test_without_a_prefix_no_token_is_an_admin_s(service: Service, provider: Provider) -> None:
    token = provider.sign(scope="admin jobs:read")
    assert ask(service, token).status_code == 200
    assert_problem(ask(service, token, path="/keys"), 403, "scope_missing")


def test_a_claim_s_name_may_have_dots() -> None:
    claims = {"https://example.com/tenant": "red", "a": {"b.c": {"d": 1}}, "x": "y"}
    assert find_claim(claims, "https://example.com/tenant") == "red"
    assert find_claim(claims, "a.b.c.d") == 1
    assert find_claim(claims, "x.y") is find_claim(claims, "z") is None


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"oidc_issuer": "https://id.example.com"}, "ATMC_OIDC_AUDIENCE"),
        ({"oidc_issuer": "http://id.example.com", "oidc_audience": "x"}, "https"),
        ({"oidc_issuer": "id.example.com", "oidc_audience": "x"}, "https"),
        ({"oidc_issuer": "https://u:p@id.example.com", "oidc_audience": "x"}, "https"),
    ],
)
def test_settings_of_half_a_provider_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Settings(**settings)


def test_a_provider_alone_is_enough_to_be_asked(
    provider: Provider, tmp_path: Path, template: Path, broker: str
) -> None:
    home = tmp_path / "data"
    settings = settings_for(provider.issuer, home, template, broker, admin_key=None)
    for service in running(settings):
        assert_problem(service.http.get("/jobs"), 401, "key_required")
        assert ask(service, provider.sign()).status_code == 200
