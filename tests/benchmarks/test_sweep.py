"""What the sweep's benchmark says of its sides."""

import pytest

from benchmarks.sweep import figures, goal_figures


def point(robust: float, bytes: int) -> dict[str, object]:
    return {"robust": robust, "low": robust - 0.03, "high": robust + 0.03, "bytes": bytes}


def test_the_front_is_held_against_jobs_from_scratch_and_a_goal_against_the_grid_about_it() -> None:
    scratch = [
        {"cpu_s": 90.0, "points": [point(0.60, 900)]},
        {"cpu_s": 110.0, "points": [point(0.50, 500)]},
    ]
    front = {"cpu_s": 250.0, "points": [point(0.58, 880), point(0.44, 480)]}
    found = figures(scratch, front)
    assert found["front_cost_ratio"] == pytest.approx(2.5)
    assert found["front_accuracy_loss"] == pytest.approx(0.04)
    assert found["front_largest_loss"] == pytest.approx(0.06)
    assert (found["front_within_interval"], found["points"]) == (1, 2)

    goal = {"cpu_s": 220.0, "best": 4, "indices": [0, 4], "message": None}
    goal["points"] = [point(0.6, 950), point(0.56, 720)]
    around = {"cpu_s": 900.0, "points": [point(0.6, 750), point(0.57, 700), point(0.59, 690)]}
    found = goal_figures(scratch, goal, around, 0.55)
    assert found["goal_cost_ratio"] == pytest.approx(2.2)
    assert found["goal_bytes_ratio"] == pytest.approx(720 / 690)
    assert goal_figures(scratch, goal, around, 0.9)["goal_bytes_ratio"] is None
