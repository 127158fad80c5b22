"""A job as it runs, on standard error: live on a terminal, line by line elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from atmc_client.cli.output import err, waiting_for
from atmc_client.cli.sparkline import sparkline
from atmc_client.client import Client, Document
from atmc_client.errors import InvalidRequest
from atmc_client.types.answers import Job
from atmc_client.uploads import OnBytes

OnUpdate = Callable[[Document], None]

_BAR, _SPARKLINE = 40, 60  # characters
# Where nobody watches, figures of training come no more often than that.
_LINE_S = 10.0
# What a metric event has of an epoch of training, and how it is written.
_FIGURES: dict[str, Callable[[float], str]] = {
    "loss": "{:.4g}".format,
    "validation_accuracy": lambda share: f"{100 * share:.1f} %",
}


@dataclass
class Training:
    """What a job's events tell of its training so far; `last` is the newest of them."""

    client: Client
    job_id: str
    last: Document = field(default_factory=dict)
    _seen: int = 0
    # By stage and epoch: one that is done again after a crash replaces what it told before.
    _told: dict[tuple[str, int], Document] = field(default_factory=dict)

    def update(self) -> None:
        """Read the events that are new."""
        for event in self.client.events(self.job_id, after=self._seen):
            self._seen = event["seq"]
            if event["type"] == "metric" and "loss" in event:
                self._told[event["stage"], event["epoch"]] = self.last = event

    def series(self, name: str) -> list[float]:
        """The figure's values over the epochs of all stages, one after the other."""
        values = [event.get(name) for event in self._told.values()]
        return [value for value in values if value is not None]


def follow(client: Client, job: Document) -> Job:
    """Show the job until it has ended; returns it. Ctrl-C says how to come back."""
    err.print(f"{job['id']} at {client.url}", soft_wrap=True)
    with coming_back("job", job["id"], "watch", "cancel"):
        _show_fetching(client, job)
        with _shown(client, job["id"]) as update:
            return client.wait(job["id"], on_update=update)


def _show_fetching(client: Client, job: Document) -> None:
    """Show how far the files are that the service fetches for the job, until it has them."""
    if (job.get("waiting") or {}).get("code") != "fetching_inputs":
        return
    err.print(f"{job['id']}: fetching_inputs", markup=False, soft_wrap=True)
    # One that cannot be had fails the job, which says so.
    with bytes_shown() as update, suppress(InvalidRequest):
        client.wait_model(job["model_id"], on_bytes=update)
        client.wait_dataset(job["dataset_id"], on_bytes=update)


@contextmanager
def bytes_shown() -> Iterator[OnBytes]:
    """Yield the function to call as files come through: a bar for each, on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as shown:
        bars: dict[str, TaskID] = {}

        def update(name: str, there: int, total: int) -> None:
            if name not in bars:
                bars[name] = shown.add_task(escape(name), total=total)
            shown.update(bars[name], completed=there, total=total)

        yield update


@contextmanager
def coming_back(what: str, id_: str, watch: str, cancel: str | None = None) -> Iterator[None]:
    """Have Ctrl-C say that what is followed goes on, and by which commands one comes back to it."""
    try:
        yield
    except KeyboardInterrupt:
        end = f", or {same_service(cancel)} {id_}" if cancel else ""
        said = f"the {what} goes on: {same_service(watch)} {id_}{end}"
        err.print(said, soft_wrap=True, markup=False)
        raise


def same_service(command: str) -> str:
    """An `atmc` command to paste, with the options that this one found its service by."""
    root = click.get_current_context().find_root()
    given = [
        f"--{name} {root.params[name]} "
        for name in ("config", "profile", "server")
        if root.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    return f"atmc {''.join(given)}{command}"


@contextmanager
def _shown(client: Client, job_id: str) -> Iterator[OnUpdate]:
    """Yield the function to call with each new version of the job."""
    training = Training(client, job_id)
    if not err.is_terminal:
        yield _by_lines(training)
        return
    with Live(console=err, auto_refresh=False) as live:

        def update(job: Document) -> None:
            training.update()
            live.update(_view(job, training, err.width), refresh=True)

        yield update


def _view(job: Document, training: Training, width: int) -> RenderableType:
    line = Table.grid(padding=(0, 1))
    name = f" ({escape(job['name'])})" if job["name"] else ""
    bar = ProgressBar(total=1.0, completed=job["progress"], width=min(_BAR, max(10, width // 4)))
    share = f"{100 * job['progress']:3.0f} %"
    line.add_row(f"{_stage(job)}{name}", bar, share, _eta(job))
    parts: list[RenderableType] = [line]
    room = min(_SPARKLINE, width - 30)
    if waiting := waiting_for(job):
        parts.append(Text(waiting))
    figures = Table.grid(padding=(0, 1))
    for label, text, values in _figures(training):
        figures.add_row(label, Text(sparkline(values, room), style="cyan"), text)
    if figures.row_count and room > 0:
        parts.append(figures)
    return Group(*parts)


def _figures(training: Training) -> list[tuple[str, str, list[float]]]:
    """Loss, and accuracy on the validation images: what it is called, the last one, all of them."""
    series = ((name, form, training.series(name)) for name, form in _FIGURES.items())
    return [(_words(name), form(values[-1]), values) for name, form, values in series if values]


def _by_lines(training: Training) -> OnUpdate:
    said, told, at = "", training.last, time.monotonic()

    def update(job: Document) -> None:
        nonlocal said, told, at
        stage = job["stage"] if _is_active(job) and job["stage"] else job["state"]
        if stage == said and time.monotonic() - at < _LINE_S:
            return
        training.update()
        lines = []
        if training.last is not told:
            told = training.last
            lines.append(_epoch(told))
        if stage != said:
            said = stage
            lines.append(f"{stage}  {_eta(job) or waiting_for(job)}".rstrip())
        for line in lines:
            at = time.monotonic()
            err.print(f"{job['id']}: {line}", markup=False, soft_wrap=True)

    return update


def _epoch(event: Document) -> str:
    figures = [
        f"{_words(name)} {form(event[name])}" for name, form in _FIGURES.items() if name in event
    ]
    return f"{event['stage']}, epoch {event['epoch']}: {', '.join(figures)}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _stage(job: Document) -> str:
    if not _is_active(job) or not job["stage"]:
        return str(job["state"])
    epoch = f" {job['epoch']}/{job['epochs']}" if job["epochs"] else ""
    return f"{job['stage']}{epoch}"


def _eta(job: Document) -> str:
    if job["eta_s"] is None or not _is_active(job):
        return ""
    return f"{timedelta(seconds=round(job['eta_s']))} left"


def _is_active(job: Document) -> bool:
    return job["state"] in ("validating", "running")
