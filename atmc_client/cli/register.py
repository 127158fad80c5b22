"""`atmc register`: what a job made, in the form in which others keep models."""

import re
import shutil
import tempfile
from pathlib import Path

import click

from atmc_client import mlflow_registry
from atmc_client.attestation import TrustedKey
from atmc_client.cli.output import err
from atmc_client.cli.verify import key_option, trusted
from atmc_client.client import Client
from atmc_client.mlflow_registry import NotRegistered
from atmc_client.types.answers import Job

# What a repository of Hugging Face's style calls a file that a job calls otherwise.
_NAMES = {"model_card.md": "README.md"}
_WANTED = (
    "model_card.md",
    "model.safetensors",
    "model.onnx",
    "model.int8.onnx",
    "model.c",
    "model.atmc",
    "report.json",
    "report.html",
    "attestation.dsse.json",
)


@click.command()
@click.argument("job")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a repository: a folder that is not there yet, or is empty.",
)
@click.option(
    "--mlflow",
    "uri",
    metavar="URI",
    help="Log a run to this MLflow server, and register a version of --name.",
)
@click.option("--name", help="With --mlflow: the registered model's name.")
@key_option
@click.option("--unverified", is_flag=True, help="Do not ask who signed the files.")
@click.pass_obj
def register(
    server: str,
    job: str,
    folder: Path | None,
    uri: str | None,
    name: str | None,
    key_files: tuple[Path, ...],
    unverified: bool,
) -> int:
    """Put what a job made where models are kept: a repository, or MLflow's registry.

    \b
        atmc register JOB --folder lenet-small
        huggingface-cli upload my-team/lenet-small lenet-small
        atmc register JOB --mlflow https://mlflow.example.com --name lenet-small

    A repository is in Hugging Face's style: card (README.md, with figures that a hub shows),
    weights, exports, report. All files arrive, or none.

    MLflow gets a run with the spec as parameters, the figures as metrics and the files as
    artifacts, and a version with model.onnx, model.atmc and tags that name the job. The same job
    again is the same version. It needs the extra `mlflow`; MLflow's own variables
    (MLFLOW_TRACKING_TOKEN, ...) sign in.
    """
    if (folder is None) == (uri is None):
        raise click.UsageError("name one place: --folder DIR, or --mlflow URI with --name NAME")
    if (uri is None) != (name is None):
        raise click.UsageError("--mlflow and --name go together")
    keys = [] if unverified else trusted(key_files)
    if folder is not None:
        _write_repository(server, job, folder, keys)
    else:
        assert uri is not None
        assert name is not None
        _register_in_mlflow(server, job, uri, name, keys)
    if not keys and not unverified:
        err.print("not verified: no key to trust is known, see atmc verify --help")
    return 0


def _write_repository(server: str, job: str, folder: Path, keys: list[TrustedKey]) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise click.UsageError(f"{folder} is not empty: name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder, so that it can be renamed into place.
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with Client(server) as client:
            _fetch(client, job, aside, keys)
        for name, called in _NAMES.items():
            (aside / name).rename(aside / called)
        aside.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for path in sorted(folder.iterdir()):
        click.echo(path)


def _register_in_mlflow(server: str, job: str, uri: str, name: str, keys: list[TrustedKey]) -> None:
    if not mlflow_registry.is_installed():
        raise click.UsageError("MLflow's client is missing: pip install 'atmc[mlflow]'")
    if not re.fullmatch(r"[\w. -]+", name):
        raise click.UsageError(f"--name {name!r}: letters, digits, spaces and . _ - alone")
    with tempfile.TemporaryDirectory(prefix="atmc-register-") as folder, Client(server) as client:
        found, files = _fetch(client, job, Path(folder), keys)
        try:
            done = mlflow_registry.register(uri, name, found, files, client.url)
        except NotRegistered as error:
            raise click.UsageError(str(error)) from error
    click.echo(f"models:/{done.name}/{done.version}")
    err.print(f"run {done.run_id} at {uri}", soft_wrap=True, markup=False)


def _fetch(
    client: Client, job: str, folder: Path, keys: list[TrustedKey]
) -> tuple[Job, list[Path]]:
    """The job, and its files in `folder`; raises UsageError unless it has made them."""
    found = client.get_job(job)
    made = {each["name"] for each in client.artifacts(job)}
    if "model_card.md" not in made:
        raise click.UsageError(f"{job} is {found['state']}: it has no model card yet")
    wanted = [name for name in _WANTED if name in made]
    return found, client.download(job, folder, wanted, keys=keys)
