"""The calls on jobs."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from atmc_client.aio.calls import Body
from atmc_client.aio.uploads import Uploads
from atmc_client.types.answers import Event, Job, NewJob
from atmc_client.types.report import Report
from atmc_client.uploads import OnBytes, is_large


class Jobs(Uploads):
    """The calls on jobs."""

    async def submit(
        self,
        model: str | Path,
        architecture: str | None,
        dataset: str | Path,
        spec: Mapping[str, Any],
        *,
        normalization: Mapping[str, Sequence[float]] | None = None,
        name: str | None = None,
        priority: int | None = None,
        time_limit_s: float | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        webhook: Mapping[str, Any] | None = None,
        on_bytes: OnBytes | None = None,
    ) -> NewJob:
        """Send a model, its data set and what is wanted of it; returns the queued job.

        `model` is a `.safetensors` or `.pt` state dict of the known `architecture`, or an ONNX
        file, `dataset` a data set's file. What the service has already is not sent again: a hash
        tells. Either may be the id of what was uploaded before (`mdl_...`, `dst_...`); the
        `architecture` of a model's id is None. `normalization` is `{"mean": [...],
        "std": [...]}`, a number a channel, for images in [0, 1]. Of your own waiting jobs that with
        the highest `priority` (0 by default, -100 to 100) is taken first. Raises OSError if a file
        cannot be read, ValueError for a model's file without an architecture.
        """
        given = {
            "name": name,
            "priority": priority,
            "time_limit_s": time_limit_s,
            "labels": labels and dict(labels),
            "metadata": metadata and dict(metadata),
            "webhook": webhook and dict(webhook),
        }
        wanted = {key: value for key, value in given.items() if value is not None} | dict(spec)
        model, dataset = await self.known(model, architecture, dataset, normalization)
        files = [each for each in (model, dataset) if isinstance(each, Path)]
        if isinstance(model, Path) and isinstance(dataset, Path) and not any(map(is_large, files)):
            how = {"architecture": architecture, "normalization": normalization}
            network = {key: value for key, value in how.items() if value is not None}
            return await self._submit_files(model, dataset, network | wanted, on_bytes)
        async with self.sent(model, architecture, dataset, normalization, on_bytes) as ids:
            job: NewJob = await self._transport.post("/jobs", lambda: {"json": ids | wanted})
            return job

    async def _submit_files(
        self, model: Path, dataset: Path, whole: Body, on_bytes: OnBytes | None
    ) -> NewJob:
        with ExitStack() as files:
            model_file = files.enter_context(model.open("rb"))
            dataset_file = files.enter_context(dataset.open("rb"))

            def parts() -> Body:
                for file in (model_file, dataset_file):
                    file.seek(0)
                # The spec comes first, so that a wrong one is refused before the files are sent.
                return {
                    "files": {
                        "spec": (None, json.dumps(whole).encode(), "application/json"),
                        "model": (model.name, model_file, "application/octet-stream"),
                        "dataset": (dataset.name, dataset_file, "application/octet-stream"),
                    }
                }

            job: NewJob = await self._transport.post("/jobs", parts)
        if on_bytes is not None:
            for file in (model, dataset):
                on_bytes(file.name, file.stat().st_size, file.stat().st_size)
        return job

    async def get_job(self, job_id: str, *, wait_s: int | None = None) -> Job:
        """The job; with `wait_s` not before its state changes or that many seconds pass."""
        job: Job = await self._get(f"/jobs/{job_id}", wait=wait_s)
        return job

    async def list_jobs(
        self, *, state: str | None = None, limit: int = 20, sweep_id: str | None = None
    ) -> list[Job]:
        """The newest jobs, at most `limit` of them, of one `state`, of one sweep, or of all."""
        return await self._list("/jobs", limit, state=state, sweep_id=sweep_id)

    async def wait(
        self,
        job_id: str,
        *,
        on_update: Callable[[Job], None] | None = None,
        timeout_s: float | None = None,
    ) -> Job:
        """Wait until the job has ended, whichever way; returns it.

        `on_update` is called with the job about twice a second. Raises TimeoutError after
        `timeout_s`; the job itself goes on.
        """
        job: Job = await self._wait(f"/jobs/{job_id}", on_update, timeout_s)
        return job

    def events(self, job_id: str, *, after: int = 0, follow: bool = False) -> AsyncIterator[Event]:
        """The events of the job with a number above `after`, in order.

        With `follow` the iterator goes on until the job has ended, and is told of each event as it
        happens.
        """
        return self._events(f"/jobs/{job_id}", after, follow)

    async def report(self, job_id: str) -> Report:
        """The report of a job that succeeded: accuracies, sizes, and every layer's share."""
        report: Report = await self._transport.get(f"/jobs/{job_id}/report")
        return report

    async def cancel(self, job_id: str) -> Job:
        """Ask for the job's end; returns it, perhaps not yet `cancelled`."""
        job: Job = await self._transport.post(f"/jobs/{job_id}/cancel")
        return job

    async def retry(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again, at its last checkpoint; returns it."""
        job: Job = await self._transport.post(f"/jobs/{job_id}/retry")
        return job

    async def delete_job(self, job_id: str) -> None:
        """Delete a job that has ended, with all that it made."""
        await self._transport.delete(f"/jobs/{job_id}")
