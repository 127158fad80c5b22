"""What the commands print: tables for people, JSON for programs."""

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, highlight=False)

# Rows of the before/after table: the headline's prefix, and what it is called.
ACCURACIES = {
    "clean_accuracy": "clean accuracy",
    "fgsm_accuracy": "FGSM accuracy",
    "pgd_accuracy": "PGD accuracy",
    "robust_accuracy": "worst of all attacks",
}


def print_json(value: Any) -> None:
    """Print one JSON document, indented, and nothing else."""
    click.echo(json.dumps(value, indent=2))


def print_job(job: dict[str, Any]) -> None:
    """Print a job: where it stands, its error if it failed, its figures once it has them."""
    name = f" ({job['name']})" if job["name"] else ""
    out.print(f"{job['id']}{name}: [bold]{job['state']}[/bold]{_where(job)}")
    if job["error"]:
        error = job["error"]
        param = f" ({error['param']})" if error["param"] else ""
        out.print(f"{error['code']}{param}: {error['message']}", markup=False)
    if job["headline"]:
        out.print(accuracy_table(job["headline"]))
        out.print(size_table(job["headline"]))


def accuracy_table(headline: dict[str, Any]) -> Table:
    """Accuracies on the test split before and after, in percent."""
    table = Table("test split", title="Accuracy", title_justify="left")
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right")
    for key, label in ACCURACIES.items():
        before, after = headline[f"{key}_before"], headline[f"{key}_after"]
        change = f"{100 * (after - before):+.2f}"
        table.add_row(label, f"{100 * before:.2f} %", f"{100 * after:.2f} %", change)
    return table


def size_table(headline: dict[str, Any]) -> Table:
    """What the compressed model holds and weighs."""
    table = Table("compressed model", "", title="Size", title_justify="left")
    rows = {
        "non-zeros": f"{headline['nonzeros']:,} of at most k = {headline['k']:,}",
        "  of them in U, V, C": ", ".join(f"{headline[f'nonzeros_{m}']:,}" for m in "uvc"),
        "bits a non-zero": str(headline["bits"]),
        "distinct values a tensor": f"at most {headline['max_distinct_values']:,}",
        "bytes on disk": f"{headline['file_bytes']:,} (dense: {headline['dense_bytes']:,})",
        "file ratio": f"{headline['file_ratio']:.4f}",
        "nominal ratio": f"{headline['nominal_ratio']:.4f}",
    }
    for label, value in rows.items():
        table.add_row(label, value)
    return table


def jobs_table(jobs: list[dict[str, Any]]) -> Table:
    """One line a job, the newest first."""
    table = Table("job", "name", "state", "where", "created")
    for job in jobs:
        where = _where(job).removeprefix(", ")
        table.add_row(job["id"], job["name"] or "", job["state"], where, job["created_at"])
    return table


def _where(job: dict[str, Any]) -> str:
    if job["state"] not in ("validating", "running") or not job["stage"]:
        return ""
    epoch = f", epoch {job['epoch']} of {job['epochs']}" if job["epochs"] else ""
    return f", {job['stage']}{epoch}, {100 * job['progress']:.0f} %"
