"""`atmc sweeps`: list, show, watch, cancel and delete sweeps."""

import click

from atmc_client.cli.jobs import print_event
from atmc_client.cli.output import out, print_json
from atmc_client.cli.progress import coming_back
from atmc_client.cli.sweep import watch_to_end
from atmc_client.cli.sweep_output import print_sweep, sweeps_table
from atmc_client.client import FINAL_STATES, Client


@click.group(invoke_without_command=True)
@click.option("--state", help="Only sweeps in this state.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the sweeps as a JSON array.")
@click.pass_context
def sweeps(context: click.Context, state: str | None, limit: int, as_json: bool) -> None:
    """List the newest sweeps, or look at one: `atmc sweep` starts them."""
    if context.invoked_subcommand is not None:
        return
    with Client(context.obj) as client:
        found = client.list_sweeps(state=state, limit=limit)
    print_json(found) if as_json else out.print(sweeps_table(found))


@sweeps.command()
@click.argument("sweep")
@click.option("--events", is_flag=True, help="Show its events one by one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --events one a line.")
@click.pass_obj
def show(server: str, sweep: str, events: bool, as_json: bool) -> None:
    """Show a sweep: its trials, the figure, the best that was found."""
    with Client(server) as client:
        if events:
            for event in client.sweep_events(sweep):
                print_event(event, as_json)
            return
        found = client.get_sweep(sweep)
    print_json(found) if as_json else print_sweep(found)


@sweeps.command()
@click.argument("sweep")
@click.option("--json", "as_json", is_flag=True, help="Print the sweep as JSON once it has ended.")
@click.pass_obj
def watch(server: str, sweep: str, as_json: bool) -> int:
    """Follow a sweep to its end; Ctrl-C leaves it at work.

    Exit codes: 0 it succeeded, 1 it did not.
    """
    with Client(server) as client:
        return watch_to_end(client, sweep, as_json)


@sweeps.command()
@click.argument("sweep")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print the sweep as JSON.")
@click.pass_obj
def cancel(server: str, sweep: str, wait: bool, as_json: bool) -> None:
    """Cancel a sweep with the trials that have not ended."""
    with Client(server) as client:
        cancelled = client.cancel_sweep(sweep)
        if wait and cancelled["state"] not in FINAL_STATES:
            with coming_back("cancel", sweep, "sweeps watch"):
                cancelled = client.wait_sweep(sweep)
    print_json(cancelled) if as_json else print_sweep(cancelled)


@sweeps.command()
@click.argument("sweep")
@click.pass_obj
def delete(server: str, sweep: str) -> None:
    """Delete a sweep that has ended, with its trials and all that they made."""
    with Client(server) as client:
        client.delete_sweep(sweep)
