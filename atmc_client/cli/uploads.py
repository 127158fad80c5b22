"""`atmc upload`, `atmc models` and `atmc datasets`: what jobs are made of."""

from collections.abc import Sequence
from pathlib import Path

import click
from rich.markup import escape

from atmc_client.cli.figure import file_size
from atmc_client.cli.output import minute, new_table, out, print_json
from atmc_client.cli.progress import bytes_shown
from atmc_client.cli.submit import Numbers, normalization_of
from atmc_client.client import Client, Document


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--architecture", help="FILE is a network of this; without it, a data set.")
@click.option("--mean", type=Numbers(), help="The network's normalisation, a number a channel.")
@click.option("--std", type=Numbers(), help="With --mean.")
@click.option("--json", "as_json", is_flag=True, help="Print what was uploaded as JSON.")
@click.pass_obj
def upload(
    server: str,
    file: Path,
    architecture: str | None,
    mean: list[float] | None,
    std: list[float] | None,
    as_json: bool,
) -> None:
    """Upload a network or a data set once; its id stands for it in submit and sweep."""
    normalization = normalization_of(mean, std)
    if normalization is not None and architecture is None:
        raise click.UsageError("--mean and --std are a network's: name its --architecture")
    with Client(server) as client, bytes_shown() as update:
        found: Document
        if architecture is None:
            found = client.upload_dataset(file, on_bytes=update)
        else:
            found = client.upload_model(
                file, architecture, normalization=normalization, on_bytes=update
            )
    print_json(found) if as_json else click.echo(found["id"])


def _listed(name: str, columns: tuple[str, ...]) -> click.Command:
    """The command that lists models, or data sets."""

    @click.command(name, help=f"List uploaded {name}, the newest first.")
    @click.option("--search", metavar="TEXT", help="A part of the file's name or of the id.")
    @click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
    @click.option("--json", "as_json", is_flag=True, help="Print them as a JSON array.")
    @click.pass_obj
    def command(server: str, search: str | None, limit: int, as_json: bool) -> None:
        with Client(server) as client:
            listing = client.list_models if name == "models" else client.list_datasets
            found: Sequence[Document] = listing(q=search, limit=limit)
        if as_json:
            print_json(found)
            return
        table = new_table("id", "file", *columns, "bytes", "uploaded")
        table.columns[0].no_wrap = True
        for each in found:
            own = [escape(str(each[column])) for column in columns]
            # A file that the service fetches may not have told its size yet.
            size = "" if each["bytes"] is None else file_size(each["bytes"])
            at = minute(each["created_at"]) or ""
            table.add_row(each["id"], escape(each["filename"]), *own, size, at)
        out.print(table)

    result: click.Command = command
    return result


models = _listed("models", ("architecture",))
datasets = _listed("datasets", ())
