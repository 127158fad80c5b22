"""`atmc audit list`, `export`, `heads` and `verify`: who did what."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from atmc_client.audit import Broken, verify
from atmc_client.cli.output import audit_table, out, print_json
from atmc_client.client import Client

BROKEN = 1


@click.group()
def audit() -> None:
    """Read, export and verify who did what; takes `audit:read`, or an admin's key."""


def _filters(command: Any) -> Any:
    for option in reversed(
        (
            click.option("--since", metavar="WHEN", help="From then on: 2030-01-31T00:00:00Z."),
            click.option("--until", metavar="WHEN", help="Before then."),
            click.option("--actor", help="A key's id, oidc:SUBJECT, operator, keeper, unknown."),
            click.option("--action", help="key.create, say, or key for all of a key."),
            click.option("--outcome", type=click.Choice(["done", "refused"])),
            click.option("--tenant", help="One tenant's, of those that you may see."),
        )
    ):
        command = option(command)
    return command


@audit.command("list")
@_filters
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the records as a JSON array.")
@click.pass_obj
def list_(server: str, /, limit: int, as_json: bool, **which: str | None) -> None:
    """List records, newest first."""
    with Client(server) as client:
        found = client.audit(limit=limit, **which)
    print_json(found) if as_json else out.print(audit_table(found))


@audit.command()
@_filters
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file.")
@click.pass_obj
def export(server: str, /, output: Path | None, **which: str | None) -> None:
    """Export all records as JSON Lines, oldest first.

    Without filters the end says where each chain stands, and `atmc audit verify` holds it all.
    """
    with Client(server) as client:
        lines = client.audit_export(**which)
        if output is None:
            for line in lines:
                click.echo(line)
            return
        # The file has its name once it is whole.
        part = output.with_name(f"{output.name}.part")
        with part.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        part.replace(output)


@audit.command()
@click.option("--json", "as_json", is_flag=True, help="Print what --heads of verify reads.")
@click.pass_obj
def heads(server: str, as_json: bool) -> None:
    """Print where the chains stand. Keep it where the service's owner cannot change it."""
    with Client(server) as client:
        found = client.audit_heads()
    if as_json:
        print_json(found)
        return
    for head in found:
        click.echo(f"{head['tenant']} {head['seq']} {head['hash']}")


@audit.command("verify")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option(
    "--heads",
    "kept",
    type=click.File(encoding="utf-8"),
    help="What `atmc audit heads --json` printed before: a log that was cut or written anew since "
    "does not lead to it.",
)
@click.option("--part", is_flag=True, help="The export left records out; hold what is there.")
def verify_(file: Any, kept: Any, part: bool) -> int | None:
    """Hold an export (- is standard input) against its hashes; asks no service."""
    before = _heads(kept) if kept else []
    try:
        chains = verify(file, before, part=part)
    except (Broken, UnicodeDecodeError) as error:
        click.echo(f"broken: {error}", err=True)
        return BROKEN
    if not chains:
        click.echo("broken: there is no record in it", err=True)
        return BROKEN
    for tenant, chain in chains.items():
        end = f"to {chain.seq} ({chain.hash})" if chain.hashes else "none are kept"
        click.echo(f"holds: {tenant}, records {chain.first} {end}", file=sys.stdout)
    return None


def _heads(file: Any) -> list[dict[str, Any]]:
    """Read heads, as this command prints them or as `GET /audit/heads` answers."""
    try:
        found = json.load(file)
        listed = found["data"] if isinstance(found, dict) else found
        return [{name: head[name] for name in ("tenant", "seq", "hash")} for head in listed]
    except (ValueError, KeyError, TypeError) as error:
        wrong = "it is not what `atmc audit heads --json` prints"
        raise click.BadParameter(wrong, param_hint="--heads") from error
