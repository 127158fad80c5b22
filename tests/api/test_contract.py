"""The service held to its own OpenAPI document, by requests that schemathesis makes up from it.

No answer is a 5xx; each has a status, a media type, headers and a body that the document has for
that call; none that needs a key answers without one; and each problem's code is one that is listed
there. Half of the ids are real ones, and sequences of calls follow the document's links.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as effort
from hypothesis.errors import Flaky, FlakyStrategyDefinition
from pydantic import SecretStr
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.problems import MEDIA_TYPE
from api.uploads import tus
from atmc_core.job.catalogue import CatalogueEntry
from jobstore.catalogue import publish
from tests.api import files
from tests.api.conftest import ADMIN_KEY, Service, conduct, running, settings_in


@schemathesis.serializer(tus.CONTENT_TYPE)
def _as_it_is(_: Any, value: Any) -> bytes:
    """The pieces of an upload are bytes."""
    return value if isinstance(value, bytes) else str(value).encode()


EFFORT = effort(
    max_examples=6,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def only_documented_codes(_: Any, response: Any, case: Case) -> None:
    """Each problem's code is one that the document has for the call and the status."""
    if response.headers.get("content-type", [""])[0] != MEDIA_TYPE:
        return
    document = response.json()
    responses = case.operation.definition.raw["responses"]
    described = responses.get(str(response.status_code), {"description": ""})["description"]
    if f"`{document['code']}`" not in described:
        raise AssertionError(f"{case.operation.label} does not document {document}")


# Files are not made up, and no job ends well here.
NEVER = {
    "POST /models",
    "POST /datasets",
    "POST /uploads/direct",
    "GET /jobs/{job_id}/report",
    "GET /jobs/{job_id}/artifacts/{name}",
}
# Whose terms may be changed: those of who asks would end the asking.
TENANT = "red"
# And who may be erased.
LEAVING = "leaving"
TUS = {
    "Tus-Resumable": tus.VERSION,
    "Content-Type": tus.CONTENT_TYPE,
    "Upload-Length": "5",
    "Upload-Offset": "0",
    "X-HTTP-Method-Override": "PATCH",
}
SENT: dict[str, Any] = {"timeout": 20, "headers": {"Authorization": f"Bearer {ADMIN_KEY}"}}
CHECKS = [
    not_a_server_error,
    ignored_auth,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    only_documented_codes,
]


@pytest.fixture(scope="module")
def contract(
    tmp_path_factory: pytest.TempPathFactory, template: Any, broker: str
) -> Iterator[Service]:
    """A service that asks for keys, for requests of all kinds."""
    settings = settings_in(tmp_path_factory.mktemp("contract") / "data", template, broker)
    settings.admin_key = SecretStr(ADMIN_KEY)
    settings.security_contact = "mailto:security@example.com"
    for service in running(settings):
        yield service.keyed(ADMIN_KEY)


