# Written from atmc_client/aio/sweeps.py by `make generate`: edit that.
"""The calls on sweeps."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from atmc_client.sync.calls import given
from atmc_client.sync.inputs import Inputs
from atmc_client.types.answers import (
    Goal,
    NewSweep,
    Resources,
    Sweep,
    SweepEvent,
    SweepWithTrials,
)
from atmc_client.types.requests import NewWebhook
from atmc_client.uploads import Given, OnBytes


class Sweeps(Inputs):
    """The calls on sweeps."""

    def sweep(
        self,
        model: Given,
        dataset: Given,
        spec: Mapping[str, Any],
        *,
        architecture: str | None = None,
        normalization: Mapping[str, Sequence[float]] | None = None,
        grid: Mapping[str, Any] | None = None,
        specs: Sequence[Mapping[str, Any]] | None = None,
        goal: Goal | None = None,
        minimise: str | None = None,
        trials: int | None = None,
        from_denser: bool | None = None,
        max_parallel: int | None = None,
        max_trials: int | None = None,
        time_limit_s: float | None = None,
        trial_time_limit_s: float | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int | None = None,
        resources: Resources | None = None,
        webhook: NewWebhook | None = None,
        on_bytes: OnBytes | None = None,
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
            model: as for `submit`; what the service fetches is waited for.
            dataset: as for `submit`, likewise.
            spec: the base of every trial.
            architecture: as for `submit`; None of a model's id.
            normalization: as for `submit`.
            grid: lists of values, of which every combination is a trial: `densities` or
                `nominal_ratios`, `bits`, `methods`, `seeds`, and `fields` for any other.
            specs: instead of these: partial specs, each laid over `spec`.
            goal: instead of both: `{"robust_accuracy": 0.5, "attack": "autoattack"}`, to be held.
            minimise: of a goal: `file_bytes`, the default.
            trials: of a goal: so many at most.
            from_denser: whether a trial starts from its denser neighbour, as by default.
            max_parallel: so many trials are queued or running at once.
            max_trials: a grid of more is refused.
            time_limit_s: seconds after which no trial begins, and those that run are cancelled.
            trial_time_limit_s: the `time_limit_s` of each trial.
            name: what people call the sweep.
            labels: those of each trial.
            priority: that of each trial.
            resources: those of each trial.
            webhook: who is told of this sweep; the answer's has the `secret`.
            on_bytes: as for `submit`.

        Returns:
            The sweep, running.

        Raises:
            InvalidRequest: a file, the spec or the plan cannot be used; `param` says what of it.
            OSError: a file cannot be read.
            ValueError: the architecture of a model's file is missing.
        """
        wanted = given(
            spec=dict(spec),
            grid=grid and dict(grid),
            specs=specs and [dict(each) for each in specs],
            goal=goal,
            minimise=minimise,
            trials=trials,
            from_denser=from_denser,
            max_parallel=max_parallel,
            max_trials=max_trials,
            time_limit_s=time_limit_s,
            trial_time_limit_s=trial_time_limit_s,
            name=name,
            labels=labels and dict(labels),
            priority=priority,
            resources=resources,
            webhook=webhook,
        )
        model, dataset = self._known(model, architecture, dataset, normalization)
        with self._sent(model, architecture, dataset, normalization, on_bytes, fetched=True) as ids:
            body = wanted | ids
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
        return self._list("/sweeps", limit, {"state": state})

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
