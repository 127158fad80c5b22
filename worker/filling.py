"""Fills a run folder: the inputs, the checkpoints to resume from, and the job's document."""

import logging
from pathlib import Path
from typing import Any

from jobstore import uploads
from jobstore.objects import blob_key
from jobstore.tables import Dataset, Job, Model
from worker.access import Access
from worker.cache import InputCache
from worker.folder import RunFolder, write_json

log = logging.getLogger(__name__)

_MODEL_SUFFIX = {"safetensors": ".safetensors", "torch": ".pt", "onnx": ".onnx"}


class StartGone(Exception):
    """The denser network that a job was to start from is no longer there."""


class Filling:
    """Fills the folder of one attempt."""

    def __init__(self, access: Access, job: Job, folder: RunFolder, cache: InputCache) -> None:
        self._access, self._job, self._folder, self._cache = access, job, folder, cache

    def inputs(self) -> tuple[Model, Dataset]:
        """Return the rows of the job's model and data set."""

        def read() -> tuple[Model, Dataset]:
            with self._access.database.read() as session:
                model = uploads.get_model(session, self._job.model_id)
                return model, uploads.get_dataset(session, self._job.dataset_id)

        return self._access.patiently("reading the job's inputs", read)

    def fill(self, *, device: str, threads: int | None) -> Path | None:
        """Fill the folder; returns the newest checkpoint that is in it.

        Raises `StartGone`.
        """
        model, dataset = self.inputs()
        inputs = self._folder.inputs
        model_path = inputs / f"model{_MODEL_SUFFIX[model.format]}"
        self._fetch(model, model_path)
        self._fetch(dataset, inputs / "dataset")
        start = self._fetch_start()
        newest = None
        for key in reversed(self._job.checkpoint_keys):
            newest = self._folder.checkpoints / Path(key).name
            self._fetch_checkpoint(key, newest)
        document = {
            "job_id": self._job.id,
            "attempt": self._access.attempt.number,
            "spec": self._job.spec,
            "model": {
                "path": str(model_path.relative_to(self._folder.path)),
                "sha256": model.sha256,
                "architecture": model.architecture,
                "normalization": model.normalization,
            },
            "dataset": {"path": "inputs/dataset", "sha256": dataset.sha256},
            "start": start,
            "products": True,
            "device": device,
            "processes": max(1, self._job.gpus),
            "threads": threads,
        }
        write_json(self._folder.job, document)
        return newest

    def _fetch(self, upload: Model | Dataset, path: Path) -> None:
        self._fetch_blob(upload.tenant_id, upload.sha256, path)

    def _fetch_blob(self, tenant: str, sha256: str, path: Path) -> None:
        key = blob_key(sha256, tenant)
        self._cache.fetch(
            tenant,
            sha256,
            path,
            lambda to: self._access.fetch(key, to),
            until=self._access.guard.stopped.is_set,
        )

    def _fetch_start(self) -> dict[str, Any] | None:
        """Fetch the denser network that the job starts from; returns what the child is told."""
        sha256 = self._job.start_sha256
        if sha256 is None:
            return None
        path = self._folder.inputs / "denser.atmc"
        try:
            self._fetch_blob(self._job.tenant_id, sha256, path)
        except FileNotFoundError as error:
            raise StartGone from error
        return {
            "path": str(path.relative_to(self._folder.path)),
            "sha256": sha256,
            "job_id": self._job.start_from,
        }

    def _fetch_checkpoint(self, key: str, path: Path) -> None:
        """Put a stored checkpoint into the folder; one that is gone is treated as a broken one."""
        try:
            self._access.fetch(key, path)
        except FileNotFoundError:
            path.unlink(missing_ok=True)
            log.warning("the checkpoint %s is gone", key, extra=self._access.attempt.ids)
