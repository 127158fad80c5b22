# Written from atmc_client/aio/jobs.py by `make generate`: edit that.
"""The calls on jobs."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Unpack

from atmc_client.sync.calls import Body, described, filters, given, network
from atmc_client.sync.inputs import Inputs
from atmc_client.types.answers import Event, Job, NewJob, Resources
from atmc_client.types.report import Report
from atmc_client.types.requests import Description, NewResults, NewWebhook, Sort
from atmc_client.uploads import Given, OnBytes, is_large


class Jobs(Inputs):
    """The calls on jobs."""

    def submit(
        self,
        model: Given,
        architecture: str | None,
        dataset: Given,
        spec: Mapping[str, Any],
        *,
        normalization: Mapping[str, Sequence[float]] | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        priority: int | None = None,
        time_limit_s: float | None = None,
        resources: Resources | None = None,
        start_from: str | None = None,
        results: str | NewResults | None = None,
        webhook: NewWebhook | None = None,
        on_bytes: OnBytes | None = None,
    ) -> NewJob:
        """Send a model, its data set and what is wanted of it.

        What the service has already is not sent again: a hash tells. The refusal of a spec leaves
        nothing behind but files of 8 MiB or more, which the next call then finds there.

        Example:
            ```python
            spec = {
                "method": "atmc",
                "target": {"k": 4_000, "bits": 8},
                "threat": {"norm": "linf", "epsilon": 0.3},
            }
            job = client.submit("model.safetensors", "lenet", "mnist.npz", spec)
            ```

        Args:
            model: a `.safetensors` or `.pt` state dict or an ONNX file, its URI, as for
                `upload_model`, or the id of a model that was uploaded before (`mdl_...`).
            architecture: the network's name, see `architectures`; None of a model's id.
            dataset: a data set's file, its URI, or the id of one (`dst_...`).
            spec: what the method is to do, by its JSON Schema, see `methods`. Other fields of
                `POST /jobs` may stand beside it.
            normalization: `{"mean": [...], "std": [...]}`, a number a channel, for images in
                [0, 1]; None leaves images as they are, or is that of the model's id.
            name: what people call the job.
            labels: names and values by which lists can be filtered.
            metadata: any JSON object of yours, kept with the job.
            priority: of your own waiting jobs that with the highest is taken first: -100 to 100,
                0 by default.
            time_limit_s: seconds after which the job fails with `time_limit`.
            resources: `{"device": "gpu", "gpus": 2}`: where it is to run; anywhere by default.
            start_from: the id of a denser job on the same files, whose network it starts from.
            results: the `s3://` URI of a folder that the job's files are put to, too, once it has
                succeeded, see `connections`.
            webhook: `{"url": ..., "events": [...]}`: who is told of this job. The answer's
                `webhook` has the `secret` that signs messages.
            on_bytes: called with a file's name, its bytes there and its bytes in all.

        Returns:
            The queued job.

        Raises:
            InvalidRequest: a file or the spec cannot be used; `param` says what of it.
            RateLimited: the tenant's quota is used up.
            OSError: a file cannot be read.
            ValueError: the architecture of a model's file is missing.
        """
        fields = given(
            priority=priority,
            time_limit_s=time_limit_s,
            resources=resources,
            start_from=start_from,
            results={"uri": results} if isinstance(results, str) else results,
            webhook=webhook,
        )
        wanted = described(name, labels, metadata) | fields | dict(spec)
        model, dataset = self._known(model, architecture, dataset, normalization)
        large = is_large(model) or is_large(dataset)
        if isinstance(model, Path) and isinstance(dataset, Path) and not large:
            whole = network(architecture, normalization) | wanted
            return self._submit_files(model, dataset, whole, on_bytes)
        with self._sent(model, architecture, dataset, normalization, on_bytes) as inputs:
            job: NewJob = self._transport.post("/jobs", lambda: {"json": inputs | wanted})
            return job

    def _submit_files(
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

            job: NewJob = self._transport.post("/jobs", parts)
        if on_bytes is not None:
            for file in (model, dataset):
                on_bytes(file.name, file.stat().st_size, file.stat().st_size)
        return job

    def get_job(self, job_id: str, *, wait_s: int | None = None) -> Job:
        """The job as it is now.

        Args:
            job_id: which.
            wait_s: do not answer before its state changes or so many seconds pass, 1 to 60.

        Raises:
            NotFound: there is no such job.
        """
        job: Job = self._get(f"/jobs/{job_id}", wait=wait_s)
        return job

    def list_jobs(
        self,
        *,
        state: str | None = None,
        method: str | None = None,
        q: str | None = None,
        sweep_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        sort: Sort | None = None,
        limit: int = 20,
    ) -> list[Job]:
        """The jobs, the newest first.

        Args:
            state: only of this state, `running` for instance.
            method: only of this method.
            q: a part of the name or the id.
            sweep_id: only the trials of this sweep.
            labels: only those that have all of these.
            created_after: only those that were made then or later; with a time zone.
            created_before: only those that were made before.
            sort: another order: `created_at`, `name` or `-name`.
            limit: at most so many.

        Raises:
            InvalidRequest: one of them cannot be.
        """
        own = {"state": state, "method": method, "q": q, "sweep_id": sweep_id}
        which = filters(labels, created_after, created_before, sort) | own
        return self._list("/jobs", limit, which)

    def change_job(self, job_id: str, **changes: Unpack[Description]) -> Job:
        """Change what is said of the job, which may have ended; returns it.

        Args:
            job_id: which.
            changes: `name`, `labels` or `metadata`, each as a whole; a name of None is none.

        Raises:
            InvalidRequest: one of them is too long.
            NotFound: there is no such job.
        """
        job: Job = self._transport.patch(f"/jobs/{job_id}", changes)
        return job

    def wait(
        self,
        job_id: str,
        *,
        on_update: Callable[[Job], None] | None = None,
        timeout_s: float | None = None,
    ) -> Job:
        """Wait until the job has ended, whichever way.

        Args:
            job_id: which.
            on_update: called with the job about twice a second.
            timeout_s: wait no longer than so many seconds.

        Returns:
            The job, `succeeded`, `failed` or `cancelled`; of one that failed `error` says why.

        Raises:
            TimeoutError: after `timeout_s`; the job itself goes on.
            NotFound: there is no such job, or it was deleted meanwhile.
        """
        job: Job = self._wait(f"/jobs/{job_id}", on_update, timeout_s)
        return job

    def events(self, job_id: str, *, after: int = 0, follow: bool = False) -> Iterator[Event]:
        """What happened to the job, in order.

        Example:
            ```python
            for event in client.events(job["id"], follow=True):
                if event["type"] == "metric":
                    print(event["epoch"], event["loss"])
            ```

        Args:
            job_id: which.
            after: only events with a `seq` above this.
            follow: go on, with each event as it happens, until the job has ended.

        Raises:
            NotFound: there is no such job.
        """
        return self._events(f"/jobs/{job_id}", after, follow)

    def report(self, job_id: str) -> Report:
        """The report of a job that succeeded: accuracies, sizes, and every layer's share.

        Args:
            job_id: which.

        Raises:
            NotFound: there is no such job, or it has not succeeded.
        """
        report: Report = self._transport.get(f"/jobs/{job_id}/report")
        return report

    def cancel(self, job_id: str) -> Job:
        """Ask for the job's end.

        Args:
            job_id: which.

        Returns:
            The job, perhaps not yet `cancelled`: a worker that has it needs a moment.

        Raises:
            Conflict: it has already ended.
            NotFound: there is no such job.
        """
        job: Job = self._transport.post(f"/jobs/{job_id}/cancel")
        return job

    def retry(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again, at its last checkpoint.

        Args:
            job_id: which.

        Returns:
            The queued job.

        Raises:
            Conflict: it has not failed and was not cancelled, or cannot go on.
            NotFound: there is no such job.
        """
        job: Job = self._transport.post(f"/jobs/{job_id}/retry")
        return job

    def delete_job(self, job_id: str) -> None:
        """Delete a job that has ended, with all that it made.

        Args:
            job_id: which.

        Raises:
            Conflict: it has not ended: `cancel` it first.
            NotFound: there is no such job.
        """
        self._transport.delete(f"/jobs/{job_id}")
