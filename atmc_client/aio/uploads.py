"""The calls on models and data sets, which jobs and sweeps are made of."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Unpack

from atmc_client.aio.calls import POLL_S, Body, Calls, described, filters, network
from atmc_client.aio.resumable import send_pieces
from atmc_client.aio.waits import in_thread, sleep
from atmc_client.errors import ApiError, DigestMismatch, InvalidRequest
from atmc_client.types.answers import Connection, Dataset, Model
from atmc_client.types.requests import Description, NewSource, Sort
from atmc_client.uploads import BegunUpload, OnBytes, is_large, is_uri, sha256_of


class Uploads(Calls):
    """The calls on models and data sets."""

    async def upload_model(
        self,
        file: str | Path | NewSource,
        architecture: str,
        *,
        normalization: Mapping[str, Sequence[float]] | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        on_bytes: OnBytes | None = None,
    ) -> Model:
        """Send a network's file, or name one that the service fetches; its `id` stands for it then.

        A file of 8 MiB or more is sent in pieces. An upload that broke off, if only because this
        process ended, goes on where it was when the same file is sent again.

        Args:
            file: a `.safetensors` or `.pt` state dict of the architecture, or an ONNX file; or the
                `s3://` or `https://` URI of one, see `connections`. `{"uri": ..., "sha256": ...}`
                says more of it: `etag`, `version`, and whose `connection` to use.
            architecture: its name, see `architectures`; `onnx` for an ONNX file.
            normalization: `{"mean": [...], "std": [...]}`, a number a channel, for images in
                [0, 1]; none by default.
            name: what people call it.
            labels: names and values by which lists can be filtered.
            metadata: any JSON object of yours, kept with it.
            on_bytes: called with the file's name, the bytes there and the bytes in all.

        Returns:
            The model. It is a new one even if the service has the file: `find_model` asks first.
            One that is fetched is `fetching` at first: `wait_model`.

        Raises:
            InvalidRequest: the file is not such a network, or the service does not fetch it.
            DigestMismatch: the file changed while it was sent in pieces.
            OSError: it cannot be read.
        """
        fields = network(architecture, normalization) | described(name, labels, metadata)
        model: Model = await self._upload("/models", file, fields, on_bytes)
        return model

    async def upload_dataset(
        self,
        file: str | Path | NewSource,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        on_bytes: OnBytes | None = None,
    ) -> Dataset:
        """Send a data set's file, or name one to be fetched; its `id` stands for it from then on.

        Args:
            file: the file or its URI, as for `upload_model`; of S3 also that of a folder of Parquet
                files. `formats.md` in the documentation has the formats.
            name: what people call it.
            labels: names and values by which lists can be filtered.
            metadata: any JSON object of yours, kept with it.
            on_bytes: as for `upload_model`, and a large file is sent in pieces likewise.

        Returns:
            The data set. It is a new one even if the service has the file: ask `find_dataset`. One
            that is fetched is `fetching` at first: `wait_dataset`.

        Raises:
            InvalidRequest: the file is no data set, or the service does not fetch it.
            DigestMismatch: the file changed while it was sent in pieces.
            OSError: it cannot be read.
        """
        fields = described(name, labels, metadata)
        dataset: Dataset = await self._upload("/datasets", file, fields, on_bytes)
        return dataset

    async def connections(self) -> list[Connection]:
        """Where files may lie that the service fetches, and where it puts results."""
        return await self._all("/connections")

    async def get_model(self, model_id: str) -> Model:
        """The network as it is now.

        Args:
            model_id: which.

        Raises:
            NotFound: there is no such model.
        """
        model: Model = await self._get(f"/models/{model_id}")
        return model

    async def get_dataset(self, dataset_id: str) -> Dataset:
        """The data set as it is now.

        Args:
            dataset_id: which.

        Raises:
            NotFound: there is no such data set.
        """
        dataset: Dataset = await self._get(f"/datasets/{dataset_id}")
        return dataset

    async def wait_model(
        self, model_id: str, *, on_bytes: OnBytes | None = None, timeout_s: float | None = None
    ) -> Model:
        """Wait until the service has fetched the network, if it does.

        Args:
            model_id: which.
            on_bytes: called about twice a second, as for `upload_model`.
            timeout_s: wait no longer than so many seconds.

        Returns:
            The model, `ready`.

        Raises:
            InvalidRequest: it cannot be fetched, or is not such a network; `code` says why.
            TimeoutError: after `timeout_s`; the service goes on.
            NotFound: there is no such model.
        """
        model: Model = await self._fetched(f"/models/{model_id}", on_bytes, timeout_s)
        return model

    async def wait_dataset(
        self, dataset_id: str, *, on_bytes: OnBytes | None = None, timeout_s: float | None = None
    ) -> Dataset:
        """Wait until the service has fetched the data set, if it does. As `wait_model`.

        Args:
            dataset_id: which.
            on_bytes: as for `wait_model`.
            timeout_s: as for `wait_model`.

        Raises:
            InvalidRequest: it cannot be fetched, or is no data set; `code` says why.
            TimeoutError: after `timeout_s`; the service goes on.
            NotFound: there is no such data set.
        """
        dataset: Dataset = await self._fetched(f"/datasets/{dataset_id}", on_bytes, timeout_s)
        return dataset

    async def change_model(self, model_id: str, **changes: Unpack[Description]) -> Model:
        """Change what is said of the network; returns it.

        Args:
            model_id: which.
            changes: `name`, `labels` or `metadata`, each as a whole; a name of None is none.

        Raises:
            InvalidRequest: one of them is too long.
            NotFound: there is no such model.
        """
        model: Model = await self._transport.patch(f"/models/{model_id}", changes)
        return model

    async def change_dataset(self, dataset_id: str, **changes: Unpack[Description]) -> Dataset:
        """Change what is said of the data set; returns it.

        Args:
            dataset_id: which.
            changes: as for `change_model`.

        Raises:
            InvalidRequest: one of them is too long.
            NotFound: there is no such data set.
        """
        dataset: Dataset = await self._transport.patch(f"/datasets/{dataset_id}", changes)
        return dataset

    async def delete_model(self, model_id: str) -> None:
        """Delete an uploaded network.

        Args:
            model_id: which.

        Raises:
            Conflict: a job or sweep is made of it.
            NotFound: there is no such model.
        """
        await self._transport.delete(f"/models/{model_id}")

    async def delete_dataset(self, dataset_id: str) -> None:
        """Delete an uploaded data set.

        Args:
            dataset_id: which.

        Raises:
            Conflict: a job or sweep is made of it.
            NotFound: there is no such data set.
        """
        await self._transport.delete(f"/datasets/{dataset_id}")

    async def list_models(
        self,
        *,
        q: str | None = None,
        sha256: str | None = None,
        state: str | None = None,
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        sort: Sort | None = None,
        limit: int = 20,
    ) -> list[Model]:
        """The uploaded networks, the newest first.

        Args:
            q: a part of the name, the file's name or the id.
            sha256: only what has these bytes, by their hash in hex.
            state: only of this state: `fetching`, `ready` or `failed`.
            labels: only what has all of these.
            created_after: only what was made then or later; with a time zone.
            created_before: only what was made before.
            sort: another order: `created_at`, `name` or `-name`.
            limit: at most so many.

        Raises:
            InvalidRequest: one of them cannot be.
        """
        own = {"q": q, "sha256": sha256, "state": state}
        which = filters(labels, created_after, created_before, sort) | own
        return await self._list("/models", limit, which)

    async def list_datasets(
        self,
        *,
        q: str | None = None,
        sha256: str | None = None,
        state: str | None = None,
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        sort: Sort | None = None,
        limit: int = 20,
    ) -> list[Dataset]:
        """The uploaded data sets, the newest first. As `list_models`.

        Args:
            q: a part of the name, the file's name or the id.
            sha256: only what has these bytes, by their hash in hex.
            state: only of this state.
            labels: only what has all of these.
            created_after: only what was made then or later; with a time zone.
            created_before: only what was made before.
            sort: another order.
            limit: at most so many.

        Raises:
            InvalidRequest: one of them cannot be.
        """
        own = {"q": q, "sha256": sha256, "state": state}
        which = filters(labels, created_after, created_before, sort) | own
        return await self._list("/datasets", limit, which)

    async def _upload(
        self, path: str, file: str | Path | NewSource, fields: Body, on_bytes: OnBytes | None
    ) -> Any:
        if isinstance(file, str):
            file = {"uri": file} if is_uri(file) else Path(file)
        if not isinstance(file, Path):
            body = fields | file
            return await self._transport.post(path, lambda: {"json": body})
        if is_large(file):
            return await self._upload_pieces(path, file, fields, on_bytes)
        return await self._upload_whole(path, file, fields, on_bytes)

    async def _upload_whole(
        self, path: str, file: Path, fields: Body, on_bytes: OnBytes | None
    ) -> Any:
        texts = {
            name: (None, value if isinstance(value, str) else json.dumps(value))
            for name, value in fields.items()
        }
        with file.open("rb") as opened:

            def parts() -> Body:
                opened.seek(0)
                whole = (file.name, opened, "application/octet-stream")
                return {"files": {**texts, "file": whole}}

            made = await self._transport.post(path, parts)
        if on_bytes is not None:
            on_bytes(file.name, made["bytes"], made["bytes"])
        return made

    async def _upload_pieces(
        self, path: str, file: Path, fields: Body, on_bytes: OnBytes | None
    ) -> Any:
        begun = BegunUpload(self.url, await in_thread(sha256_of, file))
        body = fields | {"upload_id": await send_pieces(self._transport, file, begun, on_bytes)}
        # Where it is refused the upload is still there, and the next try sends nothing.
        try:
            made = await self._transport.post(path, lambda: {"json": body})
        except ApiError as error:
            # What is wrong with the file as a whole has no name in the request.
            param = error.param or file.name
            raise type(error)(error.status, error.code, param, error.detail) from error
        begun.forget()
        if made["sha256"] != begun.sha256:
            await self._transport.delete(f"{path}/{made['id']}")
            raise DigestMismatch(
                f"{file} changed while it was sent, and was dropped: send it again"
            )
        return made

    async def _fetched(self, path: str, on_bytes: OnBytes | None, timeout_s: float | None) -> Any:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            found = await self._get(path)
            source = found["source"]
            if source is not None and on_bytes is not None:
                there = source["fetched_bytes"]
                # Some servers do not tell the length beforehand.
                on_bytes(found["filename"], there, source["total_bytes"] or there)
            if found["state"] == "ready":
                return found
            if found["state"] == "failed":
                why = source["error"]
                raise InvalidRequest(422, why["code"], source["uri"], why["message"])
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{source['uri']} is still being fetched after {timeout_s} s")
            await sleep(POLL_S)
