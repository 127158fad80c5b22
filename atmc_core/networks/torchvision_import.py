"""Imports torchvision, also where its CUDA build is installed next to a CPU build of torch.

There, two of its operators do not exist, and the import fails when it registers a fake kernel for
one of them (``operator torchvision::nms does not exist``). It is enough to declare the operators
without implementing them, because only torchvision's network builders are used.
"""

import importlib
import importlib.util
import warnings
from functools import cache
from types import ModuleType

import torch

from atmc_core.errors import InvalidInput

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# The declarations last as long as these objects.
_declared: list[torch.library.Library] = []


def is_installed() -> bool:
    """Whether torchvision is installed; only its own architectures need it."""
    return importlib.util.find_spec("torchvision") is not None


@cache
def torchvision_models() -> ModuleType:
    """The module ``torchvision.models``.

    Raises:
        InvalidInput: ``unknown_architecture`` if torchvision is not installed.
    """
    if not is_installed():
        raise InvalidInput(
            "unknown_architecture",
            "torchvision is not installed here: pip install torchvision",
            "architecture",
        )
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            library.define(name + _SIGNATURE)  # type: ignore[no-untyped-call]
            _declared.append(library)
    with warnings.catch_warnings():
        # torchvision warns that its compiled part cannot be loaded; see the module's docstring.
        warnings.simplefilter("ignore")
        return importlib.import_module("torchvision.models")
