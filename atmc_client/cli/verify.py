"""`atmc verify`: whether a file is what a job made, by the signature of its service."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from atmc_client.attestation import (
    ATTESTATION,
    PINNED,
    TRUSTED_KEYS,
    Attestation,
    NotVerified,
    NoVerifier,
    SignedFile,
    TrustedKey,
    check_file,
    check_job,
    pinned_keys,
    read_attestation,
)
from atmc_client.cli.output import print_json
from atmc_client.client import Client

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

key_option = click.option(
    "--key",
    "key_files",
    type=_FILE,
    multiple=True,
    metavar="PEM",
    help=f"A public key to trust; may be repeated. Else those of the files in {TRUSTED_KEYS}, else "
    f"of {PINNED}.",
)


def trusted(key_files: tuple[Path, ...]) -> list[TrustedKey]:
    """Return the keys that the command's user trusts; raises UsageError for a wrong file."""
    try:
        return pinned_keys(key_files)
    except (ValueError, NoVerifier) as error:
        raise click.UsageError(str(error)) from error


@click.command()
@click.argument("file", type=_FILE)
@key_option
@click.option(
    "--key-from-service",
    is_flag=True,
    help="Trust the keys that the service lists now. Weaker: whoever answers there chooses them.",
)
@click.option("--attestation", type=_FILE, help=f"By default {ATTESTATION} beside FILE.")
@click.option(
    "--job", metavar="JOB", help="The job that it has to be of; the service has its attestation."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a sentence.")
@click.pass_obj
def verify(
    server: str,
    file: Path,
    key_files: tuple[Path, ...],
    key_from_service: bool,
    attestation: Path | None,
    job: str | None,
    as_json: bool,
) -> int:
    """Check that FILE is, byte for byte, what a job of the service made.

    Any file of a job will do: model.atmc, report.json, an export. Its attestation, which
    `atmc download` puts beside it, names all files of the job and is signed. Nothing is asked of
    the service where the attestation lies beside FILE and the key is yours: this works offline.

    Exit codes: 0 it is, 1 it is not, 2 wrong usage or no key or attestation, 3 no answer.
    """
    keys = _service_keys(server) if key_from_service else trusted(key_files)
    if not keys:
        where = "the service lists none" if key_from_service else "none is named or pinned"
        raise click.UsageError(
            f"a public key to trust is needed, and {where}: --key PEM, {TRUSTED_KEYS} or {PINNED}; "
            f"or --key-from-service, which trusts whoever answers at {server}"
        )
    content = _attestation(server, file, attestation, job)
    try:
        statement = read_attestation(content, keys)
        if job is not None:
            check_job(statement, job)
        itself = file.read_bytes() == content if file.name == ATTESTATION else False
        found = None if itself else check_file(statement, file)
    except NotVerified as error:
        if not as_json:
            raise
        print_json(
            {"verified": False, "file": str(file), "code": error.code, "message": error.message}
        )
        return 1
    print_json(_document(file, statement, found)) if as_json else _say(file, statement, found)
    return 0


def _attestation(server: str, file: Path, given: Path | None, job: str | None) -> bytes:
    beside = given or file.with_name(ATTESTATION)
    if beside.exists():
        return beside.read_bytes()
    if job is None:
        raise click.UsageError(
            f"there is no {beside}: name the attestation with --attestation, or the job with --job "
            f"to fetch it, or get it by: atmc download JOB {ATTESTATION}"
        )
    with Client(server) as client:
        return client.attestation(job)


def _service_keys(server: str) -> list[TrustedKey]:
    with Client(server) as client:
        try:
            return client.signing_keys()
        except (ValueError, NoVerifier) as error:
            raise click.UsageError(str(error)) from error


def _document(file: Path, statement: Attestation, found: SignedFile | None) -> dict[str, Any]:
    return {
        "verified": True,
        "file": str(file),
        "name": found.name if found else ATTESTATION,
        "sha256": found.sha256 if found else None,
        "job_id": statement.job_id,
        "started_at": statement.started_at,
        "version": statement.version,
        "key_id": statement.key.id,
        "key_source": statement.key.source,
        "files": [asdict(each) for each in statement.files],
    }


def _say(file: Path, statement: Attestation, found: SignedFile | None) -> None:
    names = ", ".join(each.name for each in statement.files)
    what = f"{found.name} of" if found else f"the attestation of {names} of"
    click.echo(f"{file}: verified, {what} {statement.job_id}")
    click.echo(f"  job started {statement.started_at}, atmc {statement.version}")
    if found is not None:
        click.echo(f"  SHA-256 {found.sha256}")
    click.echo(f"  signed with {statement.key.id} ({statement.key.source})")
