"""`atmc report` and `atmc compare`: what a job found, and two jobs side by side."""

import tempfile
import webbrowser
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from atmc_client.cli.output import (
    ACCURACIES,
    accuracy_table,
    new_table,
    out,
    print_json,
    size_table,
)
from atmc_client.client import Client, Document

PAGE = "report.html"

# Rows of a comparison besides the accuracies: the headline's name, what it is called, its form.
_SIZES = {
    "file_bytes": ("bytes on disk", "{:,}"),
    "file_ratio": ("file ratio", "{:.4f}"),
    "nonzeros": ("non-zeros", "{:,}"),
    "bits": ("bits a non-zero", "{}"),
    "latency_after_s": ("one image, model.onnx, s", "{:.3g}"),
    "latency_c_s": ("one image, model.c, s", "{:.3g}"),
    "seconds": ("seconds of computing", "{:,.0f}"),
}


@click.command()
@click.argument("job")
@click.option("--open", "opened", is_flag=True, help=f"Fetch {PAGE} and show it in a browser.")
@click.option("--json", "as_json", is_flag=True, help="Print report.json.")
@click.pass_obj
def report(server: str, job: str, opened: bool, as_json: bool) -> int:
    """Show a job's report: figures and warnings here, or the whole page in a browser."""
    if opened and as_json:
        raise click.UsageError("--open and --json: give one")
    with Client(server) as client:
        if opened:
            folder = Path(tempfile.mkdtemp(prefix=f"{job}-"))
            (page, *_) = client.download(job, folder, [PAGE])
            click.echo(page)
            if not webbrowser.open(page.as_uri()):
                click.echo("no browser could be started: open the file by hand", err=True)
            return 0
        found = client.report(job)
    print_json(found) if as_json else _print(found)
    return 0


@click.command()
@click.argument("first")
@click.argument("second")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def compare(server: str, first: str, second: str, as_json: bool) -> int:
    """Put two jobs that have succeeded side by side, and what the second has more or less.

    Their figures are of the same images only if data set, attacks and seed are: where their specs
    differ it says in what.
    """
    with Client(server) as client:
        jobs = [client.get_job(first), client.get_job(second)]
    for job in jobs:
        if job["headline"] is None:
            raise click.UsageError(f"{job['id']} is {job['state']}: it has no figures to compare")
    if as_json:
        print_json({"jobs": jobs, "differs": differences(*jobs)})
        return 0
    out.print(comparison(*jobs))
    for path, (one, other) in differences(*jobs).items():
        out.print(f"{path}: {one} in the first, {other} in the second", markup=False)
    return 0


def comparison(first: Document, second: Document) -> Any:
    """The table of two jobs: a row for each figure that both have."""
    table = new_table("figure")
    for job in (first, second):
        table.add_column(escape(job["name"] or job["id"]), justify="right", overflow="fold")
    table.add_column("change", justify="right")
    for name, label in ACCURACIES.items():
        shares = [_own(job["headline"], name) for job in (first, second)]
        if None not in shares:
            change = f"{100 * (shares[1] - shares[0]):+.2f}"
            table.add_row(label, *(f"{100 * share:.2f} %" for share in shares), change)
    for name, (label, form) in _SIZES.items():
        values = [job["headline"].get(name) for job in (first, second)]
        if None not in values:
            change = f"x {values[1] / values[0]:.3g}" if values[0] else ""
            table.add_row(label, *map(form.format, values), change)
    return table


def differences(first: Document, second: Document) -> dict[str, tuple[Any, Any]]:
    """Where two jobs' inputs and specs differ: both values by path, None where one has none."""
    sides = [
        {name: job[name] for name in ("model_id", "dataset_id")} | dict(_leaves(job["spec"]))
        for job in (first, second)
    ]
    paths = dict.fromkeys((*sides[0], *sides[1]))
    pairs = {path: (sides[0].get(path), sides[1].get(path)) for path in paths}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def _leaves(value: Document, above: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, inner in value.items():
        path = f"{above}{name}"
        found += _leaves(inner, f"{path}.") if isinstance(inner, dict) else [(path, inner)]
    return found


def _own(headline: Document, name: str) -> Any:
    """The compressed network's figure, or the upload's where nothing was compressed."""
    compressed = headline["clean_accuracy_after"] is not None
    return headline.get(f"{name}_{'after' if compressed else 'before'}")


def _print(found: Document) -> None:
    headline = found["headline"]
    out.print(accuracy_table(headline, found["evaluation"].get("split", "test")))
    if headline.get("file_bytes") is not None:
        out.print(size_table(headline))
    for warning in found["warnings"]:
        out.print(f"warning ({warning['code']}): {warning['message']}", markup=False)
    if not found["warnings"]:
        out.print("no check of the evaluation has raised a warning")
