"""Names, labels and metadata of jobs, models and data sets, and the lists that filter by them."""

import json
from typing import Any

import pytest
from sqlalchemy import func, select

from jobstore.tables import Label
from tests.api import files
from tests.api.conftest import Service, assert_problem, begun_sweep, conduct

SAID: dict[str, Any] = {
    "name": "first",
    "labels": {"project": "signs", "dépôt": "a:b c"},
    "metadata": {"run": 12, "nested": {"list": [1, None, "ü"]}},
}
FORM = {"name": SAID["name"], **{n: json.dumps(SAID[n]) for n in ("labels", "metadata")}}


def shown(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in SAID}


def ids(service: Service, path: str, **params: Any) -> list[str]:
    answer = service.http.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()["data"]]


def labels_left(service: Service) -> int:
    with service.database.read() as session:
        return session.scalars(select(func.count()).select_from(Label)).one()


def test_they_come_with_what_is_made_and_are_changed_by_patch(service: Service) -> None:
    model = service.send_model(**FORM).json()
    dataset = service.http.post("/datasets", files={"file": ("d", files.npz_file())}, data=FORM)
    job = service.send_job(**SAID).json()
    whole = {"architecture": files.ARCHITECTURE, **files.SPEC, **SAID}
    assert shown(service.send_whole_job(spec=whole).json()) == SAID
    for made in (model, dataset.json(), job):
        assert shown(made) == SAID
        link = made["links"]["self"]
        changed = service.http.patch(link, json={"labels": {"project": "mail"}, "name": None})
        assert shown(changed.json()) == SAID | {"labels": {"project": "mail"}, "name": None}
        assert service.http.get(link).json() == changed.json()
        kind = "/" + link.split("/")[1]
        assert ids(service, kind, label="project:mail") == [made["id"]]
        assert made["id"] not in ids(service, kind, label="project:signs")
    service.http.post(job["links"]["cancel"])
    before = labels_left(service)
    for made in (job, model, dataset.json()):
        link = made["links"]["self"]
        changed = service.http.patch(link, json={"metadata": {}})
        assert (changed.json()["metadata"], changed.json()["name"]) == ({}, None)
    assert service.http.delete(job["links"]["self"]).status_code == 204
    assert service.http.delete(model["links"]["self"]).status_code == 204
    assert labels_left(service) == before - 2


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"labels": {"a:b": "c"}}, "labels"),
        ({"labels": {"": "c"}}, "labels"),
        ({"labels": {"a" * 65: "c"}}, "labels"),
        ({"labels": {"a": "c" * 257}}, "labels.a"),
        ({"labels": {"a": "\x00"}}, "labels.a"),
        ({"labels": {"a": 1}}, "labels.a"),
        ({"labels": {str(n): "" for n in range(33)}}, "labels"),
        ({"labels": None}, "labels"),
        ({"metadata": {"a": "b" * 16_384}}, "metadata"),
        ({"metadata": [1]}, "metadata"),
        ({"name": ""}, "name"),
    ],
)
def test_what_is_too_long_or_strange_is_refused_and_changes_nothing(
    shared: Service, body: dict[str, Any], param: str
) -> None:
    model = shared.send_model(**FORM).json()
    refused = shared.http.patch(model["links"]["self"], json=body)
    assert assert_problem(refused, 422, "invalid_value")
    assert refused.json()["param"].startswith(param)
    assert shown(shared.http.get(model["links"]["self"]).json()) == SAID
    assert_problem(shared.send_job(**body), 422, "invalid_value")
    answer = shared.http.patch(model["links"]["self"], json={"spec": {}})
    assert_problem(answer, 422, "unknown_field", "spec")


def test_lists_filter_by_labels_and_time_and_go_on_in_their_order(service: Service) -> None:
    names = ["b", "a", None, "b", "c"]
    made = [
        service.send_job(name=name, labels={"turn": str(n % 2), "all": ""}).json()
        for n, name in enumerate(names)
    ]
    order = [job["id"] for job in made]
    by_name = [order[n] for n in (2, 1, 0, 3, 4)]
    assert ids(service, "/jobs", label="turn:0") == [order[n] for n in (4, 2, 0)]
    assert ids(service, "/jobs", label=["all:", "turn:1"]) == [order[3], order[1]]
    assert ids(service, "/jobs", label=["turn:0", "turn:1"]) == []
    times = {"created_after": made[1]["created_at"], "created_before": made[3]["created_at"]}
    assert ids(service, "/jobs", **times) == [order[2], order[1]]
    assert ids(service, "/jobs", **times, method="atmc", state="queued", label="turn:1") == [
        order[1]
    ]
    assert ids(service, "/jobs", state="failed", label="all:") == []
    wanted = {
        "created_at": order,
        "-created_at": order[::-1],
        "name": by_name,
        "-name": by_name[::-1],
    }
    for sort, expected in wanted.items():
        seen, params = [], {"sort": sort, "limit": 2, "label": "all:"}
        while True:
            page = service.http.get("/jobs", params=params).json()
            seen += [job["id"] for job in page["data"]]
            if page["next"] is None:
                break
            params["cursor"] = page["next"]
        assert seen == expected, sort
        others = {"sort": "created_at" if sort != "created_at" else "name"}
        refused = service.http.get("/jobs", params=others | {"cursor": params["cursor"]})
        assert sort in assert_problem(refused, 422, "invalid_value", "cursor")
    for wrong in ("label=project", "sort=spec", "created_after=yesterday", "cursor=W10="):
        answer = service.http.get(f"/jobs?{wrong}")
        assert_problem(answer, 422, "invalid_value")


def test_the_files_of_a_tenant_are_found_by_it_alone(admin: Service) -> None:
    red, blue = admin.new_tenant("red"), admin.new_tenant("blue")
    mine = [red.send_model(name=name, labels='{"a": "b"}').json()["id"] for name in ("z", "y")]
    blue.send_model(name="x", labels='{"a": "b"}')
    found = red.http.get("/models", params={"label": "a:b", "sort": "name", "limit": 1}).json()
    assert [row["id"] for row in found["data"]] == [mine[1]]
    params = {"label": "a:b", "sort": "name", "cursor": found["next"]}
    assert ids(red, "/models", **params) == [mine[0]]
    assert ids(red, "/models", q="Z") == [mine[0]]
    assert_problem(blue.http.patch(f"/models/{mine[0]}", json={"name": "w"}), 404, "not_found")


def test_a_sweep_s_trials_have_its_labels(service: Service) -> None:
    sweep = begun_sweep(service, labels={"night": "1"})
    assert sweep["labels"] == {"night": "1"}
    conduct(service)
    found = ids(service, "/jobs", label="night:1")
    assert found == ids(service, "/jobs", sweep_id=sweep["id"])
    assert len(found) >= 1
