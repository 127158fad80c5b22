"""An attempt tells where its time went, in the trace of the request that made the job."""

import threading
from collections.abc import Callable

import pytest

from jobstore import leases, traces
from jobstore.wakeups import make_celery
from keeper.sweep import sweep_once
from tests.collector import Collector, Span, assert_tree, collector  # noqa: F401
from tests.worker.conftest import SUCCEED, Bench, running
from worker.supervisor import Supervisor

PARENT = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def add_traced_job(bench: Bench, spec: dict[str, object], **changes: object) -> str:
    """Queue a job in a request that goes on in the trace."""
    with traces.during(traces.begin("POST /jobs", parent=PARENT, kind="server")):
        return bench.add_job(spec, **changes)


def by_name(spans: list[Span]) -> dict[str, Span]:
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def test_from_the_request_to_the_last_artifact(
    bench: Bench,
    run: Callable[[], None],
    collector: Collector,  # noqa: F811
) -> None:
    job_id = add_traced_job(bench, SUCCEED | {"method": "atmc"})
    run()
    traces.shut_down()

    spans = collector.of(TRACE_ID)
    assert_tree(spans, "00f067aa0ba902b7")
    named = by_name(spans)
    below = {span.span_id: span.name for span in spans}
    assert {name: below.get(span.parent_id) for name, span in named.items()} == {
        "POST /jobs": None,
        "queued": "POST /jobs",
        "attempt": "POST /jobs",
        "claim": "attempt",
        "fetch": "attempt",
        "validating": "attempt",
        "training": "attempt",
        "publish": "attempt",
        "publish model.atmc": "publish",
        "publish report.json": "publish",
    }
    job = bench.job(job_id)
    assert job.trace_id == TRACE_ID
    assert named["queued"].began == _nanoseconds(job.queued_at)
    assert named["queued"].ended == named["attempt"].began
    assert named["attempt"].attributes == {
        "atmc.job.id": job_id,
        "atmc.job.attempt": 1,
        "atmc.job.method": "atmc",
        "atmc.job.outcome": "succeeded",
    }
    assert named["attempt"].kind == "consumer"
    begun = {e.data["stage"]: e.time for e in bench.events(job_id) if e.type == "stage"}
    for stage, at in begun.items():
        assert named[stage].began == _nanoseconds(at)
    assert named["training"].attributes["atmc.stage.epochs"] == 5
    assert named["publish model.atmc"].attributes == {
        "atmc.artifact.name": "model.atmc",
        "atmc.artifact.bytes": len("small"),
    }
    assert max(span.ended for span in spans) == named["attempt"].ended
    assert not [span for span in spans if span.failed]


def _nanoseconds(at: object) -> int:
    return round(at.timestamp() * 1e6) * 1000  # type: ignore[attr-defined]


def test_an_attempt_after_a_crash_is_linked_to_the_one_before(
    bench: Bench,
    run: Callable[[], None],
    collector: Collector,  # noqa: F811
) -> None:
    add_traced_job(bench, SUCCEED | {"crash_at": 2})
    run()
    run()
    traces.shut_down()

    spans = collector.of(TRACE_ID)
    assert_tree(spans, "00f067aa0ba902b7")
    first, second = [span for span in spans if span.name == "attempt"]
    assert (first.attributes["atmc.job.outcome"], first.links) == ("queued", [])
    assert (second.attributes["atmc.job.outcome"], second.links) == ("succeeded", [first.span_id])
    failed = {(span.name, span.attributes["error.type"]) for span in spans if span.failed}
    assert failed == {("attempt", "child_crashed"), ("training", "child_crashed")}
    (again,) = [s for s in spans if s.name == "training" and s.parent_id == second.span_id]
    assert again.began >= first.ended
    assert len([span for span in spans if span.name == "queued"]) == 2
    # What the child printed, and what the crash said, may have been its user's.
    assert "out of luck" not in str(spans)


def test_the_keeper_tells_the_attempt_of_a_worker_that_is_gone(
    bench: Bench,
    run: Callable[[], None],
    collector: Collector,  # noqa: F811
    broker: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job_id = add_traced_job(bench, SUCCEED)
    with bench.database.write() as session:
        assert leases.claim(session, "gone", lease_s=-1) is not None
    bench.settings.broker_url = broker
    sweep_once(bench.database, make_celery(bench.settings))
    (record,) = [record for record in caplog.records if record.message == "worker lost"]
    assert record.__dict__.items() >= {"job": job_id, "attempt": 1, "trace_id": TRACE_ID}.items()
    run()
    traces.shut_down()

    spans = collector.of(TRACE_ID)
    assert_tree(spans, "00f067aa0ba902b7")
    lost, second = [span for span in spans if span.name == "attempt"]
    assert lost.failed
    assert lost.attributes["error.type"] == "worker_lost"
    assert lost.attributes["atmc.job.outcome"] == "queued"
    assert second.links == [lost.span_id]


def test_an_attempt_that_is_given_back_has_not_failed(
    bench: Bench,
    supervisor: Supervisor,
    run: Callable[[], None],
    shutdown: threading.Event,
    collector: Collector,  # noqa: F811
    poll: Callable[..., object],
) -> None:
    job_id = add_traced_job(bench, {"do": "hang"})
    with running(run):
        poll(lambda: bench.job(job_id).checkpoint_key)
        shutdown.set()
    traces.shut_down()
    attempt = by_name(collector.of(TRACE_ID))["attempt"]
    assert (attempt.failed, attempt.attributes["atmc.job.outcome"]) == (False, "queued")


def test_a_refused_upload_fails_the_attempt_with_its_code(
    bench: Bench,
    run: Callable[[], None],
    collector: Collector,  # noqa: F811
) -> None:
    add_traced_job(bench, {"do": "refuse"})
    run()
    traces.shut_down()
    spans = by_name(collector.of(TRACE_ID))
    for name in ("attempt", "validating"):
        assert spans[name].failed
        assert spans[name].attributes["error.type"] == "non_finite_weights"
    assert "conv1" not in str(spans)


def test_every_line_on_an_attempt_has_the_trace_s_id(
    bench: Bench,
    run: Callable[[], None],
    collector: Collector,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    add_traced_job(bench, SUCCEED)
    run()
    lines = [r for r in caplog.records if r.name.startswith("worker")]
    assert {getattr(r, "trace_id", None) for r in lines} == {TRACE_ID}
    assert "attempt ended" in [r.message for r in lines]


def test_a_job_that_no_trace_knows_tells_nothing(
    bench: Bench,
    run: Callable[[], None],
    collector: Collector,  # noqa: F811
) -> None:
    job_id = bench.add_job(SUCCEED)
    run()
    traces.shut_down()
    assert bench.job(job_id).trace_id is None
    assert collector.spans == []
