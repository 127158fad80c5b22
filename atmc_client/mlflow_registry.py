"""What a job made as a run of MLflow, and as a version of a registered model.

The run has the spec as parameters, the headline as metrics, and report, card and networks as
artifacts. The version's source is the run's artifacts: the ONNX file and `model.atmc` among them.
"""

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Document = Mapping[str, Any]

_EXPERIMENT = "atmc"
_FOLDER = "model"
# What MLflow's servers bear of a parameter's value.
_LONGEST_PARAM = 6000
_JOB = "atmc.job_id"


class NotRegistered(Exception):
    """MLflow did not take it; the message says why and what to do."""


@dataclass(frozen=True)
class Registered:
    """Where it is now: the registered model's name and version, and the run's id."""

    name: str
    version: str
    run_id: str


def is_installed() -> bool:
    """Whether MLflow's client is there; it is the extra `mlflow`."""
    return importlib.util.find_spec("mlflow") is not None


def register(uri: str, name: str, job: Document, files: Sequence[Path], service: str) -> Registered:
    """Log a job that has succeeded as a run at `uri`, and register it as a version of `name`.

    `files` are all that the run gets; `service` is the URL of who made them. A job that is already
    a version of `name` stays that version, and nothing is logged again. A run that could not be
    finished is marked as failed.

    Raises `NotRegistered` if MLflow refuses or does not answer.
    """
    # Standard output is the caller's, and who does not answer is said within a minute.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    # Imported here: it takes a second, and the extra.
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    try:
        for version in client.search_model_versions(f"name = '{name}'"):
            if version.tags.get(_JOB) == job["id"]:
                return Registered(name, str(version.version), str(version.run_id))
        experiment = client.get_experiment_by_name(_EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else None
        if experiment_id is None:
            experiment_id = client.create_experiment(_EXPERIMENT)
        tags = _tags(job, service)
        run = client.create_run(experiment_id, run_name=job["name"] or job["id"], tags=tags)
        run_id: str = run.info.run_id
        done = False
        try:
            version = _fill(client, run, name, job, files, tags)
            done = True
        finally:
            client.set_terminated(run_id, "FINISHED" if done else "FAILED")
    except MlflowException as error:
        raise NotRegistered(f"MLflow at {uri} refused: {error.message}") from error
    return Registered(name, str(version.version), run_id)


def _fill(
    client: Any, run: Any, name: str, job: Document, files: Sequence[Path], tags: dict[str, str]
) -> Any:
    from mlflow.exceptions import MlflowException

    run_id = run.info.run_id
    for key, value in _leaves(job["spec"]):
        client.log_param(run_id, key, str(value)[:_LONGEST_PARAM])
    for key, value in job["headline"].items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            client.log_metric(run_id, key, value)
    for file in files:
        client.log_artifact(run_id, str(file), _FOLDER)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{run.info.artifact_uri}/{_FOLDER}"
    return client.create_model_version(name, source, run_id, tags=tags)


def _tags(job: Document, service: str) -> dict[str, str]:
    return {
        _JOB: job["id"],
        "atmc.service": service,
        "atmc.method": job["spec"]["method"],
        "atmc.model_id": job["model_id"],
        "atmc.dataset_id": job["dataset_id"],
    }


def _leaves(value: Document, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, f"{above}{name}.")
        else:
            yield f"{above}{name}", inner
