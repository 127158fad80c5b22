"""`atmc watch` and `atmc logs`: a job as it runs, and what it said."""

import json
from collections.abc import Callable

import click

from atmc_client.cli.output import err, print_job, print_json
from atmc_client.cli.progress import coming_back, follow
from atmc_client.client import Client, Document

Event = Document


@click.command()
@click.argument("job")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON once it has ended.")
@click.pass_obj
def watch(server: str, job: str, as_json: bool) -> int:
    """Follow a job to its end; Ctrl-C leaves it at work.

    On a terminal: stage, progress, the time that is left, loss and accuracy on the validation
    images as they move. Elsewhere a line for each stage, and now and then one of training.

    Exit codes: 0 it succeeded, 1 it did not.
    """
    with Client(server) as client:
        ended = follow(client, client.get_job(job))
    print_json(ended) if as_json else print_job(ended)
    return 0 if ended["state"] == "succeeded" else 1


@click.command()
@click.argument("job")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until the job has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print every event, one JSON object a line.")
@click.pass_obj
def logs(server: str, job: str, following: bool, as_json: bool) -> None:
    """Show what a job has said: its states, stages, figures, warnings and errors.

    Steps that only count on are left out, but not of --json. An ended job's are there as long as it
    is.
    """
    with Client(server) as client, coming_back("job", job, "logs --follow", "cancel"):
        silent = True
        for event in client.events(job, follow=following):
            line = json.dumps(event) if as_json else said(event)
            if line is not None:
                silent = False
                click.echo(line)
    if silent:
        err.print(f"{job} has not said anything yet", soft_wrap=True)


def said(event: Event) -> str | None:
    """The event as a line to read: when, where, what; None for a step that only counts on."""
    write = _WRITERS.get(event["type"])
    text = write(event) if write else str(_rest(event))
    if not text:
        return None
    level = {"warning": "WARNING", "error": "ERROR"}.get(event["type"], "INFO")
    moment = event["time"][:19].replace("T", " ")
    return f"{moment} {level:<7} {event.get('stage') or event['type']}: {_one_line(text)}"


def _state(event: Event) -> str:
    return f"{event['state']}, attempt {event['attempt']}"


def _stage(event: Event) -> str:
    source = f" from {event['job_id']}" if event.get("job_id") else ""
    return f"{event['status']}{source}" + (f": {event['message']}" if event.get("message") else "")


def _metric(event: Event) -> str:
    figures = [
        f"{name.replace('_', ' ')} {value:.4g}"
        for name, value in _rest(event).items()
        if isinstance(value, int | float)
    ]
    return f"step {event['epoch']}: {', '.join(figures)}" if figures else ""


def _problem(event: Event) -> str:
    param = f" ({event['param']})" if event.get("param") else ""
    return f"{event['code']}{param}: {event['message']}"


_WRITERS: dict[str, Callable[[Event], str]] = {
    "state": _state,
    "stage": _stage,
    "metric": _metric,
    "progress": lambda event: "",
    "resumed": lambda event: f"goes on after step {event['epoch']}, from a checkpoint",
    "warning": _problem,
    "error": _problem,
}


def _rest(event: Event) -> Event:
    known = ("seq", "time", "type", "attempt", "trace_id", "stage", "epoch")
    return {name: value for name, value in event.items() if name not in known}


def _one_line(text: str) -> str:
    """What others chose moves no cursor and adds no line of its own."""
    return "".join(each if each.isprintable() else " " for each in text)
