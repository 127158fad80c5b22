"""The refusal of a pickle that names code, with the command that takes the tensors out of it."""

import re

from api.inspection.pickle_values import Foreign, as_tensor
from api.problems import Problem
from api.text import clip
from atmc_spec.checkpoints import Path, find_state_dicts

# The command to type leads no deeper than this.
_DEEPEST = 4
# The keys under which frameworks save a whole network.
_NETWORKS = ("model", "ema", "net", "network", "state_dict")
# Keys that a person may be told to type: whatever else an uploaded file calls its parts.
_TYPEABLE = re.compile(r"[\w. -]{1,80}", re.ASCII)


def unsafe(name: str, outline: object = None) -> Problem:
    """Return the refusal of a pickle that refers to `name`.

    With the outline of the whole, it says how to take the state dict out of such a file.
    """
    return Problem(
        "unsafe_pickle",
        f"The pickle in the .pt file refers to {clip(name)}, so loading it could run code; "
        f"nothing was run. Send tensors only: torch.save(model.state_dict(), 'state_dict.pt') or "
        "safetensors.torch.save_file(model.state_dict(), 'model.safetensors'). Where only the file "
        f"is left and you trust it: {_conversion(outline)}",
    )


def _conversion(outline: object) -> str:
    """The command that takes the state dict out of a file with an outline."""
    found = [
        each
        for each in find_state_dicts(outline, as_tensor)
        if len(each.path) <= _DEEPEST and all(map(_is_typeable, each.path))
    ]
    entries = outline if isinstance(outline, dict) else {}
    modules = [key for key in _NETWORKS if isinstance(entries.get(key), Foreign)]
    path: Path = tuple(modules[:1])
    call = ".state_dict()"
    if found:
        path, call = max(found, key=lambda each: len(each.tensors)).path, ""
    place = "".join(f"[{key!r}]" for key in path)
    return (
        'python -c "import torch; torch.save(torch.load('
        f"'model.pt', map_location='cpu', weights_only=False){place}{call}, 'state_dict.pt')\""
    )


def _is_typeable(key: object) -> bool:
    """Whether a key may stand in a command: an uploaded file must not write a shell's words."""
    return isinstance(key, int) or (isinstance(key, str) and _TYPEABLE.fullmatch(key) is not None)
