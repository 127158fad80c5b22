"""Logs for people and for `grep`: a sentence, then `key=value` pairs."""

import logging
from datetime import UTC, datetime

from jobstore.leases import Attempt

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class _Formatter(logging.Formatter):
    """Appends the `extra` fields of a record, in the order they were given."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")

    def formatMessage(self, record: logging.LogRecord) -> str:
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        pairs = "".join(f" {name}={value}" for name, value in extra.items())
        return super().formatMessage(record) + pairs


def about(attempt: Attempt, **more: object) -> dict[str, object]:
    """Return the `extra` fields of a record on this attempt."""
    return {"job": attempt.job_id, "attempt": attempt.number} | more


def brief(error: object) -> str:
    """Return the first line of the error; what follows is the statement, or a trace."""
    return str(error).partition("\n")[0]


def configure_logs() -> None:
    """Send everything from INFO on to standard error, one line a record."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # A wake-up is no news; the job it leads to is.
    for name in ("celery.worker.strategy", "celery.app.trace", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
