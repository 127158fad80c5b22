"""`atmc inspect`: what is in a compressed network's file on this machine."""

import importlib.util
import os
import sys
from pathlib import Path

import click

_NEEDED = ("atmc_reader", "numpy", "constriction")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def inspect(file: Path, as_json: bool) -> None:
    """Show what an .atmc FILE holds, and its bytes, part by part, beside their bound.

    The bound is the entropy if the positions of a factor's non-zeros, and the codes of their
    values, were drawn without regard to each other; numbers are compared with float32.
    """
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise click.UsageError("its reader is missing: pip install 'atmc[reader,client]'")
    # The user's own modules in the current folder must not be taken for ours.
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    options = [*(["--json"] if as_json else []), "--", str(file)]
    command = [sys.executable, "-m", "atmc_reader", *options]
    os.execve(sys.executable, command, environment)
