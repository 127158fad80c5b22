"""Advances the sweeps that users have begun: makes their trials jobs, and ends them.

(`keeper.sweep` is another thing: it sweeps up after dead workers.)

What is to be done follows from the rows alone (`keeper.steps`), and a step is one transaction that
holds the sweep's row. So any number of keepers may be at it, and one may be killed anywhere: a
trial is never made twice, and none is lost.
"""

import logging
import threading
from collections.abc import Sequence

from celery import Celery
from kombu.exceptions import OperationalError as BrokerError
from redis import RedisError
from sqlalchemy.orm import Session

from jobstore import audit, starts, sweeps
from jobstore.database import Database
from jobstore.dialects import now
from jobstore.errors import NotFound, QuotaExceeded, TenantGone, UnsuitableStart
from jobstore.events import best_metric
from jobstore.jobs import create_job
from jobstore.logs import brief
from jobstore.quotas import check_queue
from jobstore.retry import TRANSIENT
from jobstore.settings import Settings
from jobstore.states import ACTIVE, SweepState, TrialState
from jobstore.sweeps import Trial
from jobstore.tables import Dataset, Job, Model, Sweep, Tenant
from jobstore.tenancy import Origin
from jobstore.terms import Terms
from jobstore.uploads import hold_uploads
from jobstore.wakeups import wake
from jobstore.workers import queue_of
from keeper.steps import Launch, Step, done_of, next_step
from tuning.goal import Goal
from tuning.search import Found

log = logging.getLogger(__name__)

#: The time between two looks at the sweeps that run.
POLL_S = 0.5
# The longest time between two looks while the database cannot be reached.
_LONGEST_DELAY_S = 60.0


class Conductor:
    """Advances all sweeps that run."""

    def __init__(
        self, settings: Settings, database: Database, celery: Celery, stop: threading.Event
    ) -> None:
        self._settings = settings
        self._database = database
        self._celery = celery
        self._stop = stop

    def run(self) -> None:
        """Advance until `stop` is set; if that fails for good, this sets `stop` itself."""
        delay_s = POLL_S
        try:
            while not self._stop.wait(delay_s):
                try:
                    self.advance_all()
                    delay_s = POLL_S
                except (BrokerError, RedisError, *TRANSIENT) as error:
                    delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
                    log.warning("sweeps wait: %s", brief(error), extra={"next_in_s": delay_s})
        except Exception:
            log.exception("sweeps cannot be advanced any more")
        finally:
            self._stop.set()

    def advance_all(self) -> None:
        """Take the next step of every sweep that runs."""
        with self._database.read() as session:
            running = sweeps.under_way(session)
        for sweep_id, tenant in running:
            try:
                self.advance(sweep_id, tenant)
            except (NotFound, TenantGone):
                continue  # Deleted just now, or with its tenant.
            except (BrokerError, RedisError, *TRANSIENT):
                raise
            except Exception:
                # The others go on; this one is tried again with the next look.
                log.exception("a sweep cannot be advanced", extra={"sweep": sweep_id})

    def advance(self, sweep_id: str, tenant: str) -> None:
        """Take the sweep's next step, if there is one to take."""
        database = self._database.of(tenant, Origin(audit.KEEPER))
        with database.read() as session:
            sweep = sweeps.get_sweep(session, sweep_id)
            step, limit = self._look(session, sweep)
            if not step.is_due or (
                step == Step(launches=step.launches) and _is_full(session, limit)
            ):
                return
        with database.write() as session:
            sweep = sweeps.hold_sweep(session, sweep_id)
            if sweep.state is not SweepState.RUNNING:
                return
            made = self._take(session, sweep, *self._look(session, sweep))
        for job in made:
            wake(self._celery, queue_of(job.device, job.gpus))

    def _look(self, session: Session, sweep: Sweep) -> tuple[Step, int | None]:
        tenant = session.get_one(Tenant, sweep.tenant_id)
        limit = Terms.of(self._settings, tenant).max_queued_jobs
        trials = sweeps.list_trials(session, sweep.id)
        hopeless = _hopeless(session, sweep, trials)
        return next_step(sweep, trials, now(session), hopeless), limit

    def _take(self, session: Session, sweep: Sweep, step: Step, limit: int | None) -> list[Job]:
        """Write the step down; returns the jobs that it made."""
        if step.started_at is not None:
            sweep.started_at = step.started_at
        for trial in step.told:
            sweeps.tell_trial(session, sweep, trial.row, trial.state)
        sweeps.stop_trials(session, sweep, step.stopped, step.why_stopped)
        if step.planned is not None:
            sweeps.plan_trial(
                session, sweep, step.planned, len(sweeps.list_trials(session, sweep.id))
            )
        made: list[Job] = []
        if step.launches:
            model, dataset = hold_uploads(session, sweep.model_id, sweep.dataset_id)
            for launch in step.launches:
                try:
                    check_queue(session, limit)
                except QuotaExceeded:
                    break  # The others begin once there is room.
                made.append(self._launch(session, sweep, launch, model, dataset))
        if step.ends is not None:
            sweeps.end_sweep(session, sweep, *step.ends)
            log.info("sweep ended", extra={"sweep": sweep.id, "now": sweep.state.value})
        session.flush()
        return made

    def _launch(
        self, session: Session, sweep: Sweep, launch: Launch, model: Model, dataset: Dataset
    ) -> Job:
        row = launch.trial.row
        job = create_job(
            session,
            spec=row.spec,
            model=model,
            dataset=dataset,
            max_attempts=self._settings.max_attempts,
            time_limit_s=sweep.trial_time_limit_s or self._settings.time_limit_s,
            name=_name(sweep, launch),
            labels=sweep.asked.get("labels"),
            priority=sweep.priority,
            device=sweep.device,
            gpus=sweep.gpus,
            sweep_id=sweep.id,
            trace=sweep.trace,
            start=_start(session, launch, model, dataset),
        )
        row.job_id = job.id
        sweeps.tell_trial(session, sweep, row, TrialState.QUEUED)
        audit.record(session, "job.create", job.id, sweep=sweep.id)
        return job


