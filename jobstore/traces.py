"""Traces: where a request's and a job's time went, told to a collector by OpenTelemetry.

They are off, and nothing here imports OpenTelemetry, unless its standard variables ask for them:
`OTEL_EXPORTER_OTLP_ENDPOINT`, or `OTEL_TRACES_EXPORTER`. A job's trace is kept in its row as the
W3C headers of the request that made it, so that whoever works on the job, now or after a crash,
goes on in the same trace. What is told are ids, states and figures, as in the logs: never a name
or a value that a caller chose, nor an address.
"""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from jobstore.otel import Tracer

log = logging.getLogger(__name__)

Carrier = dict[str, str]
"""The headers `traceparent` and, if there is one, `tracestate` of W3C Trace Context."""

Attributes = Mapping[str, str | int | float | bool]
Kind = Literal["internal", "server", "client", "consumer"]

FLUSH_S = 1.5
"""At its end a process waits so long at most for the collector to take the last spans."""

_EXPORTERS = {"otlp", "console"}
_PROTOCOL = "http/protobuf"


class Span:
    """A span that tells nothing, which is what there is while traces are off."""

    trace_id: str | None = None

    def carrier(self) -> Carrier | None:
        """Return the headers by which others go on from here."""
        return None

    def annotate(self, attributes: Attributes) -> None:
        """Add attributes."""

    def rename(self, name: str) -> None:
        """Give it another name."""

    def note(self, name: str, attributes: Attributes, at: datetime | None = None) -> None:
        """Add something that happened at a moment, by default now."""

    def fail(self, code: str) -> None:
        """Mark it as failed; `code` is one of docs/interfaces/errors.md or an exception's class."""

    def end(self, at: datetime | None = None) -> None:
        """End it, by default now, and hand it to the exporter. Only the first end counts."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.fail(kind.__name__)
        self.end()


NOTHING = Span()

_tracer: "Tracer | None" = None
_current: ContextVar[Span] = ContextVar("span", default=NOTHING)


def configure(part: str) -> None:
    """Switch traces on in this process, if the environment asks for them; once, after the logs.

    `part` is "api", "worker" or "keeper". Traces that cannot be had are said so in the log, and
    the part goes on without them.
    """
    global _tracer
    exporters = _asked_for()
    if not exporters:
        return
    try:
        from jobstore.otel import Tracer

        _tracer = Tracer(part, exporters)
    except ImportError as error:
        log.error("no traces: %s; install atmc[otel]", error)
    except Exception as error:
        # What a variable says may be wrong in many ways, none of which is worth an outage.
        log.error("no traces: %s", error)
    else:
        log.info("traces are on", extra={"exporters": ",".join(sorted(exporters))})


def _asked_for() -> set[str]:
    """Return the exporters that the environment asks for; an empty variable is an unset one."""
    if _variable("SDK_DISABLED").lower() == "true":
        return set()
    endpoint = _variable("EXPORTER_OTLP_TRACES_ENDPOINT") or _variable("EXPORTER_OTLP_ENDPOINT")
    listed = _variable("TRACES_EXPORTER") or ("otlp" if endpoint else "none")
    asked = {name.strip() for name in listed.split(",")} - {"none", ""}
    if unknown := asked - _EXPORTERS:
        log.error("OTEL_TRACES_EXPORTER: %s is not one of otlp, console, none", sorted(unknown))
    protocol = _variable("EXPORTER_OTLP_TRACES_PROTOCOL") or _variable("EXPORTER_OTLP_PROTOCOL")
    if "otlp" in asked and protocol not in ("", _PROTOCOL):
        log.error("OTEL_EXPORTER_OTLP_PROTOCOL: %s is not spoken here, %s is", protocol, _PROTOCOL)
        asked.discard("otlp")
    return asked & _EXPORTERS


def _variable(name: str) -> str:
    return os.environ.get(f"OTEL_{name}", "").strip()


def is_on() -> bool:
    """Tell whether traces are on in this process."""
    return _tracer is not None


def shut_down(within_s: float = FLUSH_S) -> None:
    """Send what is not sent yet, for `within_s` seconds at most, and switch traces off."""
    global _tracer
    tracer, _tracer = _tracer, None
    if tracer is None:
        return
    # An exporter may wait for its collector for longer than this process may take to end.
    closing = threading.Thread(target=tracer.close, name="traces", daemon=True)
    closing.start()
    closing.join(within_s)
    if closing.is_alive():
        log.warning("the last spans are lost: the collector does not take them in time")


def begin(
    name: str,
    *,
    parent: Span | Carrier | None = None,
    kind: Kind = "internal",
    at: datetime | None = None,
    attributes: Attributes | None = None,
) -> Span:
    """Begin a span, by default now; without a parent, or with one that is not valid, a trace.

    What is below `NOTHING` is nothing, too.
    """
    if _tracer is None or parent is NOTHING:
        return NOTHING
    return _tracer.begin(name, parent, kind, at, attributes or {})


def record(name: str, since: datetime, until: datetime, *, parent: Span | Carrier | None) -> None:
    """Tell of something that is over."""
    begin(name, parent=parent, at=since).end(max(since, until))


def begin_attempt(
    job_id: str, number: int, *, parent: Carrier | None, at: datetime, attributes: Attributes
) -> Span:
    """Begin the span of a job's attempt, which the one before is linked to.

    Its id follows from the job and the number, so that whoever ends the attempt of a worker that
    was killed can tell the same span, and what the worker told before stays connected.
    """
    if _tracer is None or parent is None:
        return NOTHING
    return _tracer.begin_attempt(job_id, number, parent, at, attributes)


def current() -> Span:
    """Return the span of the request at hand."""
    return _current.get()


@contextmanager
def during(span: Span) -> Iterator[Span]:
    """Make it the current span of this task and the threads that it asks, and end it at last."""
    token = _current.set(span)
    try:
        with span:
            yield span
    finally:
        _current.reset(token)


def trace_id_of(carrier: Mapping[str, str] | None) -> str | None:
    """Return the id of the trace that a carrier leads to."""
    return carrier["traceparent"].split("-")[1] if carrier else None
