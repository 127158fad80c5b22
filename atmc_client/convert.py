"""Makes a file that the service takes of a checkpoint that one trusts.

The service takes tensors and plain data, since loading anything else runs what is in it. Here that
is done on one's own machine, with torch: only for a file from a hand that one trusts.
"""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class NotConverted(Exception):
    """The file cannot be converted so; the message says what to do instead."""


@dataclass(frozen=True)
class Found:
    """A state dict in a checkpoint: where it lies, and its tensors by name.

    `module` is the whole network, where the file holds one.
    """

    path: str
    tensors: dict[str, Any]
    module: Any = None


def load(path: Path, *, trust: bool) -> Any:
    """Load a checkpoint: of tensors and plain data by itself, of anything else if it is trusted.

    Raises `NotConverted`, and OSError.
    """
    import torch

    if _is_torchscript(path):
        if not trust:
            raise NotConverted(_untrusted(path, "a TorchScript program"))
        return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust:
            raise NotConverted(_untrusted(path, "more than tensors and plain data")) from error
    except RuntimeError as error:
        raise NotConverted(f"{path} is no checkpoint that torch reads: {error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except (AttributeError, ImportError) as error:
        raise NotConverted(
            f"{path} needs the code that it was saved with ({error}): run this where that can be "
            "imported, with PYTHONPATH"
        ) from error
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise NotConverted(f"{path} is no checkpoint that torch reads: {error}") from error


def choose(loaded: Any, key: str | None) -> Found:
    """Return the state dict of what was loaded: the one at `key`, or the only one there is.

    Raises `NotConverted`, which names those that there are.
    """
    found = {each.path: each for each in _state_dicts(loaded, "")}
    if not found:
        raise NotConverted("the file holds no network and no tensors")
    if key is not None:
        if key not in found:
            raise NotConverted(f"there is no state dict at {key!r}; there is {_listed(found)}")
        return found[key]
    if len(found) > 1:
        raise NotConverted(f"it holds several: name one with --key; there is {_listed(found)}")
    return next(iter(found.values()))


def save_tensors(found: Found, target: Path) -> None:
    """Write the tensors as safetensors; tensors that share memory are written each for itself."""
    from safetensors.torch import save_file

    tensors = {name: each.detach().clone().contiguous() for name, each in found.tensors.items()}
    save_file(tensors, target)


def save_onnx(found: Found, shape: tuple[int, ...], target: Path) -> None:
    """Write the whole network as ONNX, for any number of images of `shape`, `(C, H, W)`.

    Raises `NotConverted` where the file holds tensors alone, or torch cannot export the network.
    """
    import torch

    if not isinstance(found.module, torch.nn.Module):
        raise NotConverted("the file holds tensors and no network: convert it without --onnx")
    images = torch.zeros(2, *shape)
    try:
        torch.onnx.export(
            found.module.eval(),
            (images,),
            str(target),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    except Exception as error:
        # Whatever the network's own code, or the exporter, makes of it.
        raise NotConverted(f"torch cannot export the network: {error}") from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _untrusted(path: Path, what: str) -> str:
    return (
        f"{path} holds {what}, and loading it runs what is in it: if you trust whoever made it, "
        "say --trust"
    )


def _state_dicts(value: Any, path: str) -> Iterator[Found]:
    """Yield the outermost state dicts and networks in a checkpoint."""
    import torch

    if isinstance(value, torch.nn.Module):
        yield Found(path, dict(value.state_dict()), value)
        return
    if not isinstance(value, Mapping):
        return
    tensors = {str(name): each for name, each in value.items() if isinstance(each, torch.Tensor)}
    if tensors:
        yield Found(path, tensors)
        return
    for name, inner in value.items():
        # An optimiser's moments are no network.
        if not str(name).startswith("optimizer"):
            yield from _state_dicts(inner, f"{path}.{name}" if path else str(name))


def _listed(found: Mapping[str, Found]) -> str:
    return ", ".join(
        f"{path or 'the whole'!r} ({len(f.tensors)} tensors)" for path, f in found.items()
    )
