"""What a job may ask for: all that the published schemas allow, and nothing else."""

import copy
import dataclasses
from typing import Any

import pytest
from sqlalchemy import text

from jobstore.catalogue import publish
from jobstore.objects import blob_key
from jobstore.tables import CatalogueRow
from tests.api import files
from tests.api.conftest import Service, assert_problem


def changed(**changes: Any) -> dict[str, Any]:
    return files.SPEC | changes


N = files.dense_weights()
FRACTIONS = ("0/1", "300/1", "8/0", "0/0", "9/8", "1" * 400 + "/1")


@pytest.mark.parametrize(
    ("changes", "code", "param", "said"),
    [
        ({"colour": "red"}, "unknown_field", "colour", "time_limit_s"),
        ({"architecture": "lenet"}, "unknown_field", "architecture", "model_id"),
        ({"target": {"k": 9, "bits": 4, "x": 1}}, "unknown_field", "target.x", "density"),
        ({"target": {"k": 9}}, "missing_field", "target.bits", "required"),
        ({"threat": None}, "invalid_value", "threat", "an object"),
        ({"method": None}, "missing_field", "method", "GET /methods"),
        ({"method": 3}, "invalid_value", "method", "GET /methods"),
        ({"method": "magic"}, "unknown_method", "method", "atmc"),
        (
            {"target": {"nominal_ratio": 1e-9, "bits": 4}},
            "k_out_of_range",
            "target.nominal_ratio",
            "leaves 0",
        ),
        ({"target": {"max_bytes": 0, "bits": 4}}, "invalid_value", "target.max_bytes", "least 1"),
        (
            {"target": {"k": 9, "bits": 4, "structure": "row"}},
            "invalid_value",
            "target.structure",
            "channel",
        ),
        ({"target": {"k": 0, "bits": 4}}, "k_out_of_range", "target.k", f"1 to {N}"),
        ({"target": {"k": -3, "bits": 4}}, "k_out_of_range", "target.k", f"1 to {N}"),
        ({"target": {"k": N + 1, "bits": 4}}, "k_out_of_range", "target.k", f"1 to {N}"),
        ({"target": {"density": 1e-9, "bits": 4}}, "k_out_of_range", "target.density", "leaves 0"),
        ({"target": {"density": 0, "bits": 4}}, "invalid_value", "target.density", "above 0"),
        ({"target": {"density": 1.1, "bits": 4}}, "invalid_value", "target.density", "most 1"),
        ({"target": {"k": 9, "density": 0.1, "bits": 4}}, "invalid_value", "target", "exactly one"),
        ({"target": {"bits": 4}}, "invalid_value", "target", "exactly one of k, density"),
        *(
            ({"target": {"k": 9, "bits": b}}, "invalid_value", "target.bits", f"{b!r}, expected")
            for b in (0, 9, 15, 17, 31, 33, -1, 4.5, "4", True)
        ),
        ({"threat": {"norm": "l7", "epsilon": 0.1}}, "invalid_value", "threat.norm", "linf"),
        *(
            ({"threat": {"norm": "linf", "epsilon": e}}, "invalid_value", "threat.epsilon", "8/255")
            for e in (0, 8, 1.5, 5e-324, 1e-7, "8", "8/255/2", "", True, *FRACTIONS)
        ),
        ({"evaluation": {"attacks": ["magic"]}}, "invalid_value", "evaluation.attacks.0", "pgd"),
        ({"evaluation": {"attacks": []}}, "invalid_value", "evaluation.attacks", ""),
        ({"evaluation": {"max_images": 0}}, "invalid_value", "evaluation.max_images", "at least 1"),
        ({"accept": {"robust_accuracy": 2}}, "invalid_value", "accept.robust_accuracy", "most 1"),
        ({"accept": {"beauty": 1}}, "unknown_field", "accept.beauty", "robust_accuracy"),
        ({"seed": -1}, "invalid_value", "seed", "at least 0"),
        ({"seed": 1.5}, "invalid_value", "seed", "an integer"),
        ({"name": ""}, "invalid_value", "name", "at least 1"),
        ({"name": "a\0b"}, "invalid_value", "name", "pattern"),
        ({"time_limit_s": 0}, "invalid_value", "time_limit_s", "greater than 0"),
        ({"time_limit_s": "1"}, "invalid_value", "time_limit_s", "valid number"),
        ({"time_limit_s": True}, "invalid_value", "time_limit_s", "valid number"),
        ({"priority": True}, "invalid_value", "priority", "valid integer"),
        ({"priority": "1"}, "invalid_value", "priority", "valid integer"),
        ({"priority": 2**70}, "invalid_value", "priority", "less than or equal to"),
        ({"training": {"learning_rate": 5e-324}}, "invalid_value", "training.learning_rate", ""),
        ({"time_limit_s": 1e300}, "invalid_value", "time_limit_s", "less than or equal to"),
        ({"model_id": "mdl_0"}, "invalid_value", "model_id", "POST /models"),
        ({"dataset_id": "dst_0"}, "invalid_value", "dataset_id", "POST /datasets"),
        ({"model_id": 7}, "invalid_value", "model_id", "string"),
    ],
)
def test_a_spec_that_cannot_be_met_is_refused_with_the_place_and_the_range(
    shared_ids: dict[str, str],
    shared: Service,
    changes: dict[str, Any],
    code: str,
    param: str,
    said: str,
) -> None:
    body = {k: v for k, v in (shared_ids | files.SPEC | changes).items() if v is not None}
    if changes.get("threat", ...) is None:
        body["threat"] = None
    detail = assert_problem(shared.http.post("/jobs", json=body), 422, code, param)
    assert said in detail
    assert shared.http.get("/jobs").json()["data"] == []


