"""The calls of the service as methods."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from atmc_client.attestation import (
    ATTESTATION,
    MOST_BYTES,
    NotVerified,
    TrustedKey,
    check_digest,
    check_job,
    read_attestation,
    read_keys,
)
from atmc_client.errors import ApiError
from atmc_client.transfer import fetch
from atmc_client.transport import Content, Transport, events_of

DEFAULT_SERVER = "http://127.0.0.1:8000"
FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})
LONG_POLL_S = 30
POLL_S = 0.5
NO_MORE = 204
PAGE = 100

Document = dict[str, Any]
"""A JSON object as the service sends it; `/docs` on the server describes its fields."""

OnUpdate = Callable[[Document], None]
OnBytes = Callable[[str, int, int], None]


class Client:
    """One compression service; `url` defaults to `ATMC_SERVER`, else to this machine's port 8000.

    `key` defaults to `ATMC_API_KEY`; a service that only its own machine reaches may ask for none.
    Every method raises `ApiError` when the service refuses and `ServerUnreachable` when there is
    no answer. Lost connections are retried with backoff; posts carry an Idempotency-Key, so that
    a repeated one does its work once.
    """

    def __init__(self, url: str | None = None, key: str | None = None) -> None:
        self._transport = Transport(
            url or os.environ.get("ATMC_SERVER") or DEFAULT_SERVER,
            key or os.environ.get("ATMC_API_KEY"),
        )

    @property
    def url(self) -> str:
        """The server's address."""
        return self._transport.url

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def submit(
        self,
        model: str | Path,
        architecture: str,
        dataset: str | Path,
        spec: Mapping[str, Any],
        *,
        normalization: Mapping[str, Sequence[float]] | None = None,
        name: str | None = None,
        priority: int | None = None,
        time_limit_s: float | None = None,
    ) -> Document:
        """Send a model, its data set and what is wanted of it; returns the queued job.

        `model` is a `.safetensors` or `.pt` state dict of the known `architecture`, `dataset` an
        `.npz`; both are streamed. `normalization` is `{"mean": [...], "std": [...]}`, a number a
        channel, for images in [0, 1]. Of your own waiting jobs that with the highest `priority`
        (0 by default, -100 to 100) is taken first. Raises OSError if a file cannot be read.
        """
        given = {
            "architecture": architecture,
            "normalization": normalization,
            "name": name,
            "priority": priority,
            "time_limit_s": time_limit_s,
        }
        whole = {key: value for key, value in given.items() if value is not None} | dict(spec)
        with ExitStack() as files:
            model_file = files.enter_context(Path(model).open("rb"))
            dataset_file = files.enter_context(Path(dataset).open("rb"))

            def parts() -> Document:
                for file in (model_file, dataset_file):
                    file.seek(0)
                # The spec comes first, so that a wrong one is refused before the files are sent.
                return {
                    "files": {
                        "spec": (None, json.dumps(whole).encode(), "application/json"),
                        "model": (Path(model).name, model_file, "application/octet-stream"),
                        "dataset": (Path(dataset).name, dataset_file, "application/octet-stream"),
                    }
                }

            job: Document = self._transport.post("/jobs", parts)
            return job

    def get_job(self, job_id: str, *, wait_s: int | None = None) -> Document:
        """The job; with `wait_s` not before its state changes or that many seconds pass."""
        job: Document = self._transport.get(f"/jobs/{job_id}", wait=wait_s)
        return job

    def list_jobs(self, *, state: str | None = None, limit: int = 20) -> list[Document]:
        """The newest jobs, at most `limit` of them, of one `state` or of all."""
        jobs: list[Document] = []
        cursor: str | None = None
        while len(jobs) < limit:
            page = self._transport.get(
                "/jobs", state=state, limit=min(limit - len(jobs), PAGE), cursor=cursor
            )
            jobs += page["data"]
            cursor = page["next"]
            if not page["has_more"]:
                break
        return jobs

    def wait(
        self, job_id: str, *, on_update: OnUpdate | None = None, timeout_s: float | None = None
    ) -> Document:
        """Wait until the job has ended, whichever way; returns it.

        `on_update` is called with the job about twice a second. Raises TimeoutError after
        `timeout_s`; the job itself goes on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        job = self.get_job(job_id)
        while job["state"] not in FINAL_STATES:
            left = LONG_POLL_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"job {job_id} is still {job['state']} after {timeout_s} s")
            if on_update is None:
                job = self.get_job(job_id, wait_s=max(1, min(LONG_POLL_S, int(left))))
            else:
                on_update(job)
                time.sleep(min(POLL_S, left))
                job = self.get_job(job_id)
        if on_update is not None:
            on_update(job)
        return job

    def events(self, job_id: str, *, after: int = 0, follow: bool = False) -> Iterator[Document]:
        """The events of the job with a number above `after`, in order.

        With `follow` the iterator goes on until the job has ended, and is told of each event as it
        happens.
        """
        if follow:
            yield from self._follow(job_id, after)
            return
        more = True
        while more:
            page = self._transport.get(f"/jobs/{job_id}/events", after=after)
            for event in page["data"]:
                after = event["seq"]
                yield event
            more = page["has_more"]

    def _follow(self, job_id: str, after: int) -> Iterator[Document]:
        while True:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
            content: Content = partial(dict[str, Any], headers=headers)
            # Streams break off now and then, some on purpose; the next one goes on from there.
            with (
                suppress(httpx.TransportError),
                self._transport.exchange("GET", f"/jobs/{job_id}/events", content) as response,
            ):
                if response.status_code == NO_MORE:
                    return
                for told in events_of(response):
                    event: Document = told.json()
                    after = event["seq"]
                    yield event
            time.sleep(POLL_S)

    def report(self, job_id: str) -> Document:
        """The report of a job that succeeded: accuracies, sizes, and every layer's share."""
        report: Document = self._transport.get(f"/jobs/{job_id}/report")
        return report

    def cancel(self, job_id: str) -> Document:
        """Ask for the job's end; returns it, perhaps not yet `cancelled`."""
        job: Document = self._transport.post(f"/jobs/{job_id}/cancel")
        return job

    def retry(self, job_id: str) -> Document:
        """Queue a failed or cancelled job again, at its last checkpoint; returns it."""
        job: Document = self._transport.post(f"/jobs/{job_id}/retry")
        return job

    def delete_job(self, job_id: str) -> None:
        """Delete a job that has ended, with all that it made."""
        self._transport.delete(f"/jobs/{job_id}")

    def artifacts(self, job_id: str) -> list[Document]:
        """The files that the job made, each with `name`, `bytes` and `sha256`."""
        artifacts: list[Document] = self._transport.get(f"/jobs/{job_id}/artifacts")["data"]
        return artifacts

    def download(
        self,
        job_id: str,
        folder: str | Path = ".",
        names: Sequence[str] = (),
        *,
        on_bytes: OnBytes | None = None,
        keys: Sequence[TrustedKey] = (),
    ) -> list[Path]:
        """Fetch the job's files (all, or those named) into `folder`; returns their paths.

        The signed attestation comes along, if there is one. With `keys` to trust nothing is fetched
        before the files, as the service lists them, are those that were signed with one of them;
        otherwise `NotVerified` is raised, and what is there stays as it is.

        A file is complete and its SHA-256 checked when it appears under its name; until then it
        is `NAME.part`, from which an interrupted download goes on. `on_bytes` is called with the
        name, the bytes there and the bytes in all. Raises `DigestMismatch`, and `ApiError` for a
        name that the job has not made.
        """
        listed = {artifact["name"]: artifact for artifact in self.artifacts(job_id)}
        for name in names:
            if name not in listed:
                known = ", ".join(listed) or "none yet"
                raise ApiError(404, "not_found", name, f"{job_id} has no such file, only: {known}")
        wanted = list(dict.fromkeys(names or listed))
        if keys and wanted:
            self._check(job_id, [listed[name] for name in wanted], listed.get(ATTESTATION), keys)
        if ATTESTATION in listed and ATTESTATION not in wanted:
            wanted.append(ATTESTATION)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return [fetch(self._transport, listed[name], folder, on_bytes) for name in wanted]

    def _check(
        self,
        job_id: str,
        wanted: Sequence[Document],
        signed: Document | None,
        keys: Sequence[TrustedKey],
    ) -> None:
        """Raise `NotVerified` unless the listed files are those of the job's attestation."""
        if signed is None:
            raise NotVerified("unsigned", f"{job_id} has no {ATTESTATION}: nobody signed its files")
        content = self.attestation(job_id)
        if hashlib.sha256(content).hexdigest() != signed["sha256"]:
            raise NotVerified("altered", f"{ATTESTATION} of {job_id} is not the one that is listed")
        statement = read_attestation(content, keys)
        check_job(statement, job_id)
        for each in wanted:
            if each["name"] != ATTESTATION:
                check_digest(statement, each["name"], each["sha256"], each["bytes"])

    def attestation(self, job_id: str) -> bytes:
        """The signed statement on the job's files; raises `ApiError` if there is none."""
        path = f"/jobs/{job_id}/artifacts/{ATTESTATION}"
        with self._transport.exchange("GET", path, dict) as response:
            content = b""
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MOST_BYTES:
                    break  # It is no attestation, and is refused as such.
            return content

    def signing_keys(self) -> list[TrustedKey]:
        """The public keys that the service lists: only as trustworthy as the way to it.

        Raises ValueError for a key that is none, and `NoVerifier`.
        """
        listed = self._transport.get("/signing-keys")["data"]
        return [
            key
            for each in listed
            for key in read_keys(each["public_key"], f"listed by {self.url}: trusts who answers")
        ]

    def architectures(self) -> list[Document]:
        """The networks that may be sent."""
        return self._catalogue("architectures")

    def methods(self) -> list[Document]:
        """The methods, each with the JSON Schema of its spec."""
        return self._catalogue("methods")

    def attacks(self) -> list[Document]:
        """The attacks that models are trained and tested with."""
        return self._catalogue("attacks")

    def create_key(
        self,
        tenant: str | None,
        scopes: Sequence[str],
        *,
        expires_at: datetime | None = None,
        addresses: Sequence[str] = (),
    ) -> Document:
        """Make a key of the tenant (an admin's call); its `key` is shown in this answer only.

        Without a tenant it is the `default` one's, or the caller's own if they are its admin.
        `addresses` are the networks (CIDR) that it may be shown from; none is anywhere.
        """
        new: Document = {"scopes": list(scopes)}
        if tenant is not None:
            new["tenant"] = tenant
        if expires_at is not None:
            new["expires_at"] = expires_at.isoformat()
        if addresses:
            new["addresses"] = list(addresses)
        key: Document = self._transport.post("/keys", lambda: {"json": new})
        return key

    def keys(self) -> list[Document]:
        """The keys of all tenants or of one's own, without the keys themselves: an admin's call."""
        keys: list[Document] = self._transport.get("/keys")["data"]
        return keys

    def revoke_key(self, key_id: str) -> None:
        """Revoke the key (an admin's call)."""
        self._transport.delete(f"/keys/{key_id}")

    def audit(self, *, limit: int = 100, **which: str | None) -> list[Document]:
        """The newest records of the audit log; `which` are the filters of `GET /audit`."""
        records: list[Document] = []
        cursor: str | None = None
        while len(records) < limit:
            left = min(limit - len(records), 1000)
            page = self._transport.get("/audit", limit=left, cursor=cursor, **which)
            records += page["data"]
            cursor = page["next"]
            if not page["has_more"]:
                break
        return records

    def audit_export(self, **which: str | None) -> Iterator[str]:
        """The lines of the audit log, oldest first, as `atmc audit verify` reads them."""
        given = {name: value for name, value in which.items() if value is not None}
        content: Content = partial(dict[str, Any], params=given | {"format": "jsonl"})
        with self._transport.exchange("GET", "/audit", content) as response:
            yield from response.iter_lines()

    def audit_heads(self) -> list[Document]:
        """Where the chains of the audit log stand: keep it elsewhere, and verify against it."""
        heads: list[Document] = self._transport.get("/audit/heads")["data"]
        return heads

    def tenants(self) -> list[Document]:
        """All tenants, also those that are being erased (an admin's call)."""
        tenants: list[Document] = self._transport.get("/tenants")["data"]
        return tenants

    def erase_tenant(self, name: str) -> None:
        """Have the tenant erased with all that is its own (an admin's call); it takes seconds."""
        self._transport.delete(f"/tenants/{name}")

    def _catalogue(self, kind: str) -> list[Document]:
        entries: list[Document] = self._transport.get(f"/{kind}")["data"]
        return entries
