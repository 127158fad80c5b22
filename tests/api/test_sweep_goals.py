"""A sweep with a goal: a floor that a file is to hold, looked for on validation images."""

import math
from typing import Any

import pytest

from jobstore import leases
from jobstore.events import EventType, NewEvent
from jobstore.states import JobState
from tests.api.conftest import Service, assert_problem, claimed, conduct
from tests.api.test_sweep_trials import finish, shown
from tests.api.test_sweeps import BASE, begun, ids, send

GOAL: dict[str, Any] = {"robust_accuracy": 0.5, "attack": "autoattack"}


def accuracy(spec: dict[str, Any]) -> float:
    """What a network of the tests has under attack: .8 at most, half of it at a density of .01."""
    worth = spec["target"]["density"] * (1 - 2 ** -spec["target"]["bits"])
    return 0.8 / (1 + (0.01 / worth) ** 1.5)


def size(spec: dict[str, Any]) -> int:
    density, bits = spec["target"]["density"], spec["target"]["bits"]
    entropy = -density * math.log2(density) - (1 - density) * math.log2(1 - density)
    return round(1_000 + 400_000 * (density * bits + entropy) / 8)


def train(service: Service) -> dict[str, Any]:
    """Have the next job of a goal succeed with figures that its spec deserves; returns its spec."""
    attempt = claimed(service)
    spec: dict[str, Any] = service.http.get(f"/jobs/{attempt.job_id}").json()["spec"]
    right = accuracy(spec)
    share = {"accuracy": right, "low": right - 0.03, "high": right + 0.03}
    shares = {"clean": share, "robust": share, "autoattack": share}
    finish(
        service,
        attempt,
        intervals_after=shares,
        robust_accuracy_after=right,
        file_bytes=size(spec),
    )
    return spec


def advance(service: Service) -> None:
    """Plan, and then begin what was planned."""
    for _ in range(2):
        conduct(service)


def test_the_smallest_file_that_holds_is_found_and_confirmed_on_the_test_split(
    service: Service,
) -> None:
    sweep = begun(service, grid=None, goal=GOAL, trials=12)
    assert (sweep["minimise"], sweep["trial_limit"], sweep["trials"]) == ("file_bytes", 12, [])
    specs = []
    while shown(service, sweep)["state"] == "running":
        advance(service)
        if shown(service, sweep)["state"] == "running":
            specs.append(train(service))
    ended = shown(service, sweep)
    assert ended["state"] == "succeeded"
    splits = [spec["evaluation"]["split"] for spec in specs]
    assert splits == ["validation"] * (len(specs) - 1) + ["test"]
    assert len(specs) <= 12
    # Its report has to have the attack, which no level was named for.
    assert specs[0]["evaluation"]["attacks"] == ["fgsm", "pgd", "pgd_smooth", "autoattack"]
    last = ended["trials"][-1]
    answer = ended["trials"][last["confirms"]]
    assert ended["best"] == last["index"]
    assert last["point"] == answer["point"] | {"evaluation.split": "test"}
    assert last["headline"]["intervals_after"]["autoattack"]["low"] >= 0.5
    densities = [0.7 * 1.01**-step for step in range(560)]
    grid = [{"target": {"density": d, "bits": bits}} for d in densities for bits in range(2, 9)]
    smallest = min(size(spec) for spec in grid if accuracy(spec) - 0.03 >= 0.5)
    assert last["headline"]["file_bytes"] <= 1.03 * smallest
    assert all(trial["reason"] for trial in ended["trials"])
    assert "is the smallest that holds 0.5 under autoattack" in ended["message"]
    assert "the floor holds there" in ended["message"]
    # Each starts from the sparsest of those that are denser, the last as what it confirms.
    starts = {trial["index"]: trial["denser"] for trial in ended["trials"]}
    assert starts[last["index"]] == starts[last["confirms"]] is not None
    for index, denser in starts.items():
        if denser is not None:
            assert specs[denser]["target"]["density"] > specs[index]["target"]["density"]


