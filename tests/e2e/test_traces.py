"""A real service tells one trace of a job: from its POST to its last artifact and its webhook."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from benchmarks.small_job import ARCHITECTURE, SPEC, uploads
from tests.bench import poll
from tests.collector import Collector, assert_tree

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"


def test_a_job_is_one_connected_tree(service_url: str, collector: Collector) -> None:
    got: list[str | None] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.headers["traceparent"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    hook = {"url": f"http://127.0.0.1:{receiver.server_port}/x", "events": ["job.succeeded"]}
    with httpx.Client(base_url=service_url, timeout=60) as http:
        model, dataset = uploads()
        fields = {"architecture": ARCHITECTURE}
        files = {"file": ("m.safetensors", model)}
        body: dict[str, Any] = SPEC | {"webhook": hook}
        body["model_id"] = http.post("/models", files=files, data=fields).json()["id"]
        body["dataset_id"] = http.post("/datasets", files={"file": ("d.npz", dataset)}).json()["id"]
        sent = {"traceparent": f"00-{TRACE_ID}-{CALLER}-01"}
        job = http.post("/jobs", json=body, headers=sent).json()
        itself = job["links"]["self"]
        poll(lambda: http.get(itself, params={"wait": 20}).json()["finished_at"])
        assert http.get(itself).json()["state"] == "succeeded", http.get(itself).text
        artifacts = http.get(job["links"]["artifacts"]).json()["data"]
        events = http.get(job["links"]["events"], params={"limit": 1000}).json()["data"]
    poll(lambda: got, 60)
    receiver.shutdown()
    receiver.server_close()
    poll(lambda: {"attempt", "POST"} <= {span.name for span in collector.of(TRACE_ID)}, 60)

    spans = collector.of(TRACE_ID)
    assert_tree(spans, CALLER)
    named = {span.name: span for span in spans}
    assert len(named) == len(spans)
    root, attempt, publish = named["POST /jobs"], named["attempt"], named["publish"]
    assert root.parent_id == CALLER
    below = {
        parent.name: {span.name for span in spans if span.parent_id == parent.span_id}
        for parent in (root, attempt, publish)
    }
    stages = {e["stage"] for e in events if e["type"] == "stage"}
    assert {"validating", "compressing", "writing"} <= stages
    assert below == {
        "POST /jobs": {"queued", "attempt", "POST"},
        "attempt": {"claim", "fetch", "publish"} | stages,
        "publish": {f"publish {each['name']}" for each in artifacts},
    }
    services = {"POST /jobs": "atmc-api", "attempt": "atmc-worker", "POST": "atmc-keeper"}
    assert {name: named[name].service for name in services} == services
    # In their order, and within what they are part of.
    assert named["queued"].ended <= named["fetch"].began <= named["validating"].began
    assert named["validating"].ended <= named["compressing"].began
    assert named["compressing"].ended <= named["writing"].began
    assert named["writing"].ended <= publish.began
    children = [span for span in spans if span.parent_id == attempt.span_id]
    assert all(attempt.began <= s.began <= s.ended <= attempt.ended for s in children)
    (header,) = got
    assert header is not None
    assert header.startswith(f"00-{TRACE_ID}-{named['POST'].span_id}-")
    assert not [span for span in spans if span.failed]
    assert {event["trace_id"] for event in events} == {TRACE_ID}
    # No network of the child's, no tenant's words: not the receiver's address, either.
    assert "127.0.0.1" not in str(spans)
