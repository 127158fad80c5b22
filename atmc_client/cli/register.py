"""`atmc register`: what a job made, in the form in which others keep models."""

import shutil
import tempfile
from pathlib import Path

import click

from atmc_client.cli.output import err
from atmc_client.cli.verify import key_option, trusted
from atmc_client.client import Client

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
    required=True,
    help="A folder that is not there yet, or is empty.",
)
@key_option
@click.option("--unverified", is_flag=True, help="Do not ask who signed the files.")
@click.pass_obj
def register(
    server: str, job: str, folder: Path, key_files: tuple[Path, ...], unverified: bool
) -> int:
    """Write a model repository in Hugging Face's style: card, weights, exports, report.

    \b
        atmc register JOB --folder lenet-small
        huggingface-cli upload my-team/lenet-small lenet-small

    The card (README.md) has the figures as metadata that a hub shows. All files arrive, or none.
    """
    if folder.exists() and any(folder.iterdir()):
        raise click.UsageError(f"{folder} is not empty: name another folder")
    keys = [] if unverified else trusted(key_files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder, so that it can be renamed into place.
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with Client(server) as client:
            found = client.get_job(job)
            made = {each["name"] for each in client.artifacts(job)}
            if "model_card.md" not in made:
                raise click.UsageError(f"{job} is {found['state']}: it has no model card yet")
            client.download(job, aside, [name for name in _WANTED if name in made], keys=keys)
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
    if not keys and not unverified:
        err.print("not verified: no key to trust is known, see atmc verify --help")
    return 0
