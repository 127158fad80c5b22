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
        """Start a sweep: several jobs of one model and data set, of which the best is sought.

        Example:
            ```python
            grid = {"densities": [0.1, 0.05, 0.01], "bits": [8, 4]}
            sweep = client.sweep("mdl_...", "dst_...", spec, grid=grid)
            sweep = client.wait_sweep(sweep["id"])
            best = sweep["trials"][sweep["best"]]["headline"]
            ```

        Args:
            model: as for `submit`.
            dataset: as for `submit`.
            spec: the base of every trial.
            architecture: as for `submit`; a model's file needs it.
            normalization: as for `submit`.
            on_bytes: as for `submit`.
            wanted: the other fields of `POST /sweeps`: `grid`, `specs` or `goal`, and `minimise`,
                `trials`, `from_denser`, `max_parallel`, `time_limit_s`, `trial_time_limit_s`,
                `max_trials`, `name`, `priority`, `resources`, `webhook`; None is left out.

        Returns:
            The sweep, running.

        Raises:
            InvalidRequest: a file, the spec or the plan cannot be used; `param` says what of it.
            OSError: a file cannot be read.
            ValueError: the architecture of a model's file is missing.
        """
        document = {name: value for name, value in wanted.items() if value is not None}
        model, dataset = self.known(model, architecture, dataset, normalization)
        with self.sent(model, architecture, dataset, normalization, on_bytes) as ids:
            body = document | ids | {"spec": dict(spec)}
            sweep: NewSweep = self._transport.post("/sweeps", lambda: {"json": body})
            return sweep

    def get_sweep(self, sweep_id: str, *, wait_s: int | None = None) -> SweepWithTrials:
        """The sweep with its trials.

        Args:
            sweep_id: which.
            wait_s: do not answer before its state changes or so many seconds pass, 1 to 60.

        Raises:
            NotFound: there is no such sweep.
        """
        sweep: SweepWithTrials = self._get(f"/sweeps/{sweep_id}", wait=wait_s)
        return sweep

    def list_sweeps(self, *, state: str | None = None, limit: int = 20) -> list[Sweep]:
        """The newest sweeps, without their trials.

        Args:
            state: only of this state.
            limit: at most so many.
        """
        return self._list("/sweeps", limit, state=state)

    def wait_sweep(
        self,
        sweep_id: str,
        *,
        on_update: Callable[[SweepWithTrials], None] | None = None,
        timeout_s: float | None = None,
    ) -> SweepWithTrials:
        """Wait until the sweep has ended, whichever way.

        Args:
            sweep_id: which.
            on_update: called with the sweep about twice a second.
            timeout_s: wait no longer than so many seconds.

        Raises:
            TimeoutError: after `timeout_s`; the sweep itself goes on.
            NotFound: there is no such sweep, or it was deleted meanwhile.
        """
        sweep: SweepWithTrials = self._wait(f"/sweeps/{sweep_id}", on_update, timeout_s)
        return sweep

    def sweep_events(
        self, sweep_id: str, *, after: int = 0, follow: bool = False
    ) -> Iterator[SweepEvent]:
        """What happened to the sweep, in order. As `events` for jobs.

        Args:
            sweep_id: which.
            after: only events with a `seq` above this.
            follow: go on until the sweep has ended.

        Raises:
            NotFound: there is no such sweep.
        """
        return self._events(f"/sweeps/{sweep_id}", after, follow)

    def cancel_sweep(self, sweep_id: str) -> SweepWithTrials:
        """Ask for the end of the sweep and of its trials.

        Args:
            sweep_id: which.

        Returns:
            The sweep, perhaps not yet ended.

        Raises:
            Conflict: it has already ended.
            NotFound: there is no such sweep.
        """
        sweep: SweepWithTrials = self._transport.post(f"/sweeps/{sweep_id}/cancel")
        return sweep

    def delete_sweep(self, sweep_id: str) -> None:
        """Delete a sweep that has ended, with its trials and all that they made.

        Args:
            sweep_id: which.

        Raises:
            Conflict: it has not ended: `cancel_sweep` first.
            NotFound: there is no such sweep.
        """
        self._transport.delete(f"/sweeps/{sweep_id}")
