"""`atmc change`: what people say of a job, a model or a data set, later on."""

from typing import Any

import click

from atmc_client.cli.describing import JsonObject, labelled
from atmc_client.cli.output import print_json, print_said
from atmc_client.client import Client, Document

# Whose the ids that begin so are, and what changes it.
_CHANGES = {
    "job_": Client.change_job,
    "mdl_": Client.change_model,
    "dst_": Client.change_dataset,
}


@click.command()
@click.argument("id", metavar="ID")
@click.option("--name", help="A name for people; an empty one takes the name away.")
@labelled("Instead of all labels that it has; may be repeated.")
@click.option("--no-labels", is_flag=True, help="Take all labels away.")
@click.option("--metadata", type=JsonObject(), help="A JSON object, instead of the one it has.")
@click.option("--json", "as_json", is_flag=True, help="Print what has changed as JSON.")
@click.pass_obj
def change(server: str, /, id: str, no_labels: bool, as_json: bool, **said: Any) -> None:
    """Change the name, the labels or the metadata of a job, a model or a data set.

    A job may have ended. What is not given stays as it is.
    """
    kind = next((each for prefix, each in _CHANGES.items() if id.startswith(prefix)), None)
    if kind is None:
        raise click.UsageError(
            f"{id!r} is no id of a job, a model or a data set: {', '.join(_CHANGES)}..."
        )
    if no_labels and said["labels"]:
        raise click.UsageError("--label and --no-labels exclude each other")
    changes = {name: value for name, value in said.items() if value is not None}
    if no_labels:
        changes["labels"] = {}
    if not changes:
        raise click.UsageError("nothing to change: give --name, --label, --no-labels or --metadata")
    if "name" in changes:
        changes["name"] = changes["name"] or None
    with Client(server) as client:
        changed: Document = kind(client, id, **changes)
    print_json(changed) if as_json else print_said(changed)
