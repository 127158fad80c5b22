"""Every number and every moment of every call, at the ends of what it may be and past them."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tests.api import files
from tests.api.conftest import ADMIN_KEY, Service, assert_problem, running, settings_in

NUMBERS: list[Any] = [
    *(-1, 0, 1, 2, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 10**308),
    *(5e-324, 1e-9, 0.5, 1.7976931348623157e308),
]
NO_NUMBERS: list[Any] = [True, "1", [], {}]
MOMENTS = [
    *("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00+23:59"),
    *("0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "2030-02-30T00:00:00Z", "10000-01-01"),
    *("2030-01-01T00:00:00", "2030-01-01", "253402300800", "-1"),
]
# What else a call needs to be answered well.
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/keys"): {"scopes": ["jobs:read"]},
    ("patch", "/tenants/{name}"): {},
    ("post", "/uploads/direct"): {"bytes": 1, "sha256": "a" * 64},
    ("post", "/models"): {"upload_id": "upl_0", "architecture": "lenet"},
}


@pytest.fixture(scope="module")
def strict(
    tmp_path_factory: pytest.TempPathFactory, template: Any, broker: str
) -> Iterator[Service]:
    settings = settings_in(tmp_path_factory.mktemp("edges") / "data", template, broker)
    settings.admin_key = SecretStr(ADMIN_KEY)
    for service in running(settings):
        yield service.keyed(ADMIN_KEY)


@pytest.fixture(scope="module")
def document(strict: Service) -> dict[str, Any]:
    found: dict[str, Any] = strict.http.get("/openapi.json").json()
    return found


def leaves(
    document: dict[str, Any], schema: dict[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every number and every moment below a schema, with its path; `[]` are a list's items."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for kind in ("anyOf", "oneOf", "allOf"):
        for each in schema.get(kind, []):
            yield from leaves(document, each, path)
    if schema.get("type") in ("integer", "number") or schema.get("format") == "date-time":
        yield path, schema
    for name, each in schema.get("properties", {}).items():
        yield from leaves(document, each, (*path, name))
    if isinstance(schema.get("items"), dict):
        yield from leaves(document, schema["items"], (*path, "[]"))


def put(body: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The body with the value at the path."""
    body = json.loads(json.dumps(body))
    place: Any = body
    names = [name for name in path if name != "[]"]
    for name in names[:-1]:
        place = place.setdefault(name, {})
    place[names[-1]] = [value] if path[-1] == "[]" else value
    return body


def test_a_number_in_a_body_is_taken_or_refused_and_nothing_else(
    strict: Service, document: dict[str, Any]
) -> None:
    ids = {
        "model_id": strict.send_model().json()["id"],
        "dataset_id": strict.send_dataset().json()["id"],
    }
    sweep = ids | {"spec": files.SPEC, "grid": {"seeds": [0, 1]}}
    known = BODIES | {("post", "/jobs"): ids | files.SPEC, ("post", "/sweeps"): sweep}
    strict.new_tenant("red")
    walked = set()
    for place, operations in document["paths"].items():
        for method, operation in operations.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            for path, schema in leaves(document, body["schema"]) if body else ():
                walked.add(path)
                moments = schema["type"] == "string"
                for value in [*(MOMENTS if moments else NUMBERS), *NO_NUMBERS]:
                    sent = put(known[method, place], path, value)
                    url = place.format(name="red")
                    response = strict.http.request(method, url, json=sent)
                    assert response.status_code < 500, (url, path, value, response.text)
                    # By its JSON type: `true` is one to Python.
                    if any(value is each for each in NO_NUMBERS) and not moments:
                        assert response.status_code == 422, (url, path, value)
    assert walked >= {("expires_at",), ("max_stored_bytes",), ("bytes",), ("priority",)}
    assert walked >= {("normalization", "std", "[]"), ("resources", "gpus"), ("time_limit_s",)}


def test_a_number_in_a_query_or_a_header_is_taken_or_refused_and_nothing_else(
    strict: Service, document: dict[str, Any]
) -> None:
    job = strict.send_job().json()["id"]
    strict.http.post(f"/jobs/{job}/cancel")
    walked = set()
    for place, operations in document["paths"].items():
        if (operation := operations.get("get")) is None:
            continue
        for parameter in operation.get("parameters", []):
            if not any(leaves(document, parameter["schema"])):
                continue
            walked.add(parameter["name"])
            for value in map(str, [*NUMBERS, "", "true", "9" * 5000, "0x1", "1_0", "١"]):
                of_path = {"webhook_id": "whk_0", "delivery_id": "msg_0", "sweep_id": "sweep_0"}
                url = place.format(job_id=job, name="x", **of_path)
                of = {parameter["name"]: value.encode()}
                query = parameter["in"] == "query"
                # A wait is no longer than it is.
                if parameter["name"] == "wait" and value in ("1", "2"):
                    continue
                sent = {"params": {parameter["name"]: value}} if query else {"headers": of}
                response = strict.http.get(url, **sent)
                assert response.status_code < 500, (url, value, response.text)
    assert walked >= {"limit", "after", "wait", "Last-Event-ID"}


def test_a_moment_beyond_the_calendar_is_refused(strict: Service) -> None:
    for moment in ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"):
        body = {"scopes": ["jobs:read"], "expires_at": moment}
        response = strict.http.post("/keys", json=body)
        assert_problem(response, 422, "invalid_value", "expires_at")
    last = {"scopes": ["jobs:read"], "expires_at": "9999-12-31T23:59:59Z"}
    assert strict.http.post("/keys", json=last).status_code == 201


@pytest.mark.parametrize("path", ["/jobs", "/keys", "/webhooks"])
@pytest.mark.parametrize(
    "content",
    [
        b'{"method": "atmc", "method": "al0"}',
        b'{"threat": {"norm": "linf", "norm": "linf"}}',
        *('{"method": "atmc"}'.encode(name) for name in ("utf-16", "utf-16-be", "utf-32-le")),
    ],
)
def test_json_that_readers_differ_on_is_refused(strict: Service, path: str, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = strict.http.post(path, content=content, headers=headers)
    assert_problem(response, 422, "invalid_value")


def test_a_length_beyond_all_numbers_is_refused(strict: Service) -> None:
    for length in ("9" * 30, "9" * 5000, "-1", "1e3"):
        headers = {"Content-Type": "application/json", "Content-Length": length}
        request = strict.http.build_request("POST", "/jobs", headers=headers)
        try:
            assert strict.http.send(request).status_code in range(400, 500)
        except httpx.HTTPError:
            continue  # The connection was closed on it.
