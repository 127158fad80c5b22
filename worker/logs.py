"""What the worker's records are about."""

from jobstore.leases import Attempt


def about(attempt: Attempt, **more: object) -> dict[str, object]:
    """Return the `extra` fields of a record on this attempt."""
    ids = {"job": attempt.job_id, "attempt": attempt.number, "tenant": attempt.tenant}
    return ids | more


def brief(error: object) -> str:
    """Return the first line of the error; what follows is the statement, or a trace."""
    return str(error).partition("\n")[0]
