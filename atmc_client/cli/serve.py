"""`atmc serve`: the service on this machine."""

import importlib.util
import os
import sys

import click


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
    short_help="Run the service on this machine until Ctrl-C.",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve(options: tuple[str, ...]) -> None:
    """Become `python -m launcher`, which gets every option as it stands and every signal."""
    if importlib.util.find_spec("launcher") is None:
        raise click.UsageError(
            "this is the client alone; to run the service too: "
            "pip install 'atmc[api,worker,embedded,client]'"
        )
    # The user's own `api` or `worker` in the current folder must not be taken for ours.
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    # In this process's place, so that no signal and no exit code can get lost between two.
    os.execve(sys.executable, [sys.executable, "-m", "launcher", *options], environment)
