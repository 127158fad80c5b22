"""The state machine of a job: the one place that knows its arrows."""

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
"""Nothing changes any more."""

_ARROWS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.VALIDATING, JobState.CANCELLED}),
    # Back to queued: the worker was lost, crashed, or gave its lease back.
    JobState.VALIDATING: frozenset({JobState.RUNNING, JobState.QUEUED}) | FINAL,
    JobState.RUNNING: frozenset({JobState.QUEUED}) | FINAL,
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


def check_transition(old: JobState, new: JobState) -> None:
    """Raise `IllegalTransition` unless a job may go from `old` to `new`."""
    if new not in _ARROWS[old]:
        raise IllegalTransition(f"a job that is {old} cannot become {new}")
