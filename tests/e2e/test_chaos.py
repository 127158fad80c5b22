"""Every part of the production column is killed while jobs train, and nothing is lost."""

import pytest

from benchmarks import chaos


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_few_jobs_outlive_the_servers_they_need() -> None:
    figures = chaos.run(seed=1, seconds=600, batch=4, victims=("api", "broker", "postgres"))
    assert (figures["jobs"], figures["lost"], figures["wrong"]) == (4, 0, 0), figures
    assert figures["kills"] >= 2


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_a_batch_of_thirty_jobs_loses_nothing_whatever_is_killed() -> None:
    figures = chaos.run(seed=7, seconds=4800, batch=30)
    assert (figures["jobs"], figures["lost"], figures["wrong"]) == (30, 0, 0), figures
    assert figures["kills"] >= 20
    assert set(figures["victims"]) >= {"child", "worker", "api", "broker", "postgres"}
