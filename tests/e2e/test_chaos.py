"""Every part of the production column is killed while jobs train, and nothing is lost."""

import pytest

from benchmarks import chaos


@pytest.mark.slow
def test_a_job_outlives_the_servers_it_needs() -> None:
    victims = ("api", "broker", "postgres")
    few = {"most_kills": len(victims), "workers": 1, "with_sweep": False}
    figures = chaos.run(seed=1, seconds=200, batch=1, victims=victims, calm_s=0.2, **few)
    assert (figures["jobs"], figures["lost"], figures["wrong"]) == (1, 0, 0), figures
    assert figures["kills"] >= 2


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_a_batch_of_thirty_jobs_loses_nothing_whatever_is_killed() -> None:
    # Not without end: on a slow machine jobs would hardly go on between two kills.
    rounds = 10 * len(chaos.VICTIMS)
    figures = chaos.run(seed=7, seconds=4800, batch=30, most_kills=rounds)
    jobs = 30 + len(chaos.SEEDS)  # Those of the sweep, too.
    assert (figures["jobs"], figures["lost"], figures["wrong"]) == (jobs, 0, 0), figures
    assert figures["kills"] >= 2 * len(chaos.VICTIMS), figures
    assert set(figures["victims"]) == set(chaos.VICTIMS), figures
