# Written from atmc_client/aio/uploads.py by `make generate`: edit that.
"""The calls on models and data sets, which jobs and sweeps are made of."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from atmc_client.errors import ApiError, ServerUnreachable
from atmc_client.sync.calls import Body, Calls
from atmc_client.sync.waits import in_thread
from atmc_client.types.answers import Dataset, Model
from atmc_client.uploads import is_id, sha256_of

# What a service of a version before lists were answers to the question for one.
_NO_LISTS = (404, 405)


class Uploads(Calls):
    """The calls on models and data sets."""

    def upload_model(
        self,
        path: str | Path,
        architecture: str,
        *,
        normalization: Mapping[str, Sequence[float]] | None = None,
    ) -> Model:
        """Send a network's file, as `submit` takes it; its `id` stands for it from then on."""
        fields = {"architecture": (None, architecture.encode())}
        if normalization is not None:
            fields["normalization"] = (None, json.dumps(normalization).encode())
        model: Model = self._upload("/models", path, fields)
        return model

    def upload_dataset(self, path: str | Path) -> Dataset:
        """Send a data set's file; its `id` stands for it from then on."""
        dataset: Dataset = self._upload("/datasets", path, {})
        return dataset

    def delete_model(self, model_id: str) -> None:
        """Delete an uploaded network that no job is made of."""
        self._transport.delete(f"/models/{model_id}")

    def delete_dataset(self, dataset_id: str) -> None:
        """Delete an uploaded data set that no job is made of."""
        self._transport.delete(f"/datasets/{dataset_id}")

    def list_models(
        self, *, q: str | None = None, sha256: str | None = None, limit: int = 20
    ) -> list[Model]:
        """The newest uploaded networks; `q` is a part of the file's name or of the id."""
        return self._list("/models", limit, q=q, sha256=sha256)

    def list_datasets(
        self, *, q: str | None = None, sha256: str | None = None, limit: int = 20
    ) -> list[Dataset]:
        """The newest uploaded data sets; `q` is a part of the file's name or of the id."""
        return self._list("/datasets", limit, q=q, sha256=sha256)

    def find_model(
        self,
        path: str | Path,
        architecture: str,
        *,
        normalization: Mapping[str, Sequence[float]] | None = None,
    ) -> str | None:
        """The id of this file where it was uploaded before, as this network; None if it was not.

        The file is hashed here, and its hash is all that is sent.
        """
        wanted = _numbers(normalization)
        for found in self._known("/models", path):
            if found["architecture"] == architecture and _numbers(found["normalization"]) == wanted:
                return str(found["id"])
        return None

    def find_dataset(self, path: str | Path) -> str | None:
        """The id of this file where it was uploaded before; None if it was not. As `find_model`."""
        known = self._known("/datasets", path)
        return str(known[0]["id"]) if known else None

    def known(
        self,
        model: str | Path,
        architecture: str | None,
        dataset: str | Path,
        normalization: Mapping[str, Sequence[float]] | None,
    ) -> tuple[str | Path, str | Path]:
        """A model and a data set, each a file or an id, as ids where the service has the file.

        Nothing but hashes is sent. Raises OSError for a file that cannot be read, ValueError for a
        model's without an architecture.
        """
        for file in (model, dataset):
            if not is_id(file):
                Path(file).open("rb").close()
        if not is_id(model):
            if architecture is None:
                raise ValueError(f"the architecture of {model} is needed")
            found = self.find_model(model, architecture, normalization=normalization)
            model = found or Path(model)
        if not is_id(dataset):
            dataset = self.find_dataset(dataset) or Path(dataset)
        return model, dataset

    @contextmanager
    def sent(
        self,
        model: str | Path,
        architecture: str | None,
        dataset: str | Path,
        normalization: Mapping[str, Sequence[float]] | None,
    ) -> Iterator[dict[str, str]]:
        """Yield `model_id` and `dataset_id`; what is not `known` is uploaded.

        Where what is done with them is refused, what was uploaded for it is deleted again.
        """
        with ExitStack() as undo:
            if isinstance(model, Path):
                sent = self.upload_model(model, architecture or "", normalization=normalization)
                model = sent["id"]
                undo.callback(self._drop, self.delete_model, model)
            if isinstance(dataset, Path):
                dataset = (self.upload_dataset(dataset))["id"]
                undo.callback(self._drop, self.delete_dataset, dataset)
            try:
                yield {"model_id": model, "dataset_id": dataset}
            except ApiError:
                raise
            except BaseException:
                # Nobody knows whether it was taken.
                undo.pop_all()
                raise
            undo.pop_all()

    @staticmethod
    def _drop(delete: Callable[[str], None], upload_id: str) -> None:
        with suppress(ApiError, ServerUnreachable):
            delete(upload_id)

    def _known(self, path: str, file: str | Path) -> list[Any]:
        sha256 = in_thread(sha256_of, file)
        try:
            return self._list(path, 100, sha256=sha256)
        except ApiError as error:
            if error.status in _NO_LISTS:
                return []
            raise

    def _upload(self, path: str, file: str | Path, fields: Body) -> Any:
        with Path(file).open("rb") as opened:

            def parts() -> Body:
                opened.seek(0)
                whole = (Path(file).name, opened, "application/octet-stream")
                return {"files": {**fields, "file": whole}}

            return self._transport.post(path, parts)


def _numbers(normalization: Mapping[str, Sequence[float]] | None) -> Any:
    return normalization and {name: list(map(float, each)) for name, each in normalization.items()}
