"""The attackers of `benchmarks.siege`. Each is called again and again until the siege is over."""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok

from benchmarks.hostile import draw
from benchmarks.target import FINAL, TENANTS, TINY, Target, good_ids, keep_upload, upload

RED, BLUE = TENANTS
# Jobs on hostile files that are unfinished at a time: each takes a worker for seconds.
_UNFINISHED = 4
_TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}


class Files:
    """Uploads hostile files, and queues jobs on those that are taken in."""

    def __init__(self, target: Target, source: random.Random, folder: Path) -> None:
        self._target, self._source, self._folder = target, source, folder
        self._canary = folder / "canary"
        self._client = target.client(RED)
        self._good = good_ids(target, self._client, RED)

    def __call__(self) -> None:
        """Upload one file; if it is taken in, have a job use it."""
        hostile = draw(self._source, str(self._canary))
        self._target.add("hostile_files")
        number = self._target.counts["hostile_files"]
        try:
            answer = upload(self._client, hostile.kind, hostile.content, hostile.architecture)
        except (httpx.WriteError, httpx.RemoteProtocolError):
            return  # Refused before all of it was sent.
        except httpx.TransportError as error:
            self._target.fault("hangs", f"{hostile.name}: {type(error).__name__}")
            return
        finally:
            if self._canary.exists():
                self._canary.unlink()
                self._target.fault("ran", f"{hostile.kind}: {hostile.name} has run its code")
        if answer.status_code >= 500:
            self._save(f"{number}-{hostile.kind}", hostile.content)
        if answer.status_code != 201:
            return
        keep_upload(self._target, RED, hostile.kind, answer.json(), hostile.content)
        if self._target.has_worker and self._unfinished() < _UNFINISHED:
            ids = self._good | {f"{hostile.kind[:-1]}_id": answer.json()["id"]}
            job = self._client.post("/jobs", json=ids | TINY | {"priority": 100})
            if job.status_code == 202:
                kept = self._save(f"{number}-{hostile.kind}", hostile.content)
                how = f"{hostile.kind}: {hostile.name} ({kept})"
                self._target.hostile_jobs[job.json()["id"]] = how
                self._target.keep(f"/jobs/{job.json()['id']}", RED, **ids)

    def _unfinished(self) -> int:
        states = [
            self._client.get(f"/jobs/{job_id}").json().get("state")
            for job_id in list(self._target.hostile_jobs)[-2 * _UNFINISHED :]
        ]
        return sum(state not in FINAL for state in states)

    def _save(self, name: str, content: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(content)
        return path


class Routes:
    """Calls every route of the OpenAPI document with what schemathesis makes up from it."""

    def __init__(self, target: Target, source: random.Random) -> None:
        self._target, self._source = target, source
        schema = schemathesis.openapi.from_url(f"{target.url}/openapi.json")
        self._operations = [
            found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)
        ]

    def __call__(self) -> None:
        """Call one of them a few times."""
        operation = self._source.choice(self._operations)
        mode = self._source.choice(list(GenerationMode))
        number = self._source.randrange(2**32)

        @seed(number)
        @settings(
            max_examples=4,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def call(case: Case[Any]) -> None:
            self._call(case, f"schemathesis seed {number}, {mode.value}")

        # Some operations have nothing that could be wrong.
        with suppress(Exception):
            call()

    def _call(self, case: Case[Any], how: str) -> None:
        if self._target.is_over:
            return
        # The terms and keys of those who ask have to hold.
        admin = case.path.startswith(("/keys", "/tenants"))
        if case.path == "/tenants/{name}":
            case.path_parameters["name"] = "green"
        if isinstance(case.query, dict) and case.query.get("wait"):
            case.query["wait"] = 0
        own = self._target.some(self._source, RED)
        if own and case.method == "GET" and self._source.random() < 0.5:
            for name in case.path_parameters or {}:
                case.path_parameters[name] = own.rpartition("/")[2]
        key = self._target.keys["admin" if admin else RED]
        what = f"{case.method} {case.formatted_path} ({how})"
        try:
            answer = case.call(headers={"Authorization": f"Bearer {key}"}, timeout=60)
        except Exception as error:
            # What the client's own library refuses to send has not been asked.
            if "Timeout" in type(error).__name__ or "ConnectionError" in type(error).__name__:
                self._target.fault("hangs", f"{what}: {type(error).__name__}")
            return
        headers = {name.lower() for name in answer.headers}
        self._target.answered(answer.status_code, headers, what)


class Neighbours:
    """Two tenants: one looks for the other's things; both send the same request at once."""

    def __init__(self, target: Target, source: random.Random) -> None:
        self._target, self._source = target, source
        self._clients = {tenant: target.client(tenant) for tenant in TENANTS}
        self._ids = {
            tenant: good_ids(target, client, tenant) for tenant, client in self._clients.items()
        }
        self._turn = 0

    def __call__(self) -> None:
        """One of the things that neighbours do."""
        self._turn += 1
        acts: tuple[Callable[[], None], ...] = (
            self._look,
            self._collide,
            self._look,
            self._cancel,
            self._break_off,
            self._mix,
        )
        acts[self._turn % len(acts)]()

    def _look(self) -> None:
        path = self._target.some(self._source, RED)
        if path is None:
            return
        blue = self._clients[BLUE]
        kind, _, name = path.strip("/").partition("/")
        tries = [
            ("GET", path),
            ("DELETE", path),
            ("GET", f"{path}/events"),
            ("GET", f"{path}/report"),
            ("POST", f"{path}/cancel"),
            ("POST", f"{path}/retry"),
            ("GET", f"{path}/artifacts"),
        ]
        method, tried = self._source.choice(tries if kind == "jobs" else tries[:2])
        answer = blue.request(method, tried)
        if answer.status_code not in (404, 405, 429, 503):
            self._target.fault("wrong", f"{method} {tried} of another tenant: {answer.status_code}")
        listed = blue.get("/jobs", params={"limit": 100})
        if listed.status_code == 200 and name in listed.text:
            self._target.fault("wrong", f"GET /jobs lists another tenant's {name}")
        if kind == "models":
            stolen = blue.post("/jobs", json=self._ids[BLUE] | TINY | {"model_id": name})
            if stolen.status_code == 202:
                self._target.fault("wrong", f"a job on another tenant's {path}")

    def _collide(self) -> None:
        """The same request at once, from both tenants, and another one under its key."""
        key = f"siege-{self._source.randrange(2**64)}"
        bodies = {tenant: self._ids[tenant] | TINY | {"name": key} for tenant in TENANTS}

        def post(tenant: str) -> httpx.Response:
            headers = {"Idempotency-Key": key}
            return self._clients[tenant].post("/jobs", json=bodies[tenant], headers=headers)

        with ThreadPoolExecutor(8) as pool:
            answers = list(zip(TENANTS * 3, pool.map(post, TENANTS * 3), strict=True))
        for tenant in TENANTS:
            own = [answer for whose, answer in answers if whose == tenant]
            ids = {answer.json()["id"] for answer in own if answer.status_code == 202}
            odd = {a.status_code for a in own} - {202, 409, 429, 503}
            if len(ids) > 1 or odd:
                self._target.fault("wrong", f"one Idempotency-Key {key}: jobs {ids}, also {odd}")
            for job_id in ids:
                self._target.keep(f"/jobs/{job_id}", tenant, **self._ids[tenant], name=key)
                # One in eight is run; a worker has only so much time.
                if self._source.random() > 0.125:
                    self._clients[tenant].post(f"/jobs/{job_id}/cancel")
        other = self._clients[RED].post(
            "/jobs", json=bodies[RED] | {"name": "other"}, headers={"Idempotency-Key": key}
        )
        if other.status_code not in (409, 422, 429, 503) and any(
            answer.status_code == 202 for whose, answer in answers if whose == RED
        ):
            self._target.fault("wrong", f"{key} for another body answered {other.status_code}")

    def _cancel(self) -> None:
        """Cancel a job of one's own, twice; delete and forget every second one that has ended."""
        tenant = self._source.choice(TENANTS)
        path = self._target.some(self._source, tenant)
        if path is None or not path.startswith("/jobs/") or path[6:] in self._target.hostile_jobs:
            return
        client = self._clients[tenant]
        for _ in range(2):
            client.post(f"{path}/cancel")
        if self._source.random() < 0.5:
            self._target.forget(path)
            answer = client.delete(path)
            if answer.status_code == 409:
                self._target.keep(path, tenant)
            elif answer.status_code == 204 and client.get(path).status_code != 404:
                self._target.fault("wrong", f"{path} is there after it was deleted")

    def _break_off(self) -> None:
        """Begin an upload that never ends, plainly and by tus; then finish the latter."""
        client = self._clients[BLUE]

        def half() -> Any:
            yield b"--x\r\n"
            raise ConnectionAbortedError

        with suppress(ConnectionAbortedError, httpx.TransportError):
            headers = {"Content-Type": "multipart/form-data; boundary=x"}
            client.post("/models", content=half(), headers=headers)
        content = self._source.randbytes(self._source.randint(1, 5000))
        made = client.post("/uploads", headers=_TUS | {"Upload-Length": str(len(content))})
        if made.status_code != 201:
            return
        path, offset = made.headers["Location"], 0
        while offset < len(content):
            piece = content[offset : offset + 2000]
            headers = _TUS | {"Upload-Offset": str(offset)}
            wrong = _TUS | {"Upload-Offset": str(offset + 1)}
            if client.patch(path, content=piece, headers=wrong).status_code == 204:
                self._target.fault("wrong", f"PATCH {path} took a piece at a wrong offset")
            answer = client.patch(path, content=piece, headers=headers)
            if answer.status_code != 204:
                return
            offset += len(piece)
        received = client.get(path).json().get("received")
        if received != len(content):
            self._target.fault("wrong", f"{path} has {received} of {len(content)} bytes")
        client.delete(path, headers={"Tus-Resumable": "1.0.0"})

    def _mix(self) -> None:
        """Delete a file while a job on it is made: one of the two has to be refused."""
        client = self._clients[BLUE]
        ids = good_ids(self._target, client, BLUE)
        path = f"/models/{ids['model_id']}"
        self._target.forget(path)
        with ThreadPoolExecutor(2) as pool:
            deleted = pool.submit(client.delete, path)
            made = pool.submit(client.post, "/jobs", json=ids | TINY)
        both = (deleted.result().status_code, made.result().status_code)
        if both == (204, 202):
            self._target.fault("wrong", f"{path} was deleted, and a job on it made")
        if both[1] == 202:
            client.post(made.result().json()["links"]["cancel"])


def until_over(target: Target, attack: Callable[[], None], pause_s: float = 0.0) -> None:
    """Attack until the siege is over; a request without an answer is a fault."""
    while not target.is_over:
        try:
            attack()
        except httpx.TransportError as error:
            target.fault("hangs", f"{type(attack).__name__}: {type(error).__name__} {error}")
        time.sleep(pause_s)
