"""Tensors by name: read from an upload, nothing executed, and put into a network."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from atmc_core.errors import InvalidInput


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A safetensors file, or a ``.pt`` file that unpickles to a dict of tensors and nothing else.

    Which of the two it is, is decided by its content.

    Raises:
        InvalidInput: ``malformed_model``.
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
        # torch's unpickler raises what it likes at broken files.
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
    """Load plain tensors, which say nothing of versions, as those of the present one.

    A module whose layout has changed looks for its version beside the tensors, where
    ``state_dict()`` puts it, and some (torchvision's MNASNet) refuse what has none.
    """
    state = OrderedDict(tensors)
    state._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(state, strict=strict)


def clone_state(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict that training no longer changes."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
