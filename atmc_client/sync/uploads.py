# Written from atmc_client/aio/uploads.py by `make generate`: edit that.
"""The calls on models and data sets, which jobs and sweeps are made of."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from atmc_client.errors import ApiError, DigestMismatch, ServerUnreachable
from atmc_client.sync.calls import Body, Calls
from atmc_client.sync.resumable import send_pieces
from atmc_client.sync.waits import in_thread
from atmc_client.types.answers import Dataset, Model
from atmc_client.uploads import BegunUpload, OnBytes, is_id, is_large, sha256_of

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
        on_bytes: OnBytes | None = None,
    ) -> Model:
        """Send a network's file; its `id` stands for it from then on.

        A file of 8 MiB or more is sent in pieces. An upload that broke off, if only because this
        process ended, goes on where it was when the same file is sent again.

        Args:
            path: a `.safetensors` or `.pt` state dict of the architecture, or an ONNX file.
            architecture: its name, see `architectures`; `onnx` for an ONNX file.
            normalization: `{"mean": [...], "std": [...]}`, a number a channel, for images in
                [0, 1]; none by default.
            on_bytes: called with the file's name, the bytes there and the bytes in all.

        Returns:
            The model. It is a new one even if the service has the file: `find_model` asks first.

        Raises:
            InvalidRequest: the file is not such a network.
            DigestMismatch: the file changed while it was sent in pieces.
            OSError: it cannot be read.
        """
        fields: Body = {"architecture": architecture}
        if normalization is not None:
            fields["normalization"] = dict(normalization)
        model: Model = self._upload("/models", Path(path), fields, on_bytes)
        return model

    def upload_dataset(self, path: str | Path, *, on_bytes: OnBytes | None = None) -> Dataset:
        """Send a data set's file; its `id` stands for it from then on.

        Args:
            path: the file; `formats.md` in the documentation has the formats.
            on_bytes: as for `upload_model`, and a large file is sent in pieces likewise.

        Returns:
            The data set. It is a new one even if the service has the file: ask `find_dataset`.

        Raises:
            InvalidRequest: the file is no data set.
            DigestMismatch: the file changed while it was sent in pieces.
            OSError: it cannot be read.
        """
        dataset: Dataset = self._upload("/datasets", Path(path), {}, on_bytes)
        return dataset

    def delete_model(self, model_id: str) -> None:
        """Delete an uploaded network.

        Args:
            model_id: which.

        Raises:
            Conflict: a job or sweep is made of it.
            NotFound: there is no such model.
        """
        self._transport.delete(f"/models/{model_id}")

    def delete_dataset(self, dataset_id: str) -> None:
        """Delete an uploaded data set.

        Args:
            dataset_id: which.

        Raises:
            Conflict: a job or sweep is made of it.
            NotFound: there is no such data set.
        """
        self._transport.delete(f"/datasets/{dataset_id}")

    def list_models(
        self, *, q: str | None = None, sha256: str | None = None, limit: int = 20
    ) -> list[Model]:
        """The newest uploaded networks.

        Args:
            q: a part of the name, the file's name or the id.
            sha256: only what has these bytes, by their hash in hex.
            limit: at most so many.
        """
        return self._list("/models", limit, q=q, sha256=sha256)

    def list_datasets(
        self, *, q: str | None = None, sha256: str | None = None, limit: int = 20
    ) -> list[Dataset]:
        """The newest uploaded data sets.

        Args:
            q: a part of the name, the file's name or the id.
            sha256: only what has these bytes, by their hash in hex.
            limit: at most so many.
        """
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

        Args:
            path: the file.
            architecture: as for `upload_model`.
            normalization: as for `upload_model`.

        Raises:
            OSError: the file cannot be read.
        """
        wanted = _numbers(normalization)
        for found in self._known("/models", path):
            if found["architecture"] == architecture and _numbers(found["normalization"]) == wanted:
                return str(found["id"])
        return None

    def find_dataset(self, path: str | Path) -> str | None:
        """The id of this file where it was uploaded before; None if it was not. As `find_model`.

        Args:
            path: the file.

        Raises:
            OSError: the file cannot be read.
        """
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

        Nothing but hashes is sent.

        Args:
            model: a file or an id.
            architecture: of a model's file.
            dataset: a file or an id.
            normalization: as for `upload_model`.

        Raises:
            OSError: a file cannot be read.
            ValueError: the architecture of a model's file is missing.
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
        on_bytes: OnBytes | None = None,
    ) -> Iterator[dict[str, str]]:
        """Yield `model_id` and `dataset_id`; what is still a `Path` is uploaded.

        Where what is done with them is refused, what was uploaded for it is deleted again, but for
        large files, which nobody wants to send twice.

        Args:
            model: as `known` returns it.
            architecture: of a model's file.
            dataset: as `known` returns it.
            normalization: as for `upload_model`.
            on_bytes: as for `upload_model`.
        """
        with ExitStack() as undo:
            if isinstance(model, Path):
                file, name = model, architecture or ""
                sent = self.upload_model(file, name, normalization=normalization, on_bytes=on_bytes)
                model = sent["id"]
                if not is_large(file):
                    undo.callback(self._drop, self.delete_model, model)
            if isinstance(dataset, Path):
                file = dataset
                dataset = (self.upload_dataset(file, on_bytes=on_bytes))["id"]
                if not is_large(file):
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

    def _upload(self, path: str, file: Path, fields: Body, on_bytes: OnBytes | None) -> Any:
        if is_large(file):
            return self._upload_pieces(path, file, fields, on_bytes)
        texts = {
            name: (None, value if isinstance(value, str) else json.dumps(value))
            for name, value in fields.items()
        }
        with file.open("rb") as opened:

            def parts() -> Body:
                opened.seek(0)
                whole = (file.name, opened, "application/octet-stream")
                return {"files": {**texts, "file": whole}}

            made = self._transport.post(path, parts)
        if on_bytes is not None:
            on_bytes(file.name, made["bytes"], made["bytes"])
        return made

    def _upload_pieces(self, path: str, file: Path, fields: Body, on_bytes: OnBytes | None) -> Any:
        begun = BegunUpload(self.url, in_thread(sha256_of, file))
        body = fields | {"upload_id": send_pieces(self._transport, file, begun, on_bytes)}
        # Where it is refused the upload is still there, and the next try sends nothing.
        try:
            made = self._transport.post(path, lambda: {"json": body})
        except ApiError as error:
            # What is wrong with the file as a whole has no name in the request.
            param = error.param or file.name
            raise type(error)(error.status, error.code, param, error.detail) from error
        begun.forget()
        if made["sha256"] != begun.sha256:
            self._transport.delete(f"{path}/{made['id']}")
            raise DigestMismatch(
                f"{file} changed while it was sent, and was dropped: send it again"
            )
        return made


def _numbers(normalization: Mapping[str, Sequence[float]] | None) -> Any:
    return normalization and {name: list(map(float, each)) for name, each in normalization.items()}
