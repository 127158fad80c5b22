"""Options by which a command is given a network and a data set: as files, ids or URIs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from atmc_client.uploads import Given, is_id, is_uri

Command = Callable[..., Any]


class FileOrUri(click.ParamType[str]):
    """A file, or a URI of one that the service fetches."""

    name = "file or uri"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> str:
        if not is_uri(value) and not self.is_there(value):
            other = ": a URI begins with s3:// or https://" if "://" in value else ""
            self.fail(f"there is no file {value!r}{other}", param, context)
        return str(value)

    def is_there(self, value: str) -> bool:
        """Whether this, which is no URI, can be taken."""
        return Path(value).is_file()


class FileOrId(FileOrUri):
    """A file, the id of what was uploaded before, or a URI of what the service fetches."""

    name = "file, id or uri"

    def is_there(self, value: str) -> bool:
        """Whether it is an id or a file."""
        return is_id(value) or super().is_there(value)


class Numbers(click.ParamType[list[float]]):
    """Numbers separated by commas, one a channel."""

    name = "n,n,..."

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> list[float]:
        try:
            return [float(number) for number in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers", param, context)


def with_inputs(command: Command) -> Command:
    """Give a command what says more of its network and data set, for `Inputs.of`."""
    for option in (
        click.option(
            "--connection", metavar="NAME", help="Whose credentials URIs use; where several could."
        ),
        click.option("--std", type=Numbers(), help="With --mean."),
        click.option(
            "--mean", type=Numbers(), help="The network's normalisation, a number a channel."
        ),
        click.option("--architecture", help="The network; not of an id. See `atmc architectures`."),
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class Inputs:
    """A network and its data set, as the client's methods take them."""

    model: Given
    dataset: Given
    architecture: str | None
    normalization: Mapping[str, Sequence[float]] | None

    @classmethod
    def of(cls, model: str, dataset: str, options: Mapping[str, Any]) -> "Inputs":
        """What a command of `with_inputs` was given; raises UsageError where it contradicts."""
        architecture, connection = options["architecture"], options["connection"]
        if not is_id(model) and architecture is None:
            raise click.UsageError(f"--architecture is needed: which network {model} is")
        uris = [model, dataset, options.get("results") or ""]
        if connection is not None and not any(map(is_uri, uris)):
            raise click.UsageError("--connection goes with a URI")
        return cls(
            of_connection(model, connection),
            of_connection(dataset, connection),
            architecture,
            normalization_of(options["mean"], options["std"]),
        )


def of_connection(file: str, connection: str | None) -> Given:
    """Return the file, id or URI; a URI with the connection's name, if there is one."""
    return {"uri": file, "connection": connection} if connection and is_uri(file) else file


def normalization_of(
    mean: list[float] | None, std: list[float] | None
) -> Mapping[str, Sequence[float]] | None:
    """Return what --mean and --std say; raises UsageError for one without the other."""
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise click.UsageError("--mean and --std go together")
    return {"mean": mean, "std": std}
