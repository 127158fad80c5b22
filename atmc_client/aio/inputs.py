"""What a job or a sweep is made of: nothing that the service has already is sent to it again."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from atmc_client.aio.calls import Body, network
from atmc_client.aio.uploads import Uploads
from atmc_client.aio.waits import in_thread
from atmc_client.errors import ApiError, ServerUnreachable
from atmc_client.uploads import Given, OnBytes, is_large, sha256_of, told_apart

# What a service of a version before lists were answers to the question for one.
_NO_LISTS = (404, 405)


class Inputs(Uploads):
    """Files, ids and URIs, as a job or a sweep takes them."""

    async def find_model(
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
        for found in await self._of_the_same_bytes("/models", path):
            if found["architecture"] == architecture and _numbers(found["normalization"]) == wanted:
                return str(found["id"])
        return None

    async def find_dataset(self, path: str | Path) -> str | None:
        """The id of this file where it was uploaded before; None if it was not. As `find_model`.

        Args:
            path: the file.

        Raises:
            OSError: the file cannot be read.
        """
        known = await self._of_the_same_bytes("/datasets", path)
        return str(known[0]["id"]) if known else None

    async def _known(
        self,
        model: Given,
        architecture: str | None,
        dataset: Given,
        normalization: Mapping[str, Sequence[float]] | None,
    ) -> tuple[Given, Given]:
        """A model and a data set, as ids where the service has the file; a `Path` is to be sent.

        Nothing but hashes is sent. Raises OSError for a file that cannot be read, and ValueError
        where the architecture of a model that is no id is missing.
        """
        model, dataset = told_apart(model), told_apart(dataset)
        for each in (model, dataset):
            if isinstance(each, Path):
                each.open("rb").close()
        if not isinstance(model, str):
            if architecture is None:
                raise ValueError(f"the architecture of {model} is needed")
            if isinstance(model, Path):
                found = await self.find_model(model, architecture, normalization=normalization)
                model = found or model
        if isinstance(dataset, Path):
            dataset = await self.find_dataset(dataset) or dataset
        return model, dataset

    @asynccontextmanager
    async def _sent(
        self,
        model: Given,
        architecture: str | None,
        dataset: Given,
        normalization: Mapping[str, Sequence[float]] | None,
        on_bytes: OnBytes | None,
        *,
        fetched: bool = False,
    ) -> AsyncIterator[Body]:
        """Yield the fields that name a model and a data set, which are as `_known` returns them.

        Files are uploaded. With `fetched` so is what the service has to fetch, to its end.

        Where what is done with them is refused, what was uploaded for it is deleted again, but for
        large files, which nobody wants to send twice.
        """
        how = network(architecture, normalization)
        async with AsyncExitStack() as undo:
            if isinstance(model, str):
                body: Body = {"model_id": model}
            elif fetched or isinstance(model, Path):
                sent = await self.upload_model(model, **how, on_bytes=on_bytes)
                body = {"model_id": sent["id"]}
                if not is_large(model):
                    undo.push_async_callback(self._drop, self.delete_model, sent["id"])
            else:
                body = how | {"model": model}
            if isinstance(dataset, str):
                body["dataset_id"] = dataset
            elif fetched or isinstance(dataset, Path):
                body["dataset_id"] = (await self.upload_dataset(dataset, on_bytes=on_bytes))["id"]
                if not is_large(dataset):
                    undo.push_async_callback(self._drop, self.delete_dataset, body["dataset_id"])
            else:
                body["dataset"] = dataset
            if fetched and isinstance(model, Mapping):
                await self.wait_model(body["model_id"], on_bytes=on_bytes)
            if fetched and isinstance(dataset, Mapping):
                await self.wait_dataset(body["dataset_id"], on_bytes=on_bytes)
            try:
                yield body
            except ApiError:
                raise
            except BaseException:
                # Nobody knows whether it was taken.
                undo.pop_all()
                raise
            undo.pop_all()

    @staticmethod
    async def _drop(delete: Callable[[str], Awaitable[None]], upload_id: str) -> None:
        with suppress(ApiError, ServerUnreachable):
            await delete(upload_id)

    async def _of_the_same_bytes(self, path: str, file: str | Path) -> list[Any]:
        sha256 = await in_thread(sha256_of, file)
        try:
            return await self._list(path, 100, {"sha256": sha256})
        except ApiError as error:
            if error.status in _NO_LISTS:
                return []
            raise


def _numbers(normalization: Mapping[str, Sequence[float]] | None) -> Any:
    return normalization and {name: list(map(float, each)) for name, each in normalization.items()}
