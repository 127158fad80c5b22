"""The output of the commands on sweeps: a table of the trials, their figure, what was found."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from atmc_client.cli.figure import HEIGHT, Point, figure
from atmc_client.cli.output import err, new_table, out
from atmc_client.client import Document

OnUpdate = Callable[[Document], None]

_ACTIVE = ("validating", "running")
_AROUND = 12  # lines of the view beside the table's rows and the figure's
_JOB_WIDTH = 110  # of a terminal that has room for the jobs' ids


def print_sweep(sweep: Document) -> None:
    """Print a sweep: where it stands, its trials, the figure, the best."""
    out.print(_view(sweep, out.width, None))


def sweeps_table(sweeps: Sequence[Document]) -> Table:
    """One line a sweep, the newest first."""
    table = new_table("sweep", "name", "state", "trials", "created")
    table.columns[0].no_wrap = True
    for sweep in sweeps:
        created = sweep["created_at"][:16].replace("T", " ")
        name = escape(sweep["name"] or "")
        table.add_row(sweep["id"], name, sweep["state"], _counts(sweep), created)
    return table


@contextmanager
def watching(sweep_id: str) -> Iterator[OnUpdate]:
    """Yield the function to call with each new version of the sweep: it shows that live.

    On a terminal it is a table with the figure, elsewhere a line for each trial that changes.
    """
    if not err.is_terminal:
        yield _by_lines(sweep_id)
        return
    with Live(console=err, auto_refresh=False, transient=True) as live:

        def update(sweep: Document) -> None:
            rows = max(4, err.height - _AROUND - HEIGHT)
            live.update(_view(sweep, err.width, rows), refresh=True)

        yield update


def _view(sweep: Document, width: int, most: int | None) -> RenderableType:
    name = f" ({escape(sweep['name'])})" if sweep["name"] else ""
    parts: list[RenderableType] = [
        f"{sweep['id']}{name}: [bold]{sweep['state']}[/bold], {_counts(sweep)}{_left(sweep)}",
        _trials_table(sweep, width, most),
    ]
    if points := _points(sweep):
        floor = sweep["goal"]["robust_accuracy"] if sweep["goal"] else None
        parts += [figure(points, floor, width), ""]
    said = [_said(sweep, trial) for trial in sweep["trials"] if _why(trial)]
    # The newest reason alone while it is live: the table has the room.
    parts += [Text(line) for line in (said if most is None else said[-1:])]
    if sweep["message"]:
        parts.append(Text(sweep["message"]))
    if sweep["best"] is not None:
        best = sweep["trials"][sweep["best"]]
        parts.append(Text(f"best: {_named(best)}: atmc download {best['job_id']}"))
    return Group(*parts)


def _trials_table(sweep: Document, width: int, most: int | None) -> Table:
    trials = _chosen(sweep, most)
    paths = list(dict.fromkeys(path for trial in sweep["trials"] for path in trial["point"]))
    # The figures' sides, and whether latency was measured in any trial.
    timed = any((trial["headline"] or {}).get("latency_c_s") for trial in trials)
    with_job = width >= _JOB_WIDTH
    table = new_table("trial", *map(_short, paths), "state", "clean", "robust", "bytes")
    for column in table.columns[-3:]:
        column.justify = "right"
    if timed:
        table.add_column("one image", justify="right")
    table.add_column("front")
    if with_job:
        table.add_column("job", no_wrap=True)
    for trial in trials:
        point = [_shown(trial["point"].get(path)) for path in paths]
        cells = [str(trial["index"]), *map(escape, point), _where(trial), *_figures(trial)]
        if timed:
            seconds = (trial["headline"] or {}).get("latency_c_s")
            cells.append("" if seconds is None else f"{1000 * seconds:.3g} ms")
        on_front = trial["index"] in sweep["front"]
        cells.append("★ best" if trial["index"] == sweep["best"] else "●" if on_front else "")
        table.add_row(*cells, *([trial["job_id"] or ""] if with_job else []))
    if len(trials) < len(sweep["trials"]):
        table.caption = f"and {len(sweep['trials']) - len(trials)} more"
    return table


def _chosen(sweep: Document, most: int | None) -> Sequence[Document]:
    """At most so many trials: those at work before those on the front before the rest."""
    trials: Sequence[Document] = sweep["trials"]
    front = {*sweep["front"], sweep["best"]}
    ranked = sorted(trials, key=lambda t: (t["state"] not in _ACTIVE, t["index"] not in front))
    return sorted(ranked[:most], key=lambda trial: trial["index"])


def _points(sweep: Document) -> list[Point]:
    points = []
    for trial in sweep["trials"]:
        figures = trial["headline"] or {}
        names = ("file_bytes", "clean_accuracy_after", "robust_accuracy_after")
        size, clean, robust = map(figures.get, names)
        if size and clean is not None and robust is not None:
            index = trial["index"]
            front, best = index in sweep["front"], index == sweep["best"]
            points.append(Point(index, size, clean, robust, front, best))
    return points


def _figures(trial: Document) -> tuple[str, str, str]:
    figures = trial["headline"] or {}
    clean, robust = (figures.get(f"{name}_accuracy_after") for name in ("clean", "robust"))
    size = figures.get("file_bytes")
    return (
        "" if clean is None else f"{100 * clean:.2f} %",
        "" if robust is None else f"{100 * robust:.2f} %",
        "" if size is None else f"{size:,}",
    )


def _where(trial: Document) -> str:
    if trial["state"] not in _ACTIVE or not trial["stage"]:
        return str(trial["state"])
    left = f", {_span(trial['eta_s'])} left" if trial["eta_s"] is not None else ""
    return f"{trial['stage']} {100 * trial['progress']:.0f} %{left}"


def _counts(sweep: Document) -> str:
    counts: dict[str, int] = sweep["counts"]
    some = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return some or "no trials yet"


def _left(sweep: Document) -> str:
    if sweep["state"] == "running" and sweep["eta_s"] is not None:
        return f"; {_span(sweep['eta_s'])} left"
    return f"; {_span(sweep['seconds'])}" if sweep["seconds"] is not None else ""


def _said(sweep: Document, trial: Document) -> str:
    confirms = f", confirms trial {trial['confirms']}" if trial.get("confirms") is not None else ""
    return f"trial {trial['index']}{confirms}: {_why(trial)}"


def _why(trial: Document) -> str:
    """Why a trial was tried or left out, and why it failed, if it did."""
    error = trial["error"]
    failed = f"{error['code']}: {error['message']}" if error else ""
    return "; ".join(text for text in (trial["reason"], failed) if text)


def _named(trial: Document) -> str:
    point = ", ".join(f"{_short(path)} {_shown(value)}" for path, value in trial["point"].items())
    return f"trial {trial['index']}" + (f" ({point})" if point else "")


def _short(path: str) -> str:
    return path.rpartition(".")[2].replace("_", " ")


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _by_lines(sweep_id: str) -> OnUpdate:
    said: dict[int, str] = {}

    def update(sweep: Document) -> None:
        for trial in sweep["trials"]:
            if trial["state"] != "planned" and said.get(trial["index"]) != trial["state"]:
                said[trial["index"]] = trial["state"]
                err.print(f"{sweep_id}: {_line(trial)}", markup=False, soft_wrap=True)

    return update


def _line(trial: Document) -> str:
    names: Sequence[str] = ("clean", "robust", "bytes")
    found = [f"{name} {text}" for name, text in zip(names, _figures(trial), strict=True) if text]
    why = _why(trial) if trial["state"] != "succeeded" else ""
    return ", ".join([f"{_named(trial)}: {trial['state']}", *found, *([why] if why else [])])
