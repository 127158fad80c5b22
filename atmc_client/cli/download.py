"""`atmc download`: the files that a job made."""

from pathlib import Path

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from atmc_client.cli.output import err
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
@click.pass_obj
def download(server: str, job: str, names: tuple[str, ...], output: Path) -> int:
    """Download what a job made (all of it, or the files named) and check its SHA-256.

    An interrupted download goes on where it stopped. Prints the files' paths.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with (
        Client(server) as client,
        Progress(*columns, console=err, disable=not err.is_terminal) as p,
    ):
        bars: dict[str, TaskID] = {}

        def update(name: str, there: int, total: int) -> None:
            if name not in bars:
                bars[name] = p.add_task(name, total=total)
            p.update(bars[name], completed=there)

        paths = client.download(job, output, names, on_bytes=update)
    for path in paths:
        click.echo(path)
    if not paths:
        click.echo(f"{job} has made no files yet: atmc show {job}", err=True)
    return 0 if paths else 1
