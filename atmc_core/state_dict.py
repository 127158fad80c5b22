"""Reading an uploaded state dict: tensors by name, nothing executed."""

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

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
