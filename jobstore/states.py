"""The states of jobs, sweeps and trials, and the one place that knows the arrows of a job's.

The database refuses every other one as well, by triggers that the migrations make and a test holds
to these arrows: not even a mistake in our own code can write one.
"""

from enum import StrEnum

from jobstore.errors import IllegalTransition


class JobState(StrEnum):
    """What a job is doing, as the API shows it."""

    QUEUED = "queued"
    VALIDATING = "validating"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = frozenset({JobState.VALIDATING, JobState.RUNNING})
"""A worker holds a lease on the job."""

FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
"""Nothing changes any more by itself."""

RETRYABLE = frozenset({JobState.FAILED, JobState.CANCELLED})
"""Its user may have the job queued again, and nobody else."""

_ARROWS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.VALIDATING, JobState.CANCELLED}),
    # Back to queued: the worker was lost, crashed, or gave its lease back.
    JobState.VALIDATING: frozenset({JobState.RUNNING, JobState.QUEUED}) | FINAL,
    JobState.RUNNING: frozenset({JobState.QUEUED}) | FINAL,
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class FileState(StrEnum):
    """Whether a model or data set has its bytes: those that are fetched come later."""

    FETCHING = "fetching"
    READY = "ready"
    FAILED = "failed"


class SweepState(StrEnum):
    """What a sweep is doing, as the API shows it: it runs until its last trial has ended."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TrialState(StrEnum):
    """What a trial is doing: its job's state, once there is a job."""

    PLANNED = "planned"
    QUEUED = "queued"
    VALIDATING = "validating"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


TRIAL_AT_WORK = frozenset({TrialState.QUEUED, TrialState.VALIDATING, TrialState.RUNNING})
"""The trial is a job that has not ended."""


def check_transition(old: JobState, new: JobState) -> None:
    """Raise `IllegalTransition` unless a job may go from `old` to `new` by itself."""
    if new not in _ARROWS[old]:
        raise IllegalTransition(f"a job that is {old} cannot become {new}")


def check_retry(old: JobState) -> None:
    """Raise `IllegalTransition` unless a job that is `old` may be queued again by its user."""
    if old not in RETRYABLE:
        raise IllegalTransition(f"a job that is {old} cannot be retried")
