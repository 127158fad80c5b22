"""Random interleavings of everything that writes a job, on both databases.

However claims, expiries, cancels, retries, late writes and completions come about one another, no
row has two owners, no stale attempt leaves a trace, and what has ended stays as it is.
"""

import random
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from jobstore import artifacts, events, jobs, leases
from jobstore.database import Database, make_engine
from jobstore.errors import IllegalTransition, LeaseLost
from jobstore.events import EventType, NewEvent
from jobstore.leases import Attempt, JobError, NewArtifact
from jobstore.settings import Settings
from jobstore.states import ACTIVE, FINAL, RETRYABLE, JobState
from jobstore.tables import Job

CRASH = JobError("child_crashed", "killed by SIGKILL")
STAGE = NewEvent(EventType.STAGE, {"stage": "training", "status": "started"})
OWNERS = ("worker-1", "worker-2")


def _artifact(attempt: Attempt) -> NewArtifact:
    """One that tells which attempt made it."""
    return NewArtifact("model.atmc", "application/octet-stream", f"{attempt.number:064d}", 1)


WRITES = {
    "renew": lambda s, a: leases.renew(s, a, lease_s=30, run_seconds=1),
    "report": lambda s, a: leases.report(s, a, [STAGE], first=0),
    "checkpoint": lambda s, a: leases.set_checkpoint(s, a, f"{a.number}"),
    "release": leases.release,
    "crash": lambda s, a: leases.fail_attempt(s, a, CRASH),
    "fail": lambda s, a: leases.finish(s, a, JobState.FAILED, error=CRASH),
    "succeed": lambda s, a: leases.finish(
        s, a, JobState.SUCCEEDED, headline={"k": a.number}, artifacts=[_artifact(a)]
    ),
}


@dataclass
class Seen:
    """What the machine knows of a job."""

    holder: Attempt | None = None
    final: tuple[Any, ...] | None = None
    attempts: int = 0
    claimed: list[Attempt] = field(default_factory=list)


class Interleavings(RuleBasedStateMachine):
    """Every rule is one transaction of somebody; the model knows who holds what."""

    database: Database
    add_job: Any

    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Seen] = {}

    @initialize()
    def begin(self) -> None:
        with self.database.engine.begin() as connection:
            for table in ("artifacts", "events", "jobs"):
                connection.execute(text(f"DELETE FROM {table}"))

    @precondition(lambda self: len(self.seen) < 3)
    @rule(max_attempts=st.integers(1, 3))
    def create(self, max_attempts: int) -> None:
        self.seen[self.add_job(max_attempts=max_attempts).id] = Seen()

    @rule(target=attempts, owner=st.sampled_from(OWNERS))
    def claim(self, owner: str) -> Any:
        with self.database.write() as session:
            claimed = leases.claim(session, owner, lease_s=30)
        if claimed is None:
            return multiple()
        _, attempt = claimed
        seen = self.seen[attempt.job_id]
        assert seen.holder is None, "claimed while another one held it"
        assert seen.final is None, "claimed after its end"
        assert attempt.number == seen.attempts + 1
        seen.holder, seen.attempts = attempt, attempt.number
        return attempt

    @rule(attempt=attempts, kind=st.sampled_from(sorted(WRITES)))
    def write(self, attempt: Attempt, kind: str) -> None:
        """By the holder, or late: then it must leave no trace, which `nothing_changes` sees."""
        seen = self.seen[attempt.job_id]
        try:
            with self.database.write() as session:
                WRITES[kind](session, attempt)
        except LeaseLost:
            assert seen.holder != attempt, "the holder was refused"
            return
        assert seen.holder == attempt, "a stale attempt could write"
        self._look_again(attempt.job_id)

    @rule(attempt=consumes(attempts))
    def expire_and_sweep(self, attempt: Attempt) -> None:
        with self.database.engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE jobs SET lease_expires_at = '2000-01-01 00:00:00.000000' "
                    "WHERE id = :id AND lease_expires_at IS NOT NULL"
                ),
                {"id": attempt.job_id},
            )
        with self.database.write() as session:
            swept = leases.sweep(session)
        moved = [*swept.requeued, *swept.failed, *swept.cancelled]
        held = self.seen[attempt.job_id].holder is not None
        assert moved == ([attempt.job_id] if held else [])
        self._look_again(attempt.job_id)

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.seen)))
        with self.database.write() as session:
            jobs.request_cancel(session, job_id)
        self._look_again(job_id)

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.seen)))
        state = self._job(job_id).state
        try:
            with self.database.write() as session:
                jobs.retry(session, job_id)
        except IllegalTransition:
            assert state not in RETRYABLE
            return
        assert state in RETRYABLE
        self.seen[job_id].final = None
        self._look_again(job_id)

    @invariant()
    def a_row_has_the_one_owner_that_claimed_it_last(self) -> None:
        for job_id, seen in self.seen.items():
            job = self._job(job_id)
            assert (job.state in ACTIVE) == (seen.holder is not None)
            if seen.holder is not None:
                assert (job.owner, job.attempt) == (seen.holder.owner, seen.holder.number)

    @invariant()
    def nothing_changes_after_the_end(self) -> None:
        for job_id, seen in self.seen.items():
            if seen.final is not None:
                assert self._snapshot(job_id) == seen.final

    @invariant()
    def a_result_is_of_the_attempt_that_ended_the_job(self) -> None:
        for job_id in self.seen:
            job = self._job(job_id)
            with self.database.read() as session:
                made = artifacts.list_artifacts(session, job_id)
            expected = [f"{job.attempt:064d}"] if job.state is JobState.SUCCEEDED else []
            assert [artifact.sha256 for artifact in made] == expected
            assert job.headline == ({"k": job.attempt} if expected else None)

    @invariant()
    def the_events_tell_a_way_along_the_arrows(self) -> None:
        for job_id in self.seen:
            with self.database.read() as session:
                told = events.list_events(session, job_id)
            assert [event.seq for event in told] == list(range(1, len(told) + 1))
            assert told[-1].data.get("state", self._job(job_id).state) == self._job(job_id).state
            numbers = [event.attempt for event in told]
            assert numbers == sorted(numbers)

    def _look_again(self, job_id: str) -> None:
        seen, job = self.seen[job_id], self._job(job_id)
        if job.state not in ACTIVE:
            seen.holder = None
        if job.state in FINAL and seen.final is None:
            seen.final = self._snapshot(job_id)

    def _job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return jobs.get_job(session, job_id)

    def _snapshot(self, job_id: str) -> tuple[Any, ...]:
        job = self._job(job_id)
        with self.database.read() as session:
            told = len(events.list_events(session, job_id))
        return (*(getattr(job, column.name) for column in Job.__table__.columns), told)


