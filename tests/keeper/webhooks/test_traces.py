"""A delivery goes on in the trace of its job, and hands it to the receiver."""

import logging
from typing import Any

import pytest

from jobstore import traces
from jobstore.database import Database
from tests.collector import Collector, collector  # noqa: F401
from tests.keeper.webhooks.conftest import Receiver, make_due, send_due, subscribe

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = {
    "traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01",
    "tracestate": "vendor=what-it-noted",
}


def test_a_delivery_hands_its_job_s_trace_to_the_receiver(
    database: Database,
    add_job: Any,
    receiver: Receiver,
    collector: Collector,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    hook = subscribe(database, f"{receiver.url}?token=secret-in-a-url")
    with traces.during(traces.begin("POST /jobs", parent=PARENT)):
        add_job()
    receiver.statuses = [503, 204]
    assert send_due(database) == 1
    make_due(database)
    assert send_due(database) == 1
    traces.shut_down()

    made, failed, delivered = collector.of(TRACE_ID)
    for number, (span, (headers, _)) in enumerate(
        zip((failed, delivered), receiver.got, strict=True)
    ):
        assert (span.name, span.kind, span.parent_id) == ("POST", "client", made.span_id)
        sent = {name.lower(): value for name, value in headers.items()}
        assert sent["traceparent"][:52] == f"00-{TRACE_ID}-{span.span_id}"
        # What other systems noted is not the receiver's to know.
        assert "tracestate" not in sent
        assert span.attributes["atmc.webhook.id"] == hook
        assert span.attributes["http.request.resend_count"] == number
    assert (failed.failed, failed.attributes["error.type"]) == (True, "503")
    assert (delivered.failed, delivered.attributes["http.response.status_code"]) == (False, 204)
    assert "secret-in-a-url" not in str(collector.spans)
    assert "127.0.0.1" not in str(collector.spans)
    lines = [record for record in caplog.records if record.message == "webhook"]
    assert [record.trace_id for record in lines] == [TRACE_ID] * 2  # type: ignore[attr-defined]


def test_without_traces_a_receiver_gets_no_header(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    subscribe(database, receiver.url)
    add_job()
    assert send_due(database) == 1
    assert "traceparent" not in {name.lower() for name in receiver.got[0][0]}