def _hopeless(session: Session, sweep: Sweep, trials: Sequence[Trial]) -> tuple[Trial, str] | None:
    """Return the trial of a goal that cannot hold its floor any more, and why."""
    goal = Goal.of(sweep.asked)
    trial = next((t for t in trials if t.job is not None and t.job.state in ACTIVE), None)
    if goal is None or trial is None or trial.job is None or trial.row.confirms is not None:
        return None
    job = trial.job
    said = best_metric(session, job, "validation_accuracy")
    if said is None or job.epochs is None:
        return None
    accuracy, images = said["validation_accuracy"], said.get("validation_images")
    if not images:
        return None  # Of a worker of the version before.
    why = goal.why_hopeless(job.stage, job.epoch or 0, job.epochs, accuracy, images)
    if why is None:
        return None
    # If nothing else is to be tried, its figures are the best that there will be.
    needed = not any(trial.headline for trial in trials)
    if needed and isinstance(goal.decide(done_of(trials)), Found):
        return None
    return trial, why


def _is_full(session: Session, limit: int | None) -> bool:
    try:
        check_queue(session, limit)
    except QuotaExceeded:
        return True
    return False


def _start(session: Session, launch: Launch, model: Model, dataset: Dataset) -> starts.Start | None:
    """Return what the job starts from; None where the denser one's file is no longer there."""
    if launch.start is None or launch.start.job is None:
        return None
    try:
        return starts.hold_start(session, launch.start.job.id, model=model, dataset=dataset)
    except UnsuitableStart as error:
        log.info(
            "a trial starts from its upload: %s", error, extra={"sweep": launch.trial.row.sweep_id}
        )
        return None


_MOST_OF_A_NAME = 200


def _name(sweep: Sweep, launch: Launch) -> str:
    """Return the name of the trial's job: the sweep's, and what sets the trial apart."""
    point = launch.trial.row.point.items()
    parts = [f"{path.rpartition('.')[2]} {value}" for path, value in point]
    whole = ": ".join(filter(None, [sweep.name, ", ".join(parts)]))
    return whole[:_MOST_OF_A_NAME] or sweep.id
