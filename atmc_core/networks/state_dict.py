"""Reads state dicts from files without executing code, and loads them into networks."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from atmc_core.errors import InvalidInput


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors file, or from a ``.pt`` file of nothing but tensors.

    The content decides which of the two it is, not the name.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        InvalidInput: ``malformed_model`` if the file cannot be read, or is no state dict.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    try:
        tensors = (
            torch.load(path, map_location="cpu", weights_only=True)
            if zipped
            else safetensors.torch.load_file(path)
        )
    except Exception as error:
        # For broken files torch's unpickler raises exceptions of many types.
        raise InvalidInput(
            "malformed_model", f"the file cannot be read: {error}", "model"
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise InvalidInput(
            "malformed_model",
            "not a state dict: save torch.save(model.state_dict(), path)",
            "model",
        )
    return tensors


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
