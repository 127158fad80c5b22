"""The service that `benchmarks.siege` attacks, and the books on what it has to answer for."""

import math
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import httpx

from benchmarks.hostile import MODEL
from benchmarks.sample_files import good_datasets, good_models
from benchmarks.small_job import ARCHITECTURE, SPEC

TENANTS = ("red", "blue")
FINAL = ("succeeded", "failed", "cancelled")
# A tenth of a second of training: what is attacked is the reading, not the method.
TINY = SPEC | {
    "training": {"robust_epochs": 1, "compression_epochs": 1, "finish_epochs": 1},
    "evaluation": {"attacks": ["fgsm"], "max_images": 10, "curve_images": 5, "curve_steps": 1},
}
# A service that does not answer within these seconds hangs.
_PATIENCE_S = 60.0


@dataclass
class Target:
    """A running service, and the books on it. Its methods may be called from several threads.

    Attributes:
        url: where it listens.
        keys: a key of each tenant, and the operator's as `admin`.
        seconds: how long the attack takes, once the attackers are ready.
        most: the most requests.
        has_worker: whether jobs that are queued are run.
        counts: how many `requests`, `hostile_files`, `server_errors` and so on there were.
        kept: what was acknowledged and not deleted: the path, its tenant, and what of the answer
            may never change.
        hostile_jobs: jobs on files that were taken in though they are hostile, by id.
    """

    url: str
    keys: dict[str, str]
    seconds: float
    most: int
    has_worker: bool = True
    counts: Counter[str] = field(default_factory=Counter)
    kept: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    hostile_jobs: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    until: float = math.inf
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_over(self) -> bool:
        """Whether the time is up, or the number of requests is reached."""
        return time.monotonic() > self.until or self.counts["requests"] >= self.most

    def client(self, tenant: str) -> httpx.Client:
        """A client with the tenant's key, whose every answer is looked at."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.keys[tenant]}"},
            timeout=_PATIENCE_S,
            trust_env=False,
            event_hooks={"response": [self._look_at]},
        )

    def _look_at(self, response: httpx.Response) -> None:
        request = response.request
        self.answered(response.status_code, response.headers, f"{request.method} {request.url}")

    def answered(self, status: int, headers: Any, what: str) -> None:
        """Count an answer; a 5xx that does not say when to come again is a fault."""
        self.add("requests")
        is_meant = status == 507 or (status == 503 and "retry-after" in headers)
        if status >= 500 and not is_meant:
            self.fault("server_errors", f"{what} answered {status}")

    def add(self, name: str, number: int = 1) -> None:
        """Count something."""
        with self._lock:
            self.counts[name] += number

    def fault(self, kind: str, what: str) -> None:
        """Count what is wrong, and say how to see it again."""
        with self._lock:
            self.counts[kind] += 1
            self.faults.append(what)
        print(f"{kind}: {what}", file=sys.stderr, flush=True)

    def keep(self, path: str, tenant: str, **fixed: Any) -> None:
        """Remember what was acknowledged: it has to be there until it is forgotten."""
        with self._lock:
            self.kept[path] = (tenant, fixed)

    def forget(self, path: str) -> None:
        """Let it be gone."""
        with self._lock:
            self.kept.pop(path, None)

    def some(self, source: random.Random, tenant: str) -> str | None:
        """The path of something that the tenant has."""
        with self._lock:
            paths = sorted(path for path, (whose, _) in self.kept.items() if whose == tenant)
        return source.choice(paths) if paths else None


def upload(
    client: httpx.Client, kind: str, content: bytes, architecture: str = ARCHITECTURE
) -> httpx.Response:
    """Send a file as a form."""
    data = {"architecture": architecture} if kind == MODEL else {}
    return client.post(f"/{kind}", files={"file": ("file", content)}, data=data)


def good_ids(target: Target, client: httpx.Client, tenant: str) -> dict[str, str]:
    """Upload a network and a data set that jobs can use, and hold them to their digests."""
    ids = {}
    contents = {"models": good_models()["safetensors"], "datasets": good_datasets()["npz"]}
    for kind, content in contents.items():
        made = upload(client, kind, content)
        made.raise_for_status()
        document = made.json()
        keep_upload(target, tenant, kind, document, content)
        ids[f"{kind[:-1]}_id"] = document["id"]
    return ids


def keep_upload(
    target: Target, tenant: str, kind: str, document: dict[str, Any], content: bytes
) -> None:
    """Hold the service to what it has acknowledged; what differs at once is wrong at once."""
    digest = sha256(content).hexdigest()
    if (document["sha256"], document["bytes"]) != (digest, len(content)):
        target.fault("wrong", f"POST /{kind}: sent {digest}, got {document['sha256']}")
    target.keep(f"/{kind}/{document['id']}", tenant, sha256=digest, bytes=len(content))


def settle(target: Target, within_s: float) -> None:
    """Look for all that was acknowledged, and judge the jobs on hostile files once they ended."""
    deadline = time.monotonic() + within_s
    clients = {tenant: target.client(tenant) for tenant in TENANTS}
    for path, (tenant, _) in sorted(target.kept.items()):
        if path.startswith("/jobs/") and path[6:] not in target.hostile_jobs:
            clients[tenant].post(f"{path}/cancel")
    waiting = dict(target.hostile_jobs)
    while waiting and time.monotonic() < deadline:
        for job_id, how in list(waiting.items()):
            job = clients[TENANTS[0]].get(f"/jobs/{job_id}").json()
            if job.get("state") in FINAL:
                del waiting[job_id]
                _judge(target, clients[TENANTS[0]], job, how)
        time.sleep(0.5)
    for job_id, how in waiting.items():
        target.fault("unended", f"job {job_id} on {how} has not ended within {within_s:g} s")
    for path, (tenant, fixed) in sorted(target.kept.items()):
        answer = clients[tenant].get(path)
        if answer.status_code != 200:
            target.fault("lost", f"GET {path} answered {answer.status_code}: it was acknowledged")
            continue
        document = answer.json()
        differs = {name: document.get(name) for name in fixed if document.get(name) != fixed[name]}
        if differs:
            target.fault("wrong", f"GET {path} has {differs}, acknowledged was {fixed}")
        for link in document.get("links", {}).values() if document.get("headline") else ():
            if link.endswith("/artifacts"):
                _download(target, clients[tenant], link)


def _judge(target: Target, client: httpx.Client, job: dict[str, Any], how: str) -> None:
    """A file that was taken in may make its job fail, but with a code of its own."""
    events = client.get(f"/jobs/{job['id']}/events", params={"limit": 1000}).json()["data"]
    crashes = [
        event
        for event in events
        if event["type"] == "error"
        and event.get("code") in ("child_crashed", "internal_error")
        # Those that the siege has killed itself.
        and "SIGKILL" not in event.get("message", "")
    ]
    if crashes:
        said = crashes[0]["message"][-600:]
        target.fault("accepted_and_crashed", f"job {job['id']} on {how} crashed: {said}")


def _download(target: Target, client: httpx.Client, link: str) -> None:
    for artifact in client.get(link).json()["data"]:
        got = client.get(artifact["links"]["self"], follow_redirects=True)
        if got.status_code != 200:
            target.fault("lost", f"GET {artifact['links']['self']} answered {got.status_code}")
        elif sha256(got.content).hexdigest() != artifact["sha256"]:
            target.fault("wrong", f"GET {artifact['links']['self']} has other bytes than it says")
