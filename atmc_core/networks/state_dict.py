"""Reads state dicts from files without executing code, and loads them into networks."""

import pickle
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from atmc_core.errors import InvalidInput
from atmc_spec.checkpoints import StateDict, find_state_dicts
from atmc_spec.state_dicts import Expected, Fitted, TensorHeader, fit_state_dicts

# torch's types by the names that safetensors gives them.
_DTYPES = {
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}


def read_state_dicts(path: Path) -> list[StateDict[Tensor]]:
    """Read the state dicts in a safetensors file, or in a ``.pt`` file of tensors and plain data.

    The content decides which of the two it is, not the name.

    Returns:
        The tensors by name, on the CPU, of each dictionary that holds any; one at least.

    Raises:
        InvalidInput: ``malformed_model`` if the file cannot be read, or holds no state dict.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    try:
        content: object = (
            torch.load(path, map_location="cpu", weights_only=True)
            if zipped
            else safetensors.torch.load_file(path)
        )
    except pickle.UnpicklingError as error:
        raise InvalidInput(
            "malformed_model",
            "the .pt file is broken, or holds more than tensors and plain data, which is not "
            "unpickled: send the state dict alone, torch.save(model.state_dict(), path)",
            "model",
        ) from error
    except Exception as error:
        # For broken files torch's unpickler raises exceptions of many types.
        raise InvalidInput(
            "malformed_model", f"the file cannot be read: {error}", "model"
        ) from error
    found = find_state_dicts(content, _as_tensor)
    if not found:
        raise InvalidInput(
            "malformed_model",
            "the file holds no tensors by name: save torch.save(model.state_dict(), path)",
            "model",
        )
    return found


def _as_tensor(value: object) -> Tensor | None:
    """The value if it is a tensor as networks have them, with numbers in it; else None."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        return None
    return None if value.is_nested or value.device.type != "cpu" else value.detach()


def fit_tensors(
    found: Sequence[StateDict[Tensor]], name: str, expected: Expected
) -> tuple[dict[str, Tensor], Fitted]:
    """Choose the state dict that is the network's; see ``fit_state_dicts``.

    Args:
        found: the state dicts of a file.
        name: the architecture's name, for messages.
        expected: the architecture's tensors, as it is published.

    Returns:
        The tensors by their names in the network, pruned weights multiplied by their masks, and how
        they were found.

    Raises:
        InvalidInput: as ``fit_state_dicts``.
    """
    headers = [
        StateDict(
            each.path, {key: _header(tensor) for key, tensor in each.tensors.items()}, each.beside
        )
        for each in found
    ]
    fitted = fit_state_dicts(headers, name, expected)
    own = found[next(i for i, each in enumerate(headers) if each is fitted.state_dict)].tensors
    tensors = {}
    for key, (stored, *masks) in fitted.sources.items():
        tensors[key] = own[stored]
        for mask in masks:
            tensors[key] = tensors[key] * own[mask].to(tensors[key].dtype)
    return tensors, fitted


def _header(tensor: Tensor) -> TensorHeader:
    dtype = _DTYPES.get(tensor.dtype, str(tensor.dtype).removeprefix("torch."))
    return TensorHeader(dtype, tuple(tensor.shape))


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """Load tensors without version metadata into a network, as tensors of the present versions.

    ``state_dict()`` stores a version for each module next to the tensors. Modules whose layout has
    changed read it when they are loaded, and some (torchvision's MNASNet) refuse a state dict
    without it.

    Args:
        network: receives the tensors.
        tensors: the tensors by name.
        strict: whether missing and unknown names are errors.

    Raises:
        RuntimeError: if shapes differ, or, if ``strict``, names.
    """
    state = OrderedDict(tensors)
    state._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(state, strict=strict)


def clone_state(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict, which does not change when the module is trained."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
