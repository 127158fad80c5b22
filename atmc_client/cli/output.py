"""The output of the commands: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from atmc_client.client import Document

# A file or a pipe has no width of its own; a job's line needs this much.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True, highlight=False)

# Rows of the before/after table: the headline's prefix, and what it is called.
ACCURACIES = {
    "clean_accuracy": "clean accuracy",
    "fgsm_accuracy": "FGSM accuracy",
    "pgd_accuracy": "PGD accuracy",
    "robust_accuracy": "worst of all attacks",
    "proven_accuracy": "proven",
}


def print_json(value: Any) -> None:
    """Print one JSON document, indented, and nothing else."""
    click.echo(json.dumps(value, indent=2))


def print_job(job: Document) -> None:
    """Print a job: where it stands, its error if it failed, its figures once it has them."""
    print_said(job, f": [bold]{job['state']}[/bold]{_where(job)}")
    if job["error"]:
        error = job["error"]
        param = f" ({error['param']})" if error["param"] else ""
        out.print(f"{error['code']}{param}: {error['message']}", markup=False)
    if job["headline"]:
        split = job["spec"].get("evaluation", {}).get("split", "test")
        out.print(accuracy_table(job["headline"], split))
        if job["headline"]["file_bytes"] is not None:
            out.print(size_table(job["headline"]))
    if job.get("acceptance"):
        out.print(acceptance_table(job["acceptance"]))
    if job.get("results"):
        results, error = job["results"], job["results"]["error"]
        why = f" ({error['code']}: {error['message']})" if error else ""
        line = f"results at {results['uri']}: {results['state']}{why}"
        out.print(line, markup=False, soft_wrap=True)


def print_said(found: Document, rest: str = "") -> None:
    """Print the id, the name and the labels of a job, a model or a data set; `rest` is markup."""
    name = f" ({found['name']})" if found["name"] else ""
    out.print(f"{found['id']}{escape(name)}{rest}", soft_wrap=True)
    if found.get("labels"):
        labels = [f"{key}={value}" for key, value in found["labels"].items()]
        out.print(f"labels: {', '.join(labels)}", markup=False, soft_wrap=True)


def new_table(*headers: str) -> Table:
    """An empty table in the one style of all our tables."""
    return Table(*headers, box=box.SIMPLE_HEAD, pad_edge=False)


def accuracy_table(headline: Document, split: str) -> Table:
    """Accuracies on the evaluated split in percent; after, too, if something was compressed.

    The last column is what compression changed: from the dense network that the job made robust
    first, or else from the upload.
    """
    table = new_table(f"{split} split")
    compressed = headline["clean_accuracy_after"] is not None
    # A service of an older version has no such figure.
    made_robust = headline.get("clean_accuracy_dense") is not None
    sides = ["before", *(["dense"] if made_robust else []), *(["after"] if compressed else [])]
    names = {"before": "before" if compressed else "as uploaded", "dense": "dense robust"}
    for side in sides:
        table.add_column(names.get(side, side), justify="right")
    if compressed:
        table.add_column("change from dense" if made_robust else "change", justify="right")
    for key, label in ACCURACIES.items():
        found = [headline.get(f"{key}_{side}") for side in sides]
        shares = [share for share in found if share is not None]
        if len(shares) < len(sides):
            continue  # the job's attacks were others
        change = [f"{100 * (shares[-1] - shares[-2]):+.2f}"] if compressed else []
        table.add_row(label, *(f"{100 * share:.2f} %" for share in shares), *change)
    return table


def acceptance_table(thresholds: Sequence[Document]) -> Table:
    """Each threshold that the job names, and whether it is met."""
    table = new_table("threshold", "verdict")
    for column in ("figure", "asked for"):
        table.add_column(column, justify="right")
    for each in thresholds:
        bound = {"at_least": "at least", "at_most": "at most"}[each["bound"]]
        verdict = "[green]met[/green]" if each["passed"] else "[red]missed[/red]"
        name = each["name"].replace("_", " ")
        table.add_row(name, verdict, f"{each['figure']:.4f}", f"{bound} {each['limit']:.4f}")
    return table


def size_table(headline: Document) -> Table:
    """The non-zeros and the bytes of the compressed model."""
    table = new_table("compressed model", "")
    rows = {
        "non-zeros": f"{headline['nonzeros']:,} of at most k = {headline['k']:,}",
        "  of them in U, V, C": ", ".join(f"{headline[f'nonzeros_{m}']:,}" for m in "uvc"),
        "bits a non-zero": str(headline["bits"]),
        "distinct values a tensor": f"at most {headline['max_distinct_values']:,}",
        "bytes on disk": f"{headline['file_bytes']:,} (dense: {headline['dense_bytes']:,})",
        "file ratio": f"{headline['file_ratio']:.4f}",
        "nominal ratio": f"{headline['nominal_ratio']:.4f}",
    }
    # A service of an older version has no such figures.
    names = {"model.onnx": headline.get("latency_after_s"), "model.c": headline.get("latency_c_s")}
    rows |= {
        f"one image, {name}": f"{1000 * seconds:.3g} ms on one thread of the worker"
        for name, seconds in names.items()
        if seconds is not None
    }
    for label, value in rows.items():
        table.add_row(label, value)
    return table


def layer_table(report: Document) -> Table:
    """How many non-zeros U, V and C of each weight hold, and of how many distinct values."""
    table = new_table("weight", "shape")
    for column in ("weights", "non-zeros of U", "of V", "of C", "distinct in U", "in V", "in C"):
        table.add_column(column, justify="right")
    for layer in report["layers"]:
        counts = [layer["nonzeros"][m] for m in "uvc"] + [
            layer["distinct_values"][m] for m in "uvc"
        ]
        shape = " x ".join(map(str, layer["shape"]))
        table.add_row(layer["weight"], shape, *(f"{n:,}" for n in [layer["weights"], *counts]))
    return table


def jobs_table(jobs: Sequence[Document]) -> Table:
    """One line a job, the newest first."""
    table = new_table("job", "name", "state", "where", "created")
    for column in (0, 4):
        table.columns[column].no_wrap = True
    for job in jobs:
        where = _where(job).removeprefix(", ")
        created = job["created_at"][:19].replace("T", " ")
        table.add_row(job["id"], job["name"] or "", job["state"], where, created)
    return table


def keys_table(keys: Sequence[Document]) -> Table:
    """One line a key, the newest first."""
    limited = any(key.get("addresses") for key in keys)
    whence = ["from"] if limited else []
    table = new_table("key", "tenant", "scopes", *whence, "holds until", "last used")
    table.columns[0].no_wrap = True
    for key in keys:
        until = minute(key["expires_at"]) or "it is revoked"
        if key["revoked_at"]:
            until = f"{minute(key['revoked_at'])} (revoked)"
        used = minute(key["last_used_at"]) or "never"
        # A service of an older version limits none.
        places = [", ".join(key.get("addresses") or ["anywhere"])] if limited else []
        table.add_row(key["id"], key["tenant"], ", ".join(key["scopes"]), *places, until, used)
    return table


def audit_table(records: Sequence[Document]) -> Table:
    """One line a record, the newest first."""
    table = new_table("time", "tenant", "actor", "action", "object", "from", "outcome")
    table.columns[0].no_wrap = True
    # Ids are whole, on two lines if need be.
    for column in (2, 4):
        table.columns[column].overflow = "fold"
    for record in records:
        code = (record["detail"] or {}).get("code")
        outcome = record["outcome"] + (f" ({code})" if code else "")
        cells = (record["tenant"], record["actor"], record["action"], record["object"] or "")
        # What others chose is no markup.
        shown = map(escape, (*cells, record["address"] or "", outcome))
        table.add_row(record["time"][:19].replace("T", " "), *shown)
    return table


def minute(moment: str | None) -> str | None:
    """A moment of the service's to read; None stays None."""
    return moment[:16].replace("T", " ") if moment else None


def waiting_for(job: Document) -> str:
    """What a queued job waits for, in words; empty for any other, and of an older service."""
    waiting = job.get("waiting") or {}
    return str(waiting.get("message", ""))


def _where(job: Document) -> str:
    if waiting := waiting_for(job):
        return f": {escape(waiting)}"
    if job["state"] not in ("validating", "running") or not job["stage"]:
        return ""
    epoch = f", epoch {job['epoch']} of {job['epochs']}" if job["epochs"] else ""
    return f", {job['stage']}{epoch}, {100 * job['progress']:.0f} %"
