"""A job's progress on standard error: a bar on a terminal, a line a stage elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from atmc_client.cli.output import err
from atmc_client.client import Client

OnUpdate = Callable[[dict[str, Any]], None]


@contextmanager
def following(job_id: str) -> Iterator[OnUpdate]:
    """Yield the function to call with each new version of the job."""
    if not err.is_terminal:
        yield _by_lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}"),
    )
    with Progress(*columns, console=err) as bars:
        bar = bars.add_task(job_id, total=1.0, eta="")

        def update(job: dict[str, Any]) -> None:
            bars.update(bar, completed=job["progress"], description=_stage(job), eta=_eta(job))

        yield update


def follow(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    """Show the job's progress until it has ended; returns it. Ctrl-C says how to come back."""
    err.print(f"{job['id']} at {client.url}")
    try:
        with following(job["id"]) as update:
            return client.wait(job["id"], on_update=update)
    except KeyboardInterrupt:
        err.print(f"the job goes on: atmc show {job['id']}, or atmc cancel {job['id']}")
        raise


def _by_lines() -> OnUpdate:
    said = ""

    def update(job: dict[str, Any]) -> None:
        nonlocal said
        now = job["stage"] if _is_active(job) and job["stage"] else job["state"]
        if now != said:
            said = now
            err.print(f"{job['id']}: {now}  {_eta(job)}".rstrip(), markup=False)

    return update


def _stage(job: dict[str, Any]) -> str:
    if not _is_active(job) or not job["stage"]:
        return str(job["state"])
    epoch = f" {job['epoch']}/{job['epochs']}" if job["epochs"] else ""
    return f"{job['stage']}{epoch}"


def _eta(job: dict[str, Any]) -> str:
    if job["eta_s"] is None or not _is_active(job):
        return ""
    return f"{timedelta(seconds=round(job['eta_s']))} left"


def _is_active(job: dict[str, Any]) -> bool:
    return job["state"] in ("validating", "running")