def _drive(database: Database, add_job: Any, examples: int, steps: int) -> None:
    class Machine(Interleavings):
        pass

    Machine.database, Machine.add_job = database, staticmethod(add_job)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=True,
            # Not shrunk: against a database that takes minutes, and the steps are few.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_interleaving_breaks_a_promise(database: Database, add_job) -> None:
    _drive(database, add_job, examples=8, steps=25)


@pytest.mark.slow
def test_no_interleaving_breaks_a_promise_however_long(database: Database, add_job) -> None:
    _drive(database, add_job, examples=150, steps=50)


def test_everybody_at_once_leaves_histories_that_hold(
    settings: Settings, database: Database, add_job
) -> None:
    """The same, really at once: threads with engines of their own, as separate as processes."""
    made = [add_job(max_attempts=2).id for _ in range(6)]
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        draw, own = random.Random(seed), Database(make_engine(settings))
        held: list[Attempt] = []
        try:
            for _ in range(40):
                _act(own, draw, held, made, f"worker-{seed}")
        except BaseException as error:
            errors.append(error)
        own.engine.dispose()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for job_id in made:
        _assert_history_holds(database, job_id)


def _act(
    database: Database, draw: random.Random, held: list[Attempt], made: list[str], owner: str
) -> None:
    action = draw.choice(["claim", "claim", "write", "write", "write", "sweep", "cancel", "retry"])
    with suppress(LeaseLost, IllegalTransition), database.write() as session:
        if action == "claim":
            # Some run out at once, so that sweeps and late writes meet.
            claimed = leases.claim(session, owner, lease_s=draw.choice([-1, 30]))
            held.extend([claimed[1]] if claimed else [])
        elif action == "write" and held:
            WRITES[draw.choice(sorted(WRITES))](session, draw.choice(held))
        elif action == "sweep":
            leases.sweep(session)
        elif action == "cancel":
            jobs.request_cancel(session, draw.choice(made))
        elif action == "retry":
            jobs.retry(session, draw.choice(made))


_STEPS = {
    None: {"queued"},
    "queued": {"validating", "cancelled"},
    "validating": {"running", "queued", "succeeded", "failed", "cancelled"},
    "running": {"queued", "succeeded", "failed", "cancelled"},
    "failed": {"queued"},
    "cancelled": {"queued"},
    "succeeded": set(),
}


def _assert_history_holds(database: Database, job_id: str) -> None:
    with database.read() as session:
        job = jobs.get_job(session, job_id)
        told = events.list_events(session, job_id)
        made = artifacts.list_artifacts(session, job_id)
    assert [event.seq for event in told] == list(range(1, job.last_event_seq + 1))
    states = [event.data["state"] for event in told if event.type == "state"]
    for before, after in zip([None, *states], states, strict=False):
        assert after in _STEPS[before], states
    assert states[-1] == job.state
    claims = [e.attempt for e in told if e.type == "state" and e.data["state"] == "validating"]
    assert claims == list(range(1, job.attempt + 1))
    succeeded = job.state is JobState.SUCCEEDED
    assert [a.sha256 for a in made] == ([f"{job.attempt:064d}"] if succeeded else [])
