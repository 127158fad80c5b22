"""What a job's events do to its row, and that each is there once."""

from datetime import UTC, datetime

from jobstore import events, leases
from jobstore.database import Database
from jobstore.events import EventType, NewEvent
from jobstore.states import JobState
from tests.jobstore.attempts import STAGE, claim, history, stored_job


def test_state_stage_and_progress_follow_from_the_events(database: Database, add_job) -> None:
    job = add_job()
    attempt = claim(database)
    validating = NewEvent(EventType.STAGE, {"stage": "validating", "status": "started"})
    with database.write() as session:
        leases.report(session, attempt, [validating], first=0)
    assert stored_job(database, job.id).state is JobState.VALIDATING

    figures = {"stage": "robust", "epoch": 2, "epochs": 5, "progress": 0.25, "eta_s": 60.0}
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    with database.write() as session:
        leases.report(
            session, attempt, [STAGE, NewEvent(EventType.PROGRESS, figures, time=moment)], first=1
        )
    running = stored_job(database, job.id)
    assert running.state is JobState.RUNNING
    assert {name: getattr(running, name) for name in figures} == figures
    assert history(database, job.id)[2:] == [
        ("stage", "validating"),
        ("stage", "robust"),
        ("state", "running"),
        ("progress", "robust"),
    ]
    with database.read() as session:
        last = events.list_events(session, job.id, after=5)
    assert [(event.seq, event.time, event.attempt) for event in last] == [(6, moment, 1)]


def test_a_new_stage_begins_without_the_epochs_of_the_former(database: Database, add_job) -> None:
    job = add_job()
    attempt = claim(database)
    figures = {"stage": "robust", "epoch": 5, "epochs": 5, "progress": 0.5, "eta_s": 60.0}
    finished = NewEvent(EventType.STAGE, {"stage": "robust", "status": "finished"})
    with database.write() as session:
        events_so_far = [STAGE, NewEvent(EventType.PROGRESS, figures), finished]
        leases.report(session, attempt, events_so_far, first=0)
    assert (stored_job(database, job.id).stage, stored_job(database, job.id).epoch) == ("robust", 5)
    compressing = NewEvent(EventType.STAGE, {"stage": "compressing", "status": "started"})
    with database.write() as session:
        leases.report(session, attempt, [compressing], first=3)
    begun = stored_job(database, job.id)
    assert (begun.stage, begun.epoch, begun.epochs, begun.progress) == (
        "compressing",
        None,
        None,
        0.5,
    )


def test_events_are_listed_after_a_number_and_up_to_a_limit(database: Database, add_job) -> None:
    job = add_job()
    attempt = claim(database)
    metrics = [NewEvent(EventType.METRIC, {"epoch": i}) for i in range(5)]
    with database.write() as session:
        leases.report(session, attempt, metrics, first=0)
    with database.read() as session:
        some = events.list_events(session, job.id, after=3, limit=2)
    assert [(event.seq, event.data) for event in some] == [(4, {"epoch": 1}), (5, {"epoch": 2})]


def test_events_told_again_after_a_lost_answer_are_there_once(database: Database, add_job) -> None:
    job = add_job()
    attempt = claim(database)
    metrics = [NewEvent(EventType.METRIC, {"epoch": i}) for i in range(4)]
    for told, first in ((metrics[:3], 0), (metrics[:3], 0), (metrics, 0), (metrics[3:], 3)):
        with database.write() as session:
            leases.report(session, attempt, told, first=first)
    with database.read() as session:
        found = [e.data for e in events.list_events(session, job.id) if e.type == "metric"]
    assert found == [event.data for event in metrics]
    # The next attempt counts from 0 again.
    with database.write() as session:
        leases.release(session, attempt)
    again = claim(database)
    with database.write() as session:
        leases.report(session, again, metrics[:1], first=0)
    with database.read() as session:
        assert events.list_events(session, job.id)[-1].data == {"epoch": 0}
