"""OpenTelemetry behind `jobstore.traces`, which alone imports this, and only if traces are on."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from importlib.metadata import version
from threading import local
from typing import Any

from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
)
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from jobstore import traces
from jobstore.traces import Attributes, Carrier, Kind

# Only W3C's two headers: baggage is whatever callers put there, and would go on to others.
_HEADERS = TraceContextTextMapPropagator()

_Parent = traces.Span | Carrier | None


class Tracer:
    """The tracer of this process."""

    def __init__(self, part: str, exporters: set[str]) -> None:
        """`exporters` are some of "otlp" and "console"; OTLP's settings are the environment's."""
        own = {
            "service.namespace": "atmc",
            SERVICE_INSTANCE_ID: f"{socket.gethostname()}-{os.getpid()}",
            "service.version": version("atmc"),
        }
        if not os.environ.get("OTEL_SERVICE_NAME"):
            own[SERVICE_NAME] = f"atmc-{part}"
        self._ids = _Ids()
        # What waits for the collector at the end has a deadline that the SDK's own hook lacks.
        self._provider = TracerProvider(
            resource=Resource.create(own), shutdown_on_exit=False, id_generator=self._ids
        )
        if "otlp" in exporters:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        if "console" in exporters:
            self._provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
        self._begin = self._provider.get_tracer("atmc").start_span

    def begin(
        self, name: str, parent: _Parent, kind: Kind, at: datetime | None, attributes: Attributes
    ) -> traces.Span:
        """See `traces.begin`."""
        return _Recorded(
            self._begin(
                name,
                context=_context(parent),
                kind=SpanKind[kind.upper()],
                attributes=attributes,
                start_time=_nanoseconds(at),
            )
        )

    def begin_attempt(
        self, job_id: str, number: int, parent: Carrier, at: datetime, attributes: Attributes
    ) -> traces.Span:
        """See `traces.begin_attempt`."""
        context = _context(parent)
        made_by = get_current_span(context).get_span_context()
        before = SpanContext(
            made_by.trace_id, _attempt_id(job_id, number - 1), True, made_by.trace_flags
        )
        with self._ids.next_is(_attempt_id(job_id, number)):
            span = self._begin(
                "attempt",
                context=context,
                kind=SpanKind.CONSUMER,
                attributes={"atmc.job.id": job_id, "atmc.job.attempt": number, **attributes},
                links=[Link(before)] if number > 1 else [],
                start_time=_nanoseconds(at),
            )
        return _Recorded(span)

    def close(self) -> None:
        """Send what is not sent yet."""
        self._provider.shutdown()


class _Recorded(traces.Span):
    def __init__(self, span: Span) -> None:
        self._span = span
        self.trace_id = format_trace_id(span.get_span_context().trace_id)

    def carrier(self) -> Carrier:
        carrier: Carrier = {}
        _HEADERS.inject(carrier, set_span_in_context(self._span))
        return carrier

    def annotate(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, name: str, attributes: Attributes, at: datetime | None = None) -> None:
        self._span.add_event(name, attributes, _nanoseconds(at))

    def fail(self, code: str) -> None:
        # Without a description: the messages of errors quote what callers sent.
        self._span.set_status(Status(StatusCode.ERROR))
        self._span.set_attribute("error.type", code)

    def end(self, at: datetime | None = None) -> None:
        if self._span.is_recording():
            self._span.end(_nanoseconds(at))


class _Ids(RandomIdGenerator):
    """Draws ids at random, but for a span whose id is said before it begins."""

    def __init__(self) -> None:
        self._said = local()

    @contextmanager
    def next_is(self, span_id: int) -> Iterator[None]:
        self._said.span_id = span_id
        try:
            yield
        finally:
            self._said.span_id = None

    def generate_span_id(self) -> int:
        said: int | None = getattr(self._said, "span_id", None)
        return super().generate_span_id() if said is None else said


def _attempt_id(job_id: str, number: int) -> int:
    return int.from_bytes(blake2b(f"{job_id}/{number}".encode(), digest_size=8).digest()) or 1


def _context(parent: _Parent) -> Any:
    """Return the context that leads to the parent; a trace of its own has an empty one."""
    carrier = parent.carrier() if isinstance(parent, traces.Span) else parent
    return _HEADERS.extract(carrier or {})


def _nanoseconds(at: datetime | None) -> int | None:
    if at is None:
        return None
    # By whole microseconds: a float of the seconds would round.
    return int((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000) * 1000
