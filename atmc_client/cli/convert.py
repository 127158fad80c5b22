"""`atmc convert`: a checkpoint that one trusts, in a form that the service takes."""

import importlib.util
from pathlib import Path
from typing import Any

import click

from atmc_client import convert as converting
from atmc_client.convert import NotConverted


class Shape(click.ParamType[tuple[int, ...]]):
    """C,H,W."""

    name = "c,h,w"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[int, ...]:
        parts = value.split(",")
        if len(parts) != 3 or not all(part.isdigit() and int(part) for part in parts):
            self.fail(f"{value!r} is no shape of an image, such as 3,32,32", param, context)
        return tuple(map(int, parts))


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="By default FILE with the ending .safetensors, or .onnx.",
)
@click.option("--trust", is_flag=True, help="Load what runs code: you trust whoever made FILE.")
@click.option("--key", help="Where in FILE the state dict is, such as state_dict or ema.model.")
@click.option("--onnx", "shape", type=Shape(), help="Export the whole network for such images.")
def convert(
    file: Path, output: Path | None, trust: bool, key: str | None, shape: tuple[int, ...] | None
) -> int:
    """Turn a local checkpoint into what the service takes.

    FILE is a .pt or .pth of whatever kind: a state dict, a checkpoint (of Lightning, too),
    a pickled network, a TorchScript program. Out come its tensors as safetensors, under the names
    that they have; with --onnx the network itself, for which no architecture need be named.

    \b
        atmc convert epoch=9.ckpt --trust -o model.safetensors
        atmc convert network.pt --trust --onnx 3,32,32

    It needs torch and safetensors, and asks nothing of the service.
    """
    missing = [each for each in ("torch", "safetensors") if importlib.util.find_spec(each) is None]
    if missing:
        raise click.UsageError(f"{' and '.join(missing)} must be installed where this runs")
    target = output or file.with_suffix(".onnx" if shape else ".safetensors")
    if target.exists() and target.samefile(file):
        raise click.UsageError(f"{target} is the file itself: name another with --output")
    try:
        found = converting.choose(converting.load(file, trust=trust), key)
        if shape:
            converting.save_onnx(found, shape, target)
        else:
            converting.save_tensors(found, target)
    except NotConverted as error:
        raise click.UsageError(str(error)) from error
    click.echo(target)
    what = "a network" if shape else f"{len(found.tensors)} tensors"
    architecture = "onnx" if shape else "NAME (see atmc architectures)"
    click.echo(
        f"{what}; send it with: atmc submit --model {target} --architecture {architecture}",
        err=True,
    )
    return 0
