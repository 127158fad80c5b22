# Written from atmc_client/aio/sweeps.py by `make generate`: edit that.
"""The calls on sweeps."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from atmc_client.sync.uploads import Uploads
from atmc_client.types.answers import NewSweep, Sweep, SweepEvent, SweepWithTrials
from atmc_client.uploads import OnBytes


class Sweeps(Uploads):
    """The calls on sweeps."""

    def sweep(
        self,
        model: str | Path,
        dataset: str | Path,
        spec: Mapping[str, Any],
        *,
        architecture: str | None = None,
        normalization: Mapping[str, Sequence[float]] | None = None,
        on_bytes: OnBytes | None = None,
        **wanted: Any,
    ) -> NewSweep:
        """Start a sweep; returns it, running.

        `model` and `dataset` are files, streamed first unless the service has them, or ids of what
        was uploaded before (`mdl_...`, `dst_...`); a file of a model needs `architecture`. `spec`
        is the base of every trial. `wanted` are the other fields of `POST /sweeps`: `grid`, `specs`
        or `goal`, and `minimise`, `trials`, `from_denser`, `max_parallel`, `time_limit_s`,
        `trial_time_limit_s`, `max_trials`, `name`, `priority`, `resources`, `webhook`; None is left
        out. If the sweep is refused, what was uploaded for it is deleted again. Raises OSError if a
        file cannot be read, ValueError for a model's file without an architecture.
        """
        document = {name: value for name, value in wanted.items() if value is not None}
        model, dataset = self.known(model, architecture, dataset, normalization)
        with self.sent(model, architecture, dataset, normalization, on_bytes) as ids:
            body = document | ids | {"spec": dict(spec)}
            sweep: NewSweep = self._transport.post("/sweeps", lambda: {"json": body})
            return sweep

    def get_sweep(self, sweep_id: str, *, wait_s: int | None = None) -> SweepWithTrials:
        """The sweep with its trials; with `wait_s` not before its state changes or that time."""
        sweep: SweepWithTrials = self._get(f"/sweeps/{sweep_id}", wait=wait_s)
        return sweep

    def list_sweeps(self, *, state: str | None = None, limit: int = 20) -> list[Sweep]:
        """The newest sweeps without their trials, at most `limit`, of one `state` or of all."""
        return self._list("/sweeps", limit, state=state)

    def wait_sweep(
        self,
        sweep_id: str,
        *,
        on_update: Callable[[SweepWithTrials], None] | None = None,
        timeout_s: float | None = None,
    ) -> SweepWithTrials:
        """Wait until the sweep has ended, whichever way; returns it. As `wait` for jobs."""
        sweep: SweepWithTrials = self._wait(f"/sweeps/{sweep_id}", on_update, timeout_s)
        return sweep

    def sweep_events(
        self, sweep_id: str, *, after: int = 0, follow: bool = False
    ) -> Iterator[SweepEvent]:
        """The events of the sweep with a number above `after`, in order. As `events` for jobs."""
        return self._events(f"/sweeps/{sweep_id}", after, follow)

    def cancel_sweep(self, sweep_id: str) -> SweepWithTrials:
        """Ask for the end of the sweep and of its trials; returns it, perhaps not yet ended."""
        sweep: SweepWithTrials = self._transport.post(f"/sweeps/{sweep_id}/cancel")
        return sweep

    def delete_sweep(self, sweep_id: str) -> None:
        """Delete a sweep that has ended, with its trials and all that they made."""
        self._transport.delete(f"/sweeps/{sweep_id}")
