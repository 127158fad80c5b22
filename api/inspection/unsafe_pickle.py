"""The refusal of a pickle that names code, with the command that takes the tensors out of it."""

import re

from api.inspection.pickle_values import Foreign, as_tensor
from api.problems import Problem
from api.text import clip
from atmc_spec.checkpoints import Path, find_state_dicts

# The command to type leads no deeper than this.
_DEEPEST = 4
# What torch rebuilds tensors of other kinds with.
_OTHER_TENSORS = {
    "torch._utils._rebuild_qtensor": "quantised",
    "torch._utils._rebuild_sparse_tensor": "sparse",
}
# The keys under which frameworks save a whole network.
_NETWORKS = ("model", "ema", "net", "network", "state_dict")
# Keys that a person may be told to type: whatever else an uploaded file calls its parts.
_TYPEABLE = re.compile(r"[\w. -]{1,80}", re.ASCII)


def unsafe(name: str, outline: object = None) -> Problem:
    """Return the refusal of a pickle that refers to `name`.

    With the outline of the whole, it says how to take the state dict out of such a file.
    """
    if name in _OTHER_TENSORS:
        return Problem(
            "malformed_model",
            f"The .pt file holds {_OTHER_TENSORS[name]} tensors ({name}), which are not read. Send "
            "the state dict of the dense float32 model, as it was before.",
        )
    return Problem(
        "unsafe_pickle",
        f"The pickle in the .pt file refers to {clip(name)}, so loading it could run code; "
        "nothing was run. Send tensors only: torch.save(model.state_dict(), 'state_dict.pt') or "
        "safetensors.torch.save_file(model.state_dict(), 'model.safetensors'). Where only the file "
        f"is left and you trust it: {_conversion(outline)}",
    )


def _conversion(outline: object) -> str:
    """The command that takes the state dict out of a file with an outline."""
    loaded = "torch.load('model.pt', map_location='cpu', weights_only=False)"
    found = [
        each
        for each in find_state_dicts(outline, as_tensor)
        if len(each.path) <= _DEEPEST and all(map(_is_typeable, each.path))
    ]
    entries = outline if isinstance(outline, dict) else {}
    modules = [key for key in _NETWORKS if isinstance(entries.get(key), Foreign)]
    if found:
        path: Path = max(found, key=lambda each: len(each.tensors)).path
        loaded += "".join(f"[{key!r}]" for key in path)
    elif modules:
        loaded += f"[{modules[0]!r}].state_dict()"
    elif entries and all(isinstance(value, Foreign) for value in entries.values()):
        # As NumPy's arrays are.
        loaded = f"{{key: torch.as_tensor(value) for key, value in {loaded}.items()}}"
    elif entries:
        return "load it with weights_only=False, and save the state dict in it alone"
    else:
        loaded += ".state_dict()"
    return f"python -c \"import torch; torch.save({loaded}, 'state_dict.pt')\""


def _is_typeable(key: object) -> bool:
    """Whether a key may stand in a command: an uploaded file must not write a shell's words."""
    return isinstance(key, int) or (isinstance(key, str) and _TYPEABLE.fullmatch(key) is not None)
