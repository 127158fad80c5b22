"""`atmc tenants list` and `erase`: an admin's commands."""

import time

import click

from atmc_client.cli.output import minute, new_table, out, print_json
from atmc_client.client import Client

_POLL_S = 1.0


@click.group()
def tenants() -> None:
    """List and erase tenants; takes an admin's key in ATMC_API_KEY."""


@tenants.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the tenants as a JSON array.")
@click.pass_obj
def list_(server: str, as_json: bool) -> None:
    """List the tenants, also those that are being erased."""
    with Client(server) as client:
        found = client.tenants()
    if as_json:
        print_json(found)
        return
    table = new_table("tenant", "since", "being erased since")
    for each in found:
        leaving = minute(each.get("erase_requested_at")) or ""
        table.add_row(each["name"], minute(each["created_at"]), leaving)
    out.print(table)


@tenants.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", "wait_s", type=int, default=60, show_default=True, help="Seconds.")
@click.pass_obj
def erase(server: str, name: str, yes: bool, wait_s: int) -> int:
    """Erase a tenant with its jobs, files and keys, for good, and wait until it is gone.

    Exit codes: 0 it is gone, 1 it is not yet: the service goes on by itself.
    """
    if not yes:
        question = f"This erases all that {name} has, for good. Its name again"
        if click.prompt(question) != name:
            raise click.UsageError("that is another name: nothing was erased")
    with Client(server) as client:
        client.erase_tenant(name)
        deadline = time.monotonic() + wait_s
        while any(each["name"] == name for each in client.tenants()):
            if time.monotonic() > deadline:
                click.echo(f"{name} is still being erased: a job of it has not ended", err=True)
                return 1
            time.sleep(_POLL_S)
    click.echo(f"{name} is gone")
    return 0
