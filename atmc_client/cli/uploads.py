"""`atmc upload`, `atmc models`, `atmc datasets` and `atmc connections`: what jobs are made of."""

from collections.abc import Sequence
from typing import Any

import click
from rich.markup import escape

from atmc_client.cli.describing import described, filtered
from atmc_client.cli.figure import file_size
from atmc_client.cli.inputs import FileOrUri, Numbers, normalization_of
from atmc_client.cli.output import minute, new_table, out, print_json
from atmc_client.cli.progress import bytes_shown
from atmc_client.client import Client, Document
from atmc_client.types.requests import NewSource
from atmc_client.uploads import is_uri


@click.command()
@click.argument("file", type=FileOrUri())
@click.option("--architecture", help="FILE is a network of this; without it, a data set.")
@click.option("--mean", type=Numbers(), help="The network's normalisation, a number a channel.")
@click.option("--std", type=Numbers(), help="With --mean.")
@described
@click.option("--connection", help="Of a URI: whose credentials to use, where several have it.")
@click.option("--sha256", help="Of a URI: other bytes are refused.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Until it is fetched.")
@click.option("--json", "as_json", is_flag=True, help="Print what was uploaded as JSON.")
@click.pass_obj
def upload(
    server: str, /, file: str, architecture: str | None, wait: bool, as_json: bool, **o: Any
) -> None:
    """Upload a network or a data set once; its id stands for it in submit and sweep.

    FILE may be the s3:// or https:// URI of one that the service fetches itself; `atmc connections`
    lists where such files may lie.
    """
    normalization = normalization_of(o["mean"], o["std"])
    if normalization is not None and architecture is None:
        raise click.UsageError("--mean and --std are a network's: name its --architecture")
    given: str | NewSource = file
    if is_uri(file):
        given = {"uri": file, "connection": o["connection"], "sha256": o["sha256"]}
    elif o["connection"] or o["sha256"]:
        raise click.UsageError("--connection and --sha256 go with a URI")
    said = {name: o[name] for name in ("name", "labels", "metadata")}
    with Client(server) as client, bytes_shown() as update:
        found: Document
        if architecture is None:
            found = client.upload_dataset(given, **said, on_bytes=update)
            if wait and is_uri(file):
                found = client.wait_dataset(found["id"], on_bytes=update)
        else:
            found = client.upload_model(
                given, architecture, normalization=normalization, **said, on_bytes=update
            )
            if wait and is_uri(file):
                found = client.wait_model(found["id"], on_bytes=update)
    print_json(found) if as_json else click.echo(found["id"])


def _listed(kind: str, columns: tuple[str, ...]) -> click.Command:
    """The command that lists models, or data sets."""

    @click.command(kind, help=f"List uploaded {kind}, the newest first.")
    @click.option("--state", help="Only those that are fetching, ready or failed.")
    @filtered
    @click.option("--json", "as_json", is_flag=True, help="Print them as a JSON array.")
    @click.pass_obj
    def command(server: str, /, as_json: bool, **which: Any) -> None:
        with Client(server) as client:
            listing = client.list_models if kind == "models" else client.list_datasets
            found: Sequence[Document] = listing(**which)
        if as_json:
            print_json(found)
            return
        table = new_table("id", "name", "file", *columns, "bytes", "uploaded")
        table.columns[0].no_wrap = True
        for each in found:
            own = [escape(str(each[column])) for column in columns]
            # What the service fetches may not have told its size yet.
            size = each["state"] if each["bytes"] is None else file_size(each["bytes"])
            at, name = minute(each["created_at"]) or "", escape(each["name"] or "")
            table.add_row(each["id"], name, escape(each["filename"]), *own, size, at)
        out.print(table)

    result: click.Command = command
    return result


models = _listed("models", ("architecture",))
datasets = _listed("datasets", ())


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print them as a JSON array.")
@click.pass_obj
def connections(server: str, as_json: bool) -> None:
    """List where files may lie that the service fetches, and where it puts results."""
    with Client(server) as client:
        found = client.connections()
    if as_json:
        print_json(found)
        return
    table = new_table("connection", "kind", "read", "write")
    for each in found:
        read, write = ("\n".join(map(escape, each[side])) for side in ("read", "write"))
        table.add_row(escape(each["name"]), each["kind"], read, write)
    out.print(table)
