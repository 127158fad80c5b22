"""`atmc show`, `atmc list`, `atmc cancel`, `atmc retry` and `atmc delete`."""

import json
from typing import Any

import click

from atmc_client.cli.describing import filtered
from atmc_client.cli.output import jobs_table, layer_table, out, print_job, print_json
from atmc_client.cli.progress import coming_back, follow
from atmc_client.client import FINAL_STATES, Client, Document


@click.command()
@click.argument("job")
@click.option("--events", is_flag=True, help="Show its events one by one.")
@click.option("--layers", is_flag=True, help="Where its non-zeros are, weight by weight.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --events one a line.")
@click.pass_obj
def show(server: str, job: str, events: bool, layers: bool, as_json: bool) -> None:
    """Show a job: where it stands and, once it has succeeded, before and after."""
    with Client(server) as client:
        if events:
            for event in client.events(job):
                print_event(event, as_json)
        elif layers:
            report = client.report(job)
            print_json(report["layers"]) if as_json else out.print(layer_table(report))
        else:
            found = client.get_job(job)
            print_json(found) if as_json else print_job(found)


@click.command("list")
@click.option("--state", help="Only jobs in this state.")
@click.option("--method", help="Only jobs of this method.")
@filtered
@click.option("--json", "as_json", is_flag=True, help="Print the jobs as a JSON array.")
@click.pass_obj
def list_jobs(server: str, /, as_json: bool, **which: Any) -> None:
    """List jobs, the newest first."""
    with Client(server) as client:
        jobs = client.list_jobs(**which)
    print_json(jobs) if as_json else out.print(jobs_table(jobs))


@click.command()
@click.argument("job")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
@click.pass_obj
def cancel(server: str, job: str, wait: bool, as_json: bool) -> None:
    """Cancel a job; its worker is free again within seconds."""
    with Client(server) as client:
        cancelled = client.cancel(job)
        if wait and cancelled["state"] not in FINAL_STATES:
            with coming_back("cancel", job, "watch"):
                cancelled = client.wait(job)
    print_json(cancelled) if as_json else print_job(cancelled)


@click.command()
@click.argument("job")
@click.option("--wait/--no-wait", default=False, show_default=True, help="Follow it to its end.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
@click.pass_obj
def retry(server: str, job: str, wait: bool, as_json: bool) -> int:
    """Queue a failed or cancelled job again; it goes on at its last checkpoint."""
    with Client(server) as client:
        queued = client.retry(job)
        if wait:
            queued = follow(client, queued)
    print_json(queued) if as_json else print_job(queued)
    return 0 if queued["state"] == "succeeded" or not wait else 1


@click.command()
@click.argument("job")
@click.pass_obj
def delete(server: str, job: str) -> None:
    """Delete a job that has ended, with all that it made."""
    with Client(server) as client:
        client.delete_job(job)


def print_event(event: Document, as_json: bool) -> None:
    """Print an event on one line, as JSON or to read."""
    if as_json:
        click.echo(json.dumps(event))
        return
    known = ("seq", "time", "type", "attempt")
    rest = {name: value for name, value in event.items() if name not in known}
    said = " ".join(f"{name}={_short(value)}" for name, value in rest.items() if value is not None)
    click.echo(f"{event['seq']:>5}  {event['time']}  {event['type']:<8}  {said}")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