class Real:
    """Ids of things that are there, made anew when a request may have used the old ones up."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.begin_anew()
        service.new_tenant(TENANT)
        service.new_tenant(LEAVING)

    def fill_in(self, case: Case) -> None:
        """Give every second request ids that exist."""
        self.spare(case)
        self._turns[case.operation.label] += 1
        if self._turns[case.operation.label] % 2 == 0:
            return
        names = {"name": self._name_on(case.path)} if "{name}" in case.path else {}
        if case.path == "/tenants/{name}":
            names = {"name": case.path_parameters["name"]}
        if case.method == "DELETE":
            # Those that jobs are made of cannot go.
            names |= self._unused(case.path)
        if "{delivery_id}" in case.path:
            names |= self._delivery()
        for name in case.path_parameters or {}:
            if (real := names.get(name) or self.of(name)) is not None:
                case.path_parameters[name] = real
        if case.path.startswith("/uploads") and case.path != "/uploads/direct":
            case.headers = {**(case.headers or {}), **TUS}
            case.headers.pop("Upload-Checksum", None)
            case.headers.pop("Upload-Metadata", None)
            case.body = b"x" if isinstance(case.body, bytes) else case.body
        if isinstance(case.body, dict):
            for name in case.body:
                case.body[name] = self.of(name) or case.body[name]
            if case.path == "/jobs" and case.media_type == "application/json":
                case.body = self.new_job()
            if case.path == "/sweeps":
                case.body = self.new_sweep()

    @staticmethod
    def spare(case: Case) -> None:
        """Have a long-poll answer at once, and nobody change the terms of who asks."""
        if case.path == "/tenants/{name}":
            case.path_parameters["name"] = LEAVING if case.method == "DELETE" else TENANT
        if (case.query or {}).get("wait"):
            case.query["wait"] = 0

    def begin_anew(self) -> None:
        """Forget what was there, so that the same requests have the same answers again."""
        self._turns: Counter[str] = Counter()
        self._model = self._dataset = ""

    @property
    def model(self) -> str:
        """A model; another one if a request has deleted the last."""
        if self._service.http.get(f"/models/{self._model}").status_code != 200:
            self._model = self._service.send_model().json()["id"]
        return self._model

    @property
    def dataset(self) -> str:
        """A data set, likewise."""
        if self._service.http.get(f"/datasets/{self._dataset}").status_code != 200:
            self._dataset = self._service.send_dataset().json()["id"]
        return self._dataset

    @staticmethod
    def _name_on(path: str) -> str:
        kind = path.split("/")[1]
        names = {"architectures": "lenet", "methods": "atmc", "attacks": "pgd"}
        return (names | {"tenants": TENANT}).get(kind, "report")

    def _unused(self, path: str) -> dict[str, str]:
        if path == "/models/{model_id}":
            return {"model_id": self._service.send_model().json()["id"]}
        if path == "/datasets/{dataset_id}":
            return {"dataset_id": self._service.send_dataset().json()["id"]}
        return {}

    def of(self, name: str) -> Any:
        """The id of something real by the name of the parameter that takes it."""
        match name:
            case "model_id":
                return self.model
            case "dataset_id":
                return self.dataset
            case "job_id":
                return self._job()["id"]
            case "sweep_id":
                return self._sweep()["id"]
            case "upload_id":
                headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "5"}
                location = self._service.http.post("/uploads", headers=headers).headers["Location"]
                return location.removeprefix("/uploads/")
            case "webhook_id":
                return self._webhook()["id"]
            case "key_id":
                body = {"tenant": TENANT, "scopes": ["jobs:read"]}
                return str(self._service.http.post("/keys", json=body).json()["id"])
            case "signing_key_id":
                entry = CatalogueEntry("signing_key", "a" * 64, {"public_key": "in PEM"})
                with self._service.database.write() as session:
                    publish(session, [entry])
                return entry.name
            case "addresses":
                return ["192.0.2.0/24"]
            case "url":
                return "https://hooks.example.com/atmc"
        return None

    def new_job(self) -> dict[str, Any]:
        """The body of a job that can be."""
        return {"model_id": self.model, "dataset_id": self.dataset, **files.SPEC}

    def new_sweep(self) -> dict[str, Any]:
        """The body of a sweep that can be."""
        grid = {"bits": [8, 4]}
        ids = {"model_id": self.model, "dataset_id": self.dataset}
        return {**ids, "spec": files.SPEC, "grid": grid}

    def _sweep(self) -> dict[str, Any]:
        sweep: dict[str, Any] = self._service.http.post("/sweeps", json=self.new_sweep()).json()
        self._turns["sweeps"] += 1
        if self._turns["sweeps"] % 2:
            self._service.http.post(sweep["links"]["cancel"])
            conduct(self._service)
        return sweep

    def _job(self) -> dict[str, Any]:
        job: dict[str, Any] = self._service.http.post("/jobs", json=self.new_job()).json()
        self._turns["jobs"] += 1
        if self._turns["jobs"] % 2:
            self._service.http.post(job["links"]["cancel"])
        return job

    def _delivery(self) -> dict[str, str]:
        webhook = self._webhook(events=["job.queued"])
        self._job()
        (made,) = self._service.http.get(webhook["links"]["deliveries"]).json()["data"]
        return {"webhook_id": webhook["id"], "delivery_id": made["id"]}

    def _webhook(self, **more: Any) -> dict[str, Any]:
        for old in self._service.http.get("/webhooks").json()["data"]:
            self._service.http.delete(old["links"]["self"])
        body = {"url": "https://hooks.example.com"} | more
        webhook: dict[str, Any] = self._service.http.post("/webhooks", json=body).json()
        return webhook


@pytest.fixture(scope="module")
def real(contract: Service) -> Real:
    """Things that are there."""
    return Real(contract)


@pytest.fixture(scope="module")
def schema(contract: Service) -> Any:
    """The document, as schemathesis reads it from the running service."""
    return schemathesis.openapi.from_url(f"{contract.http.base_url}/openapi.json")


def test_every_call_answers_as_the_document_says(schema: Any, real: Real) -> None:
    failed, tried, succeeded = {}, set(), set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @EFFORT
        @given(operation.as_strategy())
        def answers_as_documented(case: Case) -> None:
            real.fill_in(case)
            response = case.call_and_validate(checks=CHECKS, **SENT)
            tried.add(case.operation.label)
            if response.status_code < 300:
                succeeded.add(case.operation.label)

        try:
            answers_as_documented()
        except Exception as error:
            failed[operation.label] = str(error)
    assert not failed, "\n\n".join(f"{call}: {error}" for call, error in failed.items())
    assert len(tried) > 35
    assert tried - succeeded <= NEVER, sorted(tried - succeeded - NEVER)


def test_sequences_of_calls_answer_as_the_document_says(
    schema: Any, real: Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: Counter[str] = Counter()

    class Calls(schema.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            real.begin_anew()

        def before_call(self, case: Case) -> None:
            real.spare(case)
            if case.path == "/jobs" and case.media_type == "application/json":
                case.body = real.new_job()
            elif case.path == "/sweeps":
                case.body = real.new_sweep()
            elif case.path == "/webhooks" and isinstance(case.body, dict):
                case.body = {"url": "https://hooks.example.com"}

        def get_call_kwargs(self, case: Case) -> dict[str, Any]:
            return SENT

        def validate_response(self, response: Any, case: Case, **_: Any) -> None:
            case.validate_response(response, checks=CHECKS)
            if "{" in case.path and response.status_code < 300:
                followed[case.operation.label] += 1

    # Many short runs, the same each time: that the service has a state, which what is played again
    # finds changed, ends a run and is no fault.
    some = effort(EFFORT, derandomize=False, max_examples=3, stateful_step_count=8)
    for number in range(6):
        monkeypatch.setattr("hypothesis.core.global_force_seed", number)
        with contextlib.suppress(Flaky, FlakyStrategyDefinition):
            Calls.run(settings=some)
    # Ids that an answer gave were good in the calls that it links to.
    assert len(followed) >= 3, followed


def bodies(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The method, path and every example of a JSON body."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is None:
                continue
            named = body["schema"]
            if "$ref" in named:
                named = document["components"]["schemas"][named["$ref"].rpartition("/")[2]]
            for example in named.get("examples", [_assembled(named)]):
                yield method, path, example


def _assembled(schema: dict[str, Any]) -> dict[str, Any]:
    """An example made of those of the properties; one that is required has to have one."""
    required = schema.get("required", [])
    return {
        name: of["examples"][0]
        for name, of in schema["properties"].items()
        if "examples" in of and (name in required or "default" not in of)
    }


_IDS = ("webhook_id", "key_id", "job_id", "model_id", "dataset_id")


def test_the_examples_of_the_document_are_accepted(contract: Service, real: Real) -> None:
    document = contract.http.get("/openapi.json").json()
    accepted = set()
    for method, path, example in bodies(document):
        filled = {name: real.of(name) or value for name, value in example.items()}
        ids = {name: real.of(name) for name in _IDS if f"{{{name}}}" in path}
        url = path.format(**ids, name=TENANT)
        response = contract.http.request(method, url, json=filled)
        refused = response.json()
        # Of an upload that has not come, and of a store that takes none, the shape is right.
        known = refused.get("code") in ("upload_incomplete", "no_direct_uploads")
        assert response.is_success or known, (method, path, refused)
        accepted.add((method, path))
    assert {("post", "/jobs"), ("post", "/webhooks"), ("patch", "/tenants/{name}")} <= accepted
    assert ("patch", "/webhooks/{webhook_id}") in accepted
    assert len(accepted) >= 6