@pytest.fixture(scope="module")
def shared_ids(shared: Service) -> dict[str, str]:
    """A model and a data set that stay."""
    return {
        "model_id": shared.send_model().json()["id"],
        "dataset_id": shared.send_dataset().json()["id"],
    }


@pytest.fixture(scope="module")
def wide_method(shared: Service) -> str:
    """A method whose schema has what those of today have not."""
    text = {"type": ["number", "string"], "exclusiveMinimum": 0, "maximum": 1, "pattern": "^.+/.+$"}
    attacks = {"enum": ["fgsm", "pgd"]}
    properties = {
        "method": {"enum": ["wide"]},
        "epsilon": text | {"description": 'a number, or a fraction such as "8/255"'},
        "attacks": {"type": "array", "items": attacks, "minItems": 1, "uniqueItems": True},
        "either": {"oneOf": [{"const": 1}, {"const": 2}]},
    }
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    document = {"name": "wide", "description": "For the test.", "spec_schema": schema}
    with shared.database.write() as session:
        session.add(CatalogueRow(kind="method", name="wide", document=document))
    return "wide"


@pytest.mark.parametrize(
    ("field", "value", "param", "said"),
    [
        *(("epsilon", text, "epsilon", "a number above 0 and of at most 1") for text in FRACTIONS),
        ("epsilon", 8, "epsilon", "8, expected a number above 0 and of at most 1 or a string"),
        ("epsilon", 8, "epsilon", '(a number, or a fraction such as "8/255")'),
        ("epsilon", "eight", "epsilon", "a string that matches ^.+/.+$"),
        ("epsilon", None, "epsilon", "a number above 0"),
        ("attacks", [], "attacks", "an array with a length of at least 1"),
        ("attacks", ["pgd", "pgd"], "attacks", "none twice"),
        ("attacks", ["magic"], "attacks.0", "one of fgsm, pgd"),
        ("either", 3, "either", "oneOf"),
    ],
)
def test_whatever_a_method_s_schema_refuses_is_explained(
    shared: Service,
    shared_ids: dict[str, str],
    wide_method: str,
    field: str,
    value: Any,
    param: str,
    said: str,
) -> None:
    body = shared_ids | {"method": wide_method, field: value}
    detail = assert_problem(shared.http.post("/jobs", json=body), 422, "invalid_value", param)
    assert said in detail


@pytest.mark.parametrize("k", [1, N])
def test_both_ends_of_the_range_of_k_are_in_it(service: Service, k: int) -> None:
    assert service.send_job(target={"k": k, "bits": 8}).status_code == 202


def test_a_job_on_a_stored_model_is_checked_without_reading_its_file_again(
    service: Service,
) -> None:
    model = service.send_model().json()
    dataset = service.send_dataset().json()
    ids = {"model_id": model["id"], "dataset_id": dataset["id"]}
    service.services.store.delete(blob_key(model["sha256"]))
    for k, status in ((N, 202), (N + 1, 422)):
        body = ids | changed(target={"k": k, "bits": 4})
        assert service.http.post("/jobs", json=body).status_code == status


