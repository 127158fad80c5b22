"""Grids become specs, neighbours are found, and the front is what nothing dominates."""

from typing import Any

import pytest

from tuning.front import best, front
from tuning.goal import Goal
from tuning.grid import InvalidGrid, densers, expand, lay_over, shares

BASE: dict[str, Any] = {"method": "atmc", "target": {"bits": 4}, "threat": {"epsilon": 0.1}}


def test_every_combination_is_a_trial_and_the_base_is_left_alone() -> None:
    trials = expand(BASE, {"densities": [0.1, 0.2], "fields": {"training.rho": [1, 2]}})
    assert [trial.point for trial in trials] == [
        {"target.density": density, "training.rho": rho} for density in (0.1, 0.2) for rho in (1, 2)
    ]
    assert trials[3].spec["target"] == {"bits": 4, "density": 0.2}
    assert trials[3].place_of("training.rho") == "grid.fields.training.rho[1]"
    assert trials[3].place_of("threat.norm") == "spec.threat.norm"
    assert BASE["target"] == {"bits": 4}


def test_a_path_through_what_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidGrid, match="in spec is no object") as error:
        expand(BASE, {"fields": {"target.bits.x": [1]}})
    assert error.value.place == "grid.fields.target.bits.x"
    with pytest.raises(InvalidGrid, match="the same as one before") as error:
        lay_over(BASE, [{"seed": 1}, {"seed": 1.0}])
    assert error.value.place == "specs[1]"


def test_a_neighbour_differs_in_size_alone() -> None:
    trials = expand(BASE, {"densities": [0.1, 0.4, 0.2], "seeds": [0, 1]})
    assert densers([trial.spec for trial in trials]) == [4, 5, None, None, 2, 3]
    mixed = lay_over({}, [{"target": {"k": 5}}, {"target": {"density": 0.5}}])
    assert densers([trial.spec for trial in mixed]) == [None, None]


def test_what_is_made_before_compression_is_shared_by_what_only_compresses_otherwise() -> None:
    trained = BASE | {"training": {"rho": 1, "robust_epochs": 3}}
    assert shares(trained) == shares(trained | {"target": {"bits": 8}})
    assert shares(trained) == shares(trained | {"training": {"rho": 2, "robust_epochs": 3}})
    assert shares(trained) != shares(trained | {"training": {"robust_epochs": 4}})
    assert shares(trained) != shares(trained | {"seed": 1})


def figures(robust: float, clean: float, size: int, latency: float | None = None) -> dict[str, Any]:
    return {
        "robust_accuracy_after": robust,
        "clean_accuracy_after": clean,
        "file_bytes": size,
        "latency_c_s": latency,
    }


def test_the_front_has_what_nothing_dominates() -> None:
    found = {
        0: figures(0.8, 0.9, 400),
        1: figures(0.8, 0.9, 300),
        2: figures(0.7, 0.95, 350),
        3: figures(0.6, 0.8, 310),
        4: {"robust_accuracy_before": 0.9},
    }
    assert (front(found), best(found)) == ([1, 2], 1)
    timed = {index: found[index] | {"latency_c_s": 0.01 * (9 - index)} for index in range(4)}
    assert front(timed) == [1, 2, 3]
    # One without a time has none compared.
    assert front(timed | {0: found[0]}) == [1, 2]
    assert (front({}), best({})) == ([], None)


def test_hopeless_is_what_is_far_below_the_floor_late_in_training() -> None:
    goal = Goal(0.5, "autoattack", BASE, 8)
    assert goal.why_hopeless("compressing", 5, 10, 0.0, 500) is None
    assert goal.why_hopeless("compressing", 9, 10, 0.4, 500) is None
    said = goal.why_hopeless("finishing", 5, 10, 0.4, 500)
    assert said is not None
    assert "0.400 of 500 validation images" in said
    assert "at most 0.444" in said
    assert goal.why_hopeless("finishing", 5, 10, 0.45, 500) is None
    assert goal.why_hopeless("finishing", 5, 10, 0.4, 50) is None
    # Accuracy under PGD is no bound of that under a weaker attack, and proofs are none of it.
    assert Goal(0.5, "fgsm", BASE, 8).why_hopeless("finishing", 5, 10, 0.1, 500) is None
    proven = BASE | {"training": {"loss": "ibp"}}
    assert Goal(0.5, "worst", proven, 8).why_hopeless("finishing", 5, 10, 0.1, 500) is None
