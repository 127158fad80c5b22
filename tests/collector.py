"""A collector of traces: takes what exporters of OTLP send over HTTP, by its own messages."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from jobstore import traces
from tests.bench import poll


@dataclass(frozen=True)
class Span:
    """What a collector knows of a span; times are Unix times in nanoseconds."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    began: int
    ended: int
    failed: bool
    attributes: dict[str, Any]
    links: list[str]
    events: list[str]


@dataclass
class Collector:
    """What was sent so far."""

    url: str
    spans: list[Span] = field(default_factory=list)

    def of(self, trace_id: str) -> list[Span]:
        """The spans of a trace, by when they began."""
        return sorted((s for s in self.spans if s.trace_id == trace_id), key=lambda s: s.began)

    def named(self, *names: str) -> list[Span]:
        """Wait until there is a span of each name; returns the last of each."""
        poll(lambda: {s.name for s in self.spans} >= set(names), 30)
        return [[s for s in self.spans if s.name == name][-1] for name in names]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            right = (self.path, self.headers["Content-Type"]) == _RIGHT
            if right:
                made.spans.extend(_read(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if right else 400)
            self.send_header("Content-Type", _RIGHT[1])
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


_RIGHT = ("/v1/traces", "application/x-protobuf")


def _read(body: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = _values(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for sent in scope.spans:
                yield _span(service, sent)


def _span(service: str, sent: Sent) -> Span:
    return Span(
        service=service,
        name=sent.name,
        kind=Sent.SpanKind.Name(sent.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=sent.trace_id.hex(),
        span_id=sent.span_id.hex(),
        parent_id=sent.parent_span_id.hex(),
        began=sent.start_time_unix_nano,
        ended=sent.end_time_unix_nano,
        failed=sent.status.code == Status.STATUS_CODE_ERROR,
        attributes=_values(sent.attributes),
        links=[link.span_id.hex() for link in sent.links],
        events=[event.name for event in sent.events],
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector, to which this process tells its spans for the test."""
    with collecting() as made:
        for name, value in variables(made).items():
            monkeypatch.setenv(name, value)
        traces.configure("test")
        assert traces.is_on()
        yield made
        traces.shut_down()


def variables(collector: Collector) -> dict[str, str]:
    """What turns traces on in a process, which then tells its spans soon."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}


def assert_tree(spans: list[Span], root_parent: str = "") -> None:
    """Assert that the spans are one connected tree, each within its parent's beginning."""
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans), "a span was told twice"
    (root,) = [span for span in spans if span.parent_id not in by_id]
    assert root.parent_id == root_parent
    for span in spans:
        assert span.began <= span.ended, span
        if span is not root:
            assert by_id[span.parent_id].began <= span.began, span
    assert all(link in by_id for span in spans for link in span.links)
