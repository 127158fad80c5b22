"""The calls on sweeps."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from atmc_client.calls import Document, OnUpdate
from atmc_client.errors import ApiError, ServerUnreachable
from atmc_client.uploads import Uploads, is_id


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
        **wanted: Any,
    ) -> Document:
        """Start a sweep; returns it, running.

        `model` and `dataset` are files, streamed first unless the service has them, or ids of what
        was uploaded before (`mdl_...`, `dst_...`); a file of a model needs `architecture`. `spec`
        is the base of every trial. `wanted` are the other fields of `POST /sweeps`: `grid`, `specs`
        or `goal`, and `minimise`, `trials`, `from_denser`, `max_parallel`, `time_limit_s`,
        `trial_time_limit_s`, `max_trials`, `name`, `priority`, `resources`, `webhook`; None is left
        out. If the sweep is refused, what was uploaded for it is deleted again. Raises OSError if a
        file cannot be read, ValueError for a model's file without an architecture.
        """
        # Whichever cannot be read is found out before anything is sent.
        for file in (model, dataset):
            if not is_id(file):
                Path(file).open("rb").close()
        undo: list[Callable[[], None]] = []
        try:
            document = {name: value for name, value in wanted.items() if value is not None}
            document |= {
                "model_id": self._model_id(model, architecture, normalization, undo),
                "dataset_id": self._dataset_id(dataset, undo),
                "spec": dict(spec),
            }
            sweep: Document = self._transport.post("/sweeps", lambda: {"json": document})
            return sweep
        except ApiError:
            for delete in undo:
                with suppress(ApiError, ServerUnreachable):
                    delete()
            raise

    def get_sweep(self, sweep_id: str, *, wait_s: int | None = None) -> Document:
        """The sweep with its trials; with `wait_s` not before its state changes or that time."""
        return self._get(f"/sweeps/{sweep_id}", wait=wait_s)

    def list_sweeps(self, *, state: str | None = None, limit: int = 20) -> list[Document]:
        """The newest sweeps without their trials, at most `limit`, of one `state` or of all."""
        return self._list("/sweeps", limit, state=state)

    def wait_sweep(
        self, sweep_id: str, *, on_update: OnUpdate | None = None, timeout_s: float | None = None
    ) -> Document:
        """Wait until the sweep has ended, whichever way; returns it. As `wait` for jobs."""
        return self._wait(f"/sweeps/{sweep_id}", on_update, timeout_s)

    def sweep_events(
        self, sweep_id: str, *, after: int = 0, follow: bool = False
    ) -> Iterator[Document]:
        """The events of the sweep with a number above `after`, in order. As `events` for jobs."""
        return self._events(f"/sweeps/{sweep_id}", after, follow)

    def cancel_sweep(self, sweep_id: str) -> Document:
        """Ask for the end of the sweep and of its trials; returns it, perhaps not yet ended."""
        sweep: Document = self._transport.post(f"/sweeps/{sweep_id}/cancel")
        return sweep

    def delete_sweep(self, sweep_id: str) -> None:
        """Delete a sweep that has ended, with its trials and all that they made."""
        self._transport.delete(f"/sweeps/{sweep_id}")

    def _model_id(
        self,
        model: str | Path,
        architecture: str | None,
        normalization: Mapping[str, Sequence[float]] | None,
        undo: list[Callable[[], None]],
    ) -> str:
        if is_id(model):
            return str(model)
        if architecture is None:
            raise ValueError(f"the architecture of {model} is needed")
        known = self.find_model(model, architecture, normalization=normalization)
        if known is not None:
            return known
        uploaded = self.upload_model(model, architecture, normalization=normalization)
        model_id: str = uploaded["id"]
        undo.append(lambda: self.delete_model(model_id))
        return model_id

    def _dataset_id(self, dataset: str | Path, undo: list[Callable[[], None]]) -> str:
        if is_id(dataset):
            return str(dataset)
        known = self.find_dataset(dataset)
        if known is not None:
            return known
        dataset_id: str = self.upload_dataset(dataset)["id"]
        undo.append(lambda: self.delete_dataset(dataset_id))
        return dataset_id
