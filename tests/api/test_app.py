"""The surface as a whole: errors, documentation, catalogue, health."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from sqlalchemy import delete

from api import problems
from api.app import create_app
from atmc_core.job.catalogue import CatalogueEntry
from jobstore.catalogue import publish
from jobstore.settings import Settings
from jobstore.tables import CatalogueRow
from tests.api import files
from tests.api.conftest import Service, assert_problem, running
from tests.conftest import EMBEDDED


def test_a_path_that_is_not_there_is_a_problem(shared: Service) -> None:
    assert "/docs" in assert_problem(shared.http.get("/nowhere"), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/jobs", "GET, HEAD, POST"),
        ("POST", "/jobs/job_0/events", "GET, HEAD"),
        ("HEAD", "/sweeps/x/cancel", "POST"),
        ("PUT", "/models", "GET, HEAD, POST"),
        ("POST", "/jobs/job_0/artifacts/a", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
def test_a_method_that_is_not_taken_is_answered_with_those_that_are(
    shared: Service, method: str, path: str, allowed: str
) -> None:
    response = shared.http.request(method, path)
    assert response.headers["Allow"] == allowed
    if method == "HEAD":
        assert (response.status_code, response.content) == (405, b"")
    else:
        assert allowed in assert_problem(response, 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/jobs", "/healthz", "/methods/atmc", "/", "/docs", "/nowhere"])
def test_a_head_request_is_answered_as_a_get_without_its_body(shared: Service, path: str) -> None:
    head, get = shared.http.head(path), shared.http.get(path)
    assert head.content == b""
    assert head.status_code == get.status_code
    for name in ("Content-Type", "Content-Length", "Location"):
        assert head.headers.get(name) == get.headers.get(name)


@pytest.mark.parametrize("column", [EMBEDDED])
def test_a_failure_of_the_service_is_a_problem_that_tells_nothing_of_its_inside(
    settings: Settings, tmp_path: Path
) -> None:
    (settings.home / "atmc.db").write_bytes(b"not a database" * 1000)
    service_of = running(settings)
    service = next(service_of)
    response = service.http.get("/jobs")
    detail = assert_problem(response, 500, "internal_error")
    assert "database" not in detail
    service_of.close()


@pytest.mark.parametrize("kind", ["architectures", "methods", "attacks"])
def test_the_catalogue_is_given_out_as_it_was_published(shared: Service, kind: str) -> None:
    published = {
        entry.name: entry.document for entry in files.CATALOGUE if f"{entry.kind}s" == kind
    }
    listed = shared.http.get(f"/{kind}").json()
    assert {entry["name"]: entry for entry in listed["data"]} == published
    assert (listed["has_more"], listed["next"]) == (False, None)
    for name, document in published.items():
        assert shared.http.get(f"/{kind}/{name}").json() == document
    detail = assert_problem(shared.http.get(f"/{kind}/magic"), 404, "not_found")
    assert f"GET /{kind}" in detail


def test_schemas_are_listed_and_given_out_as_they_were_published(service: Service) -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A test",
        "description": "Of nothing.",
        "type": "object",
    }
    with service.database.write() as session:
        publish(session, [CatalogueEntry("schema", "test", schema)])
    listed = {entry["name"]: entry for entry in service.http.get("/schemas").json()["data"]}
    assert listed["test"] == {
        "name": "test",
        "title": "A test",
        "description": "Of nothing.",
        "links": {"self": "/schemas/test"},
    }
    response = service.http.get(listed["test"]["links"]["self"])
    assert response.headers["Content-Type"] == "application/schema+json"
    assert response.json() == schema
    (report,) = [entry.document for entry in files.CATALOGUE if entry.kind == "schema"]
    assert service.http.get(listed["report"]["links"]["self"]).json() == report
    detail = assert_problem(service.http.get("/schemas/magic"), 404, "not_found")
    assert "GET /schemas" in detail


def test_whom_to_tell_of_a_weakness_is_said_where_the_standard_looks_for_it(
    service: Service,
) -> None:
    path = "/.well-known/security.txt"
    assert_problem(service.http.get(path), 404, "not_found")
    service.settings.security_contact = "mailto:security@example.com"
    told = service.http.get(path)
    assert told.headers["Content-Type"].startswith("text/plain")
    fields = dict(line.split(": ") for line in told.text.splitlines())
    assert fields["Contact"] == "mailto:security@example.com"
    left = datetime.fromisoformat(fields["Expires"]) - datetime.now(UTC)
    assert timedelta(days=30) < left < timedelta(days=365)
    for wrong in ("security@example.com", "mailto:", "https://a b", "mailto:a\nContact: b"):
        with pytest.raises(ValueError, match="security_contact"):
            Settings(security_contact=wrong)


def test_the_documentation_needs_no_other_host(shared: Service) -> None:
    page = shared.http.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "//" not in re.sub(r"<!--.*?-->", "", page.text, flags=re.DOTALL)
    assert "connect-src 'self'" in page.headers["Content-Security-Policy"]
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    types = {shared.http.get(f"/{url}").headers["Content-Type"].partition(";")[0] for url in loaded}
    assert types == {"text/javascript", "text/css", "image/png"}
    assert "url: 'openapi.json'" in page.text
    assert shared.http.get("/openapi.json").json()["openapi"].startswith("3.")
    assert_problem(shared.http.get("/docs/assets/../core.py"), 404, "not_found")
    assert_problem(shared.http.get("/docs/assets/none.js"), 404, "not_found")


@pytest.fixture(scope="module")
def document(shared: Service) -> dict[str, Any]:
    """The OpenAPI document."""
    found: dict[str, Any] = shared.http.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_every_call_is_documented_with_its_problems(document: dict[str, Any]) -> None:
    paths = {f"{method.upper()} {path}" for path, method, _ in operations(document)}
    assert paths == {
        "POST /models",
        "GET /models",
        "GET /models/{model_id}",
        "POST /datasets",
        "GET /datasets",
        "GET /connections",
        "GET /datasets/{dataset_id}",
        "POST /jobs",
        "GET /jobs",
        "GET /jobs/{job_id}",
        "POST /sweeps",
        "GET /sweeps",
        "GET /sweeps/{sweep_id}",
        "DELETE /sweeps/{sweep_id}",
        "POST /sweeps/{sweep_id}/cancel",
        "GET /sweeps/{sweep_id}/events",
        "GET /jobs/{job_id}/events",
        "POST /jobs/{job_id}/cancel",
        "POST /jobs/{job_id}/retry",
        "GET /jobs/{job_id}/report",
        "GET /jobs/{job_id}/artifacts",
        "GET /jobs/{job_id}/artifacts/{name}",
        *(f"GET /{kind}" for kind in ("architectures", "methods", "attacks")),
        *(f"GET /{kind}/{{name}}" for kind in ("architectures", "methods", "attacks")),
        "GET /schemas",
        "GET /schemas/{name}",
        "GET /.well-known/security.txt",
        "DELETE /tenants/{name}",
        "GET /signing-keys",
        "DELETE /signing-keys/{signing_key_id}",
        "DELETE /jobs/{job_id}",
        "DELETE /models/{model_id}",
        *(f"PATCH /{noun}s/{{{noun}_id}}" for noun in ("job", "model", "dataset")),
        "DELETE /datasets/{dataset_id}",
        "POST /keys",
        "GET /keys",
        "DELETE /keys/{key_id}",
        "PATCH /keys/{key_id}",
        "GET /tenants",
        "PATCH /tenants/{name}",
        "GET /audit",
        "GET /audit/heads",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /webhooks",
        "POST /webhooks",
        "GET /webhooks/{webhook_id}",
        "PATCH /webhooks/{webhook_id}",
        "DELETE /webhooks/{webhook_id}",
        "GET /webhooks/{webhook_id}/deliveries",
        "GET /webhooks/{webhook_id}/deliveries/{delivery_id}",
        "POST /webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
        "POST /webhooks/{webhook_id}/rotate-secret",
        "OPTIONS /uploads",
        "POST /uploads",
        "POST /uploads/direct",
        "GET /uploads/{upload_id}",
        "PATCH /uploads/{upload_id}",
        "POST /uploads/{upload_id}",
        "DELETE /uploads/{upload_id}",
    }
    for path, _, operation in operations(document):
        assert operation["summary"], path
        assert operation["description"], path
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == [problems.MEDIA_TYPE], (path, status)


def test_every_code_is_documented_and_every_documented_code_is_known(
    document: dict[str, Any],
) -> None:
    text = json.dumps([operation["responses"] for _, _, operation in operations(document)])
    # The framework's own refusals belong to no call.
    for code in problems.CODES.keys() - {"method_not_allowed"}:
        assert f"`{code}`" in text, code


def test_references_lead_somewhere_and_call_names_are_unique(document: dict[str, Any]) -> None:
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}

    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from ([value["$ref"]] if "$ref" in value else [])
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    assert set(references(document)) <= known
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    linked = {
        link
        for _, _, operation in operations(document)
        for response in operation["responses"].values()
        for link in response.get("links", {})
    }
    assert len(linked) > 15
    assert linked <= set(names)


def test_the_bodies_that_handlers_stream_are_documented(document: dict[str, Any]) -> None:
    said = {"name", "labels", "metadata"}
    for path, parts in {
        "/models": {"file", "architecture", "normalization", *said},
        "/datasets": {"file", *said},
        "/jobs": {"model", "dataset", "spec"},
    }.items():
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert set(content["multipart/form-data"]["schema"]["properties"]) == parts
    by_ids = document["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]
    ids = {"model_id": "mdl_0", "dataset_id": "dst_0"}
    schema = by_ids["schema"] | {"components": document["components"]}
    jsonschema.validate(ids | files.SPEC, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(files.SPEC, schema)


def test_answers_match_their_schemas(service: Service, finished: dict[str, Any]) -> None:
    document = service.http.get("/openapi.json").json()
    answers = {
        ("/jobs/{job_id}", "get", "200"): finished,
        ("/jobs", "get", "200"): service.http.get("/jobs").json(),
        ("/jobs/{job_id}/events", "get", "200"): service.http.get(
            finished["links"]["events"]
        ).json(),
        ("/jobs/{job_id}/artifacts", "get", "200"): service.http.get(
            finished["links"]["artifacts"]
        ).json(),
        ("/models/{model_id}", "get", "200"): service.http.get(finished["links"]["model"]).json(),
        ("/datasets/{dataset_id}", "get", "200"): service.http.get(
            finished["links"]["dataset"]
        ).json(),
        ("/jobs/{job_id}", "get", "404"): service.http.get("/jobs/job_0").json(),
    }
    for (path, method, status), answer in answers.items():
        content = document["paths"][path][method]["responses"][status]["content"]
        schema = next(iter(content.values()))["schema"]
        jsonschema.validate(answer, schema | {"components": document["components"]})


def test_a_service_whose_parts_are_there_is_ready(shared: Service) -> None:
    assert shared.http.get("/healthz").json() == {"status": "ok"}
    assert shared.http.get("/readyz").json() == {"status": "ready"}


def test_a_service_without_a_worker_is_not_ready(service: Service) -> None:
    with service.database.write() as session:
        session.execute(delete(CatalogueRow))
    assert "worker" in assert_problem(service.http.get("/readyz"), 503, "not_ready", "catalogue")


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("database", {"database_url": "postgresql://127.0.0.1:1/atmc"}),
        (
            "store",
            {
                "store_url": "s3://bucket",
                "store_endpoint": "http://127.0.0.1:1",
                "store_access_key_id": "id",
                "store_secret_access_key": "secret",
            },
        ),
        ("broker", {"broker_url": "redis://127.0.0.1:1/0"}),
    ],
)
def test_a_part_that_is_away_is_named_while_the_service_lives(
    settings: Settings, part: str, changes: dict[str, Any]
) -> None:
    service_of = running(Settings(**settings.model_dump() | changes))
    service = next(service_of)
    assert service.http.get("/healthz").json() == {"status": "ok"}
    detail = assert_problem(service.http.get("/readyz"), 503, "not_ready", part)
    assert f"ATMC_{part.upper()}_URL" in detail
    service_of.close()


def test_a_job_is_taken_in_while_the_broker_is_away(settings: Settings) -> None:
    service_of = running(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"}))
    service = next(service_of)
    job = service.send_job()
    assert job.status_code == 202
    assert service.http.get(job.json()["links"]["self"]).json()["state"] == "queued"
    service_of.close()


def test_the_schema_of_the_database_is_asked_for_where_it_is_missing(tmp_path: Path) -> None:
    app_settings = Settings(home=tmp_path)
    create_app(app_settings)
    service_of = running(app_settings)
    service = next(service_of)
    detail = assert_problem(service.http.get("/readyz"), 503, "not_ready", "database")
    assert "migrate" in detail
    service_of.close()
