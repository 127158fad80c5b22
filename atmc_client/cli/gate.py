"""`atmc gate`: a build goes on only if a job's figures meet its thresholds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from atmc_client import gate as gates
from atmc_client.cli.output import new_table, out, print_job, print_json
from atmc_client.cli.progress import follow
from atmc_client.client import FINAL_STATES, Client, Document
from atmc_client.gate import Check, Threshold, UnknownFigure

MISSED = 4

_OUTPUT = click.Path(dir_okay=False, path_type=Path)


class ThresholdType(click.ParamType[Threshold]):
    """NAME=NUMBER, a bound on a figure."""

    name = "name=number"

    def __init__(self, bound: gates.Bound) -> None:
        self.bound = bound

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> Threshold:
        try:
            return gates.parse(value, self.bound)
        except ValueError as error:
            self.fail(str(error), param, context)


strict_option = click.option(
    "--strict", is_flag=True, help="Judge by the worse end of the 95 % interval."
)


@click.command()
@click.argument("job")
@click.option(
    "--min",
    "least",
    multiple=True,
    type=ThresholdType("at least"),
    help="The figure must be at least so much; may be repeated.",
)
@click.option(
    "--max",
    "most",
    multiple=True,
    type=ThresholdType("at most"),
    help="The figure must be at most so much; may be repeated.",
)
@strict_option
@click.option("--junit", type=_OUTPUT, help="Also write a JUnit XML file, a test case each.")
@click.option("--markdown", type=_OUTPUT, help="Also append a section for the build's page.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Follow it to its end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def gate(
    server: str,
    job: str,
    least: tuple[Threshold, ...],
    most: tuple[Threshold, ...],
    strict: bool,
    junit: Path | None,
    markdown: Path | None,
    wait: bool,
    as_json: bool,
) -> int:
    """Hold a job's figures against thresholds, for a build.

    \b
        atmc gate JOB --min robust_accuracy=0.5 --max file_ratio=0.02 --strict

    A figure is any number of the job's headline (`atmc show JOB --json`), or of an attack of its
    report, such as autoattack_accuracy; without a side (_before, _dense, _after) it is the
    compressed network's. pgd_accuracy_drop and the like is what compression took.

    Exit codes: 0 all are met, 4 one is missed, 1 the job did not succeed, 2 wrong usage, or no such
    job or figure, 3 no answer.
    """
    if not least and not most:
        raise click.UsageError("name a threshold: --min NAME=NUMBER or --max NAME=NUMBER")
    with Client(server) as client:
        found = client.get_job(job)
        if wait and found["state"] not in FINAL_STATES:
            found = follow(client, found)
        if found["state"] != "succeeded":
            print_json({"passed": False, "job": found}) if as_json else print_job(found)
            return 1
        checks = judge(client, found, [*least, *most], strict=strict)
        if junit is not None:
            junit.write_bytes(gates.junit(found, checks))
        if markdown is not None:
            with markdown.open("a", encoding="utf-8") as file:
                file.write(gates.markdown(found, checks, client.url))
    say(found, checks, as_json=as_json)
    return 0 if all(each.passed for each in checks) else MISSED


def judge(
    client: Client, job: Document, thresholds: Sequence[Threshold], *, strict: bool
) -> list[Check]:
    """Hold a job that has succeeded against thresholds; raises UsageError for an unknown figure."""
    figures = gates.figures(job["headline"], client.report(job["id"]))
    try:
        return gates.check(thresholds, figures, strict=strict)
    except UnknownFigure as error:
        raise click.UsageError(str(error)) from error


def say(job: Document, checks: Sequence[Check], *, as_json: bool) -> None:
    """Print the checks of a job."""
    if as_json:
        passed = all(each.passed for each in checks)
        document = [each.document() for each in checks]
        print_json({"passed": passed, "job_id": job["id"], "checks": document})
        return
    table = new_table("threshold", "verdict")
    for column in ("figure", "95 % interval", "asked for"):
        table.add_column(column, justify="right")
    for each in checks:
        verdict = "[green]met[/green]" if each.passed else "[red]missed[/red]"
        exact = each.figure.low == each.figure.high
        interval = "exact" if exact else f"{each.figure.low:.4f} to {each.figure.high:.4f}"
        asked = f"{each.threshold.bound} {each.threshold.limit:g}"
        table.add_row(each.threshold.name, verdict, f"{each.figure.value:.6g}", interval, asked)
    out.print(table)