def test_k_is_left_to_the_job_where_the_model_s_row_is_of_an_older_version(
    service: Service,
) -> None:
    ids = {
        "model_id": service.send_model().json()["id"],
        "dataset_id": service.send_dataset().json()["id"],
    }
    with service.database.write() as session:
        session.execute(text("UPDATE models SET summary = '{}'"))
    assert service.http.get(f"/models/{ids['model_id']}").json()["dense_weights"] is None
    body = ids | changed(target={"k": N + 1, "bits": 4})
    assert service.http.post("/jobs", json=body).status_code == 202


THREAT = {"norm": "linf", "epsilon": "8/255"}


@pytest.mark.parametrize(
    "spec",
    [
        {"method": "evaluate", "threat": THREAT},
        {"method": "evaluate", "threat": THREAT, "accept": {"robust_accuracy": 0.5}},
        files.SPEC | {"threat": THREAT},
        files.SPEC | {"accept": {"clean_accuracy_drop": 0.02, "file_ratio": 0.05}},
    ],
)
def test_a_spec_that_the_published_schema_allows_is_kept_as_it_was_sent(
    service: Service, spec: dict[str, Any]
) -> None:
    assert service.send_job(spec).json()["spec"] == spec


def test_a_method_without_a_target_needs_none(service: Service) -> None:
    method = next(entry.document for entry in files.CATALOGUE if entry.kind == "method")
    schema = method["spec_schema"] | {"required": ["method"]}
    document = {"name": "look", "description": "Only looks.", "spec_schema": schema}
    schema["properties"] = schema["properties"] | {"method": {"enum": ["look"]}}
    with service.database.write() as session:
        session.add(CatalogueRow(kind="method", name="look", document=document))
    spec = {"method": "look"}
    assert service.send_job(spec).json()["spec"] == spec
    whole = {"architecture": files.ARCHITECTURE, **spec}
    assert service.send_whole_job(spec=whole).json()["spec"] == spec


def test_a_worker_of_another_version_says_what_its_methods_take(service: Service) -> None:
    (entry,) = [e for e in files.CATALOGUE if (e.kind, e.name) == ("method", "atmc")]
    document = copy.deepcopy(entry.document)
    training = document["spec_schema"]["properties"]["training"]["properties"]
    training["warmth"] = {"type": "number", "maximum": 1}
    with service.database.write() as session:
        publish(session, [dataclasses.replace(entry, document=document)])
    spec = changed(training={"warmth": 0.5})
    assert service.send_job(spec).json()["spec"] == spec
    body = changed(training={"warmth": 2})
    detail = assert_problem(service.send_job(body), 422, "invalid_value", "training.warmth")
    assert "2, expected a number of at most 1" in detail


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 16, 32])
def test_all_allowed_bits_are_allowed(
    shared_ids: dict[str, str], shared: Service, bits: int
) -> None:
    # Refused for k, so not for bits.
    body = shared_ids | changed(target={"k": 0, "bits": bits})
    assert_problem(shared.http.post("/jobs", json=body), 422, "k_out_of_range")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"seed": NaN}',
        b'{"seed": 1e999}',
        b'{"name": "\\ud800"}',
        b"\xff",
        b'{"a":' * 50_000,
        b'{"seed": ' + b"1" * 10_000 + b"}",
    ],
)
def test_a_body_that_is_not_json_is_refused(shared: Service, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = shared.http.post("/jobs", content=body, headers=headers)
    assert_problem(response, 400, "malformed_json")


def test_a_json_body_without_end_is_refused(shared: Service) -> None:
    headers = {"Content-Type": "application/json"}
    response = shared.http.post("/jobs", content=b" " * 1_000_000, headers=headers)
    assert_problem(response, 413, "file_too_large")


def test_a_spec_sent_first_is_refused_before_the_files_are_read(shared: Service) -> None:
    spec = {"architecture": files.ARCHITECTURE, **files.SPEC, "colour": "red"}
    response = shared.send_whole_job(model=b"not a model", spec=spec)
    assert_problem(response, 422, "unknown_field", "colour")


@pytest.mark.parametrize("missing", ["architecture", "method", "target"])
def test_what_is_missing_in_the_spec_part_is_named(shared: Service, missing: str) -> None:
    spec = {"architecture": files.ARCHITECTURE, **files.SPEC}
    del spec[missing]
    assert_problem(shared.send_whole_job(spec=spec), 422, "missing_field", missing)
