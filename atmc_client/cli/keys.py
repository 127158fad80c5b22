"""`atmc keys create`, `list`, `limit` and `revoke`: an admin's commands."""

from datetime import datetime

import click

from atmc_client.cli.describing import moment
from atmc_client.cli.output import keys_table, minute, out, print_json
from atmc_client.client import Client

SCOPES = ("jobs:read", "jobs:write", "audit:read", "tenant:admin", "admin")


@click.group()
def keys() -> None:
    """Make, list, limit and revoke keys.

    Takes an admin's key, or a tenant's admin's, in ATMC_API_KEY.
    """


@keys.command()
@click.option(
    "--tenant", help="The team whose jobs it opens; may be new. A tenant's admin's own by default."
)
@click.option(
    "--scopes",
    required=True,
    metavar="SCOPE[,SCOPE]",
    callback=lambda _context, _option, text: _scopes(text),
    help=f"Of {', '.join(SCOPES)}.",
)
@click.option(
    "--expires",
    metavar="WHEN",
    callback=lambda _context, _option, text: None if text is None else moment(text),
    help="12h, 90d, 52w, or a date: 2030-01-31. Without it the key holds until it is revoked.",
)
@click.option(
    "--addresses",
    metavar="NETWORK[,NETWORK]",
    help="The addresses and networks that it may be shown from: 192.0.2.0/24,2001:db8::/32.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
@click.pass_obj
def create(
    server: str,
    tenant: str | None,
    scopes: list[str],
    expires: datetime | None,
    addresses: str | None,
    as_json: bool,
) -> None:
    """Make a key and print it, this once: the service keeps only its hash."""
    networks = _networks(addresses) if addresses else []
    with Client(server) as client:
        made = client.create_key(tenant, scopes, expires_at=expires, addresses=networks)
    if as_json:
        print_json(made)
        return
    until = minute(made["expires_at"]) or "it is revoked"
    said = f"{made['id']} of {made['tenant']} for {', '.join(made['scopes'])}"
    networks = made["addresses"] or []
    whence = f", from {', '.join(networks)}" if networks else ""
    click.echo(f"{said}{whence}, until {until}:", err=True)
    click.echo(made["key"])


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the keys as a JSON array.")
@click.pass_obj
def list_(server: str, as_json: bool) -> None:
    """List the keys of all tenants, or of your own, without the keys themselves."""
    with Client(server) as client:
        found = client.keys()
    print_json(found) if as_json else out.print(keys_table(found))


@keys.command()
@click.argument("key_id")
@click.option(
    "--addresses",
    required=True,
    metavar="NETWORK[,NETWORK]",
    help="All of them, in place of what it was limited to; `any` lifts the limit.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the key as JSON.")
@click.pass_obj
def limit(server: str, key_id: str, addresses: str, as_json: bool) -> None:
    """Change the addresses that a key may be shown from; it stays the same key."""
    with Client(server) as client:
        key = client.limit_key(key_id, [] if addresses == "any" else _networks(addresses))
    print_json(key) if as_json else out.print(keys_table([key]))


@keys.command()
@click.argument("key_id")
@click.pass_obj
def revoke(server: str, key_id: str) -> None:
    """Revoke a key: it is refused from now on."""
    with Client(server) as client:
        client.revoke_key(key_id)


def _networks(text: str) -> list[str]:
    return [each.strip() for each in text.split(",")]


def _scopes(text: str) -> list[str]:
    scopes = text.split(",")
    if unknown := [scope for scope in scopes if scope not in SCOPES]:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(SCOPES)}")
    return scopes
