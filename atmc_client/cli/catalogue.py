"""`atmc architectures`, `atmc methods` and `atmc attacks`: what may be asked for."""

from collections.abc import Callable, Sequence

import click

from atmc_client.cli.output import new_table, out, print_json
from atmc_client.client import Client, Document


def _command(kind: str, entries: Callable[[Client], Sequence[Document]], doc: str) -> click.Command:
    @click.command(kind, help=doc)
    @click.option("--json", "as_json", is_flag=True, help="Print all there is to know, as JSON.")
    @click.pass_obj
    def command(server: str, as_json: bool) -> None:
        with Client(server) as client:
            found = entries(client)
        if as_json:
            print_json(found)
            return
        table = new_table("name", "what it is")
        for entry in found:
            table.add_row(entry["name"], entry["description"])
        out.print(table)

    return command


architectures = _command(
    "architectures", Client.architectures, "List the networks that may be sent."
)
methods = _command("methods", Client.methods, "List the methods; --json has each one's spec.")
attacks = _command("attacks", Client.attacks, "List the attacks of training and report.")
