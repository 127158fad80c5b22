"""Options that say something of a job, a model or a data set, and those by which lists filter."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}

Command = Callable[..., Any]


class Label(click.ParamType[tuple[str, str]]):
    """A name and a value, with = between them."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not KEY=VALUE", param, context)
        return key, text


class JsonObject(click.ParamType[dict[str, Any]]):
    """A JSON object."""

    name = "json"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        try:
            found = json.loads(value)
        except json.JSONDecodeError as error:
            self.fail(f"not JSON: {error}", param, context)
        if not isinstance(found, dict):
            self.fail("not a JSON object", param, context)
        return found


def labelled(text: str) -> Callable[[Command], Command]:
    """Give a command `--label`, as `labels`: a dictionary, or None without any."""
    return click.option(
        "--label", "labels", multiple=True, type=Label(), callback=_together, help=text
    )


def described(command: Command) -> Command:
    """Give a command that makes something `--name`, `--label` and `--metadata`."""
    for option in (
        click.option("--metadata", type=JsonObject(), help="A JSON object of yours, to keep."),
        labelled("By which lists are filtered; may be repeated."),
        click.option("--name", help="A name for people."),
    ):
        command = option(command)
    return command


def filtered(command: Command) -> Command:
    """Give a command that lists what every list has, as the client's methods take it."""
    for option in (
        click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True),
        click.option(
            "--sort",
            type=click.Choice(["-created_at", "created_at", "name", "-name"]),
            help="A minus turns the order round.  [default: -created_at]",
        ),
        click.option(
            "--until", "created_before", metavar="WHEN", callback=_past, help="Made before that."
        ),
        click.option(
            "--since",
            "created_after",
            metavar="WHEN",
            callback=_past,
            help="Made from then on: 12h, 7d or 4w ago, or a date.",
        ),
        labelled("Only what has it; of several, all of them."),
        click.option("--search", "q", metavar="TEXT", help="A part of the name or of the id."),
    ):
        command = option(command)
    return command


def moment(text: str, *, ago: bool = False) -> datetime:
    """Read a span from now (or before now), or a date; one without a zone is in UTC."""
    if span := re.fullmatch(r"(\d{1,4})([hdw])", text):
        length = timedelta(**{_UNITS[span[2]]: int(span[1])})
        return datetime.now(UTC) + (-length if ago else length)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is neither 12h, 90d, 52w nor a date") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _past(context: click.Context, option: click.Parameter, text: str | None) -> datetime | None:
    return None if text is None else moment(text, ago=True)


def _together(
    context: click.Context, option: click.Parameter, given: tuple[tuple[str, str], ...]
) -> dict[str, str] | None:
    return dict(given) or None
