"""A job as a task of a pipeline that polls, in the manner of Airflow's operators and sensors.

The pipeline's worker is not held while a job runs: `execute` queues the job and returns its id,
which the pipeline keeps; `poke` asks whether it has ended, now and then, from any worker.

    class Compress(BaseOperator):                      # Airflow's
        def execute(self, context):
            return CompressOperator(...).execute(name=context["run_id"])
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atmc_client import Client


class JobFailed(Exception):
    """The job ended otherwise than hoped; the message says how."""


@dataclass(frozen=True)
class CompressOperator:
    """Compresses a network.

    Attributes:
        model, architecture, dataset, spec: as `Client.submit` takes them.
        url, key: of the service; by default those of the environment.
    """

    model: Path
    architecture: str
    dataset: Path
    spec: Mapping[str, Any]
    url: str | None = None
    key: str | None = None

    def execute(self, name: str | None = None) -> str:
        """Queue the job; returns its id, to be kept by the pipeline."""
        with Client(self.url, self.key) as client:
            job = client.submit(self.model, self.architecture, self.dataset, self.spec, name=name)
        return job["id"]

    def poke(self, job_id: str) -> bool:
        """Tell whether the job has succeeded; raises `JobFailed` if it will not.

        A job whose figures miss a threshold of its spec's `accept` has failed here.
        """
        with Client(self.url, self.key) as client:
            job = client.get_job(job_id)
        if job["state"] in ("failed", "cancelled"):
            error = job["error"] or {"code": job["state"], "message": "somebody cancelled it"}
            raise JobFailed(f"{job_id}: {error['code']}: {error['message']}")
        if job["state"] != "succeeded":
            return False
        missed = [each for each in job["acceptance"] or [] if not each["passed"]]
        if missed:
            said = ", ".join(f"{each['name']} {each['figure']:.4g}" for each in missed)
            raise JobFailed(f"{job_id} misses its thresholds: {said}")
        return True