def test_a_floor_that_cannot_be_held_has_not_failed(service: Service) -> None:
    sweep = begun(service, grid=None, goal={"robust_accuracy": 0.9}, trials=4)
    tried = 0
    while shown(service, sweep)["state"] == "running" and tried < 9:
        advance(service)
        if shown(service, sweep)["state"] == "running":
            train(service)
            tried += 1
    ended = shown(service, sweep)
    assert (ended["state"], tried) == ("succeeded", 3)
    assert ended["message"].startswith("The floor of 0.9 under worst cannot be held")
    nearest = max(ended["trials"], key=lambda trial: trial["headline"]["robust_accuracy_after"])
    assert ended["best"] == nearest["index"]
    assert {trial["confirms"] for trial in ended["trials"]} == {None}


def test_a_hopeless_trial_is_stopped_and_says_why(service: Service) -> None:
    sweep = begun(service, grid=None, goal=GOAL)
    advance(service)
    train(service)
    advance(service)
    attempt = claimed(service)
    figures = {"validation_accuracy": 0.2, "validation_images": 500, "loss": 1.0}
    progress = {"stage": "finishing", "epoch": 5, "epochs": 10, "progress": 0.9, "eta_s": 5.0}
    events = [
        NewEvent(EventType.STAGE, {"stage": "finishing", "status": "started"}),
        NewEvent(EventType.METRIC, {"stage": "finishing", "epoch": 5} | figures),
        NewEvent(EventType.PROGRESS, progress),
    ]
    with service.database.write() as session:
        leases.report(session, attempt, events)
    conduct(service)
    assert service.http.get(f"/jobs/{attempt.job_id}").json()["cancel_requested_at"] is not None
    with service.database.write() as session:
        leases.finish(session, attempt, JobState.CANCELLED)
    advance(service)
    stopped, following = shown(service, sweep)["trials"][1:]
    assert stopped["state"] == "cancelled"
    assert stopped["reason"].startswith("Hopeless: 0.200 of 500 validation images")
    assert following["state"] == "queued"
    assert following["point"]["target.density"] > stopped["point"]["target.density"]


def test_a_goal_whose_first_trial_fails_has_failed(service: Service) -> None:
    sweep = begun(service, grid=None, goal=GOAL)
    advance(service)
    with service.database.write() as session:
        error = leases.JobError("non_finite_weights", "conv1.weight has NaN", "model")
        leases.finish(session, claimed(service), JobState.FAILED, error=error)
    advance(service)
    ended = shown(service, sweep)
    assert (ended["state"], len(ended["trials"])) == ("failed", 1)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"goal": {"robust_accuracy": 1.5}}, "goal.robust_accuracy"),
        ({"goal": {"robust_accuracy": 0.5, "attack": "magic"}}, "goal.attack"),
        (
            {"goal": GOAL, "spec": BASE | {"evaluation": {"level": "quick"}}},
            "goal.attack",
        ),
        ({"goal": GOAL, "spec": BASE | {"target": {"density": 0.1, "bits": 4}}}, "spec.target"),
        (
            {"goal": GOAL, "spec": BASE | {"evaluation": {"split": "test"}}},
            "spec.evaluation.split",
        ),
        ({"goal": GOAL, "trials": 1}, "trials"),
        ({"goal": GOAL, "spec": BASE | {"seed": -1}}, "spec.seed"),
    ],
)
def test_a_goal_that_cannot_be_looked_for_is_refused(
    shared: Service, body: dict[str, Any], param: str
) -> None:
    assert_problem(send(shared, **body), 422, "invalid_value", param)


def test_what_the_spec_gives_is_not_looked_for(service: Service) -> None:
    files_of = ids(service)
    for target, point in (
        ({"bits": 6}, {"target.density": 0.04985, "target.bits": 6}),
        ({"density": 0.1}, {"target.bits": 5}),
    ):
        sweep = begun(service, grid=None, goal=GOAL, spec=BASE | {"target": target}, **files_of)
        advance(service)
        assert shown(service, sweep)["trials"][0]["point"] == point
