"""The logs of every process: one record a line, as text for people and `grep`, or as JSON.

What a record is about stands in fields, not in its sentence: `extra={"job": ...}`, and what `about`
has bound to the request at hand. Fields are ids, states and figures; never a key, a secret, a
header or a part of a body.
"""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
# One dictionary a request, shared by its tasks and threads: what one binds the others log, too.
_bound: ContextVar[dict[str, object] | None] = ContextVar("bound", default=None)


def begin(**fields: object) -> None:
    """Start the fields of a request anew; whatever this task and its threads log has them."""
    _bound.set(dict(fields))


def about(**fields: object) -> None:
    """Add fields to those of the request at hand; without one there is nothing to do."""
    bound = _bound.get()
    if bound is not None:
        bound.update(fields)


def bound() -> dict[str, object]:
    """Return the fields of the request at hand, none outside of one."""
    return dict(_bound.get() or {})


def brief(error: object) -> str:
    """Return the first line of the error; the lines after it are an SQL statement or a trace."""
    return str(error).partition("\n")[0]


class _Fields(logging.Filter):
    """Copies what is bound where a record is made: it may be written by another thread."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in bound().items():
            if name not in vars(record):
                setattr(record, name, value)
        return True


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class _Text(logging.Formatter):
    """A sentence, then `key=value` pairs in the order they were given."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return _time(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        pairs = "".join(f" {name}={_word(value)}" for name, value in _fields(record).items())
        return _printable(super().formatMessage(record)) + pairs

    def format(self, record: logging.LogRecord) -> str:
        # Another handler may have left what its own formatter makes of the exception.
        record.exc_text = None
        return super().format(record)

    def formatException(self, info: Any) -> str:
        # No line of it can be taken for a record.
        lines = _without_values(super().formatException(info)).splitlines()
        return "\n".join(f"    {_printable(line)}" for line in lines)


class _Json(logging.Formatter):
    """One JSON object a line; the trace of an exception is its `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            document["exception"] = _without_values(self.formatException(record.exc_info))
        return json.dumps(document, default=str)


def _printable(text: str) -> str:
    """Spell out what is no character to print.

    A line break in what others chose would begin a record of their own, and a terminal that shows
    the log would obey its control characters.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _without_values(trace: str) -> str:
    """Leave out the lines by which PostgreSQL says which values it did not like."""
    return "\n".join(
        line for line in trace.split("\n") if not line.startswith(("DETAIL:", "CONTEXT:"))
    )


def _word(value: object) -> str:
    text = str(value)
    quoted = not text or not text.isprintable() or bool(set(text) & set(' "='))
    return json.dumps(text) if quoted else text


FORMATTERS: dict[LogFormat, logging.Formatter] = {
    "text": _Text("%(asctime)s %(levelname)s %(name)s: %(message)s"),
    "json": _Json(),
}


def configure_logs(log_format: LogFormat) -> None:
    """Send everything from INFO on to standard error, one line a record."""
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATTERS[log_format])
    handler.addFilter(_Fields())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # No line tells the place in the code, the thread or the process, so none is looked for.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # A wake-up is no news, the job it leads to is; requests are told with their ids by the API.
    for name in ("celery.worker.strategy", "celery.app.trace", "alembic", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
