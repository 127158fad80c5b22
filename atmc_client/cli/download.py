"""`atmc download`: the files that a job made."""

from pathlib import Path

import click

from atmc_client.attestation import ATTESTATION
from atmc_client.cli.progress import bytes_shown
from atmc_client.cli.verify import key_option, trusted
from atmc_client.client import Client


@click.command()
@click.argument("job")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("."),
    show_default="here",
    help="Folder to put them in.",
)
@key_option
@click.option("--unverified", is_flag=True, help="Do not ask who signed the files.")
@click.pass_obj
def download(
    server: str,
    job: str,
    names: tuple[str, ...],
    output: Path,
    key_files: tuple[Path, ...],
    unverified: bool,
) -> int:
    """Download what a job made (all of it, or the files named) and check its SHA-256.

    An interrupted download goes on where it stopped. Prints the files' paths. The attestation, by
    which `atmc verify` knows the files, comes along; where a key to trust is named or pinned,
    nothing is fetched that it has not signed.
    """
    keys = [] if unverified else trusted(key_files)
    with Client(server) as client, bytes_shown() as update:
        paths = client.download(job, output, names, on_bytes=update, keys=keys)
    for path in paths:
        click.echo(path)
    if keys and paths:
        click.echo("verified: signed with a key that you trust", err=True)
    elif not unverified and any(path.name == ATTESTATION for path in paths):
        click.echo("not verified: no key to trust is known, see atmc verify --help", err=True)
    if not paths:
        click.echo(f"{job} has made no files yet: atmc show {job}", err=True)
    return 0 if paths else 1
