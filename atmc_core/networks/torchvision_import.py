"""torchvision's import, mended: beside a CPU build of torch its CUDA build lacks two operators.

Its registration of a fake ``nms`` fails with ``operator torchvision::nms does not exist``; a schema
without an implementation is all that it asks for. We use its network builders and nothing else.
"""

import importlib
import importlib.util
import warnings
from functools import cache
from types import ModuleType

import torch

from atmc_core.errors import InvalidInput

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept: list[torch.library.Library] = []


def is_installed() -> bool:
    """Whether there is a torchvision at all: the method itself needs none."""
    return importlib.util.find_spec("torchvision") is not None


@cache
def torchvision_models() -> ModuleType:
    """``torchvision.models``.

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
            _kept.append(library)
    with warnings.catch_warnings():
        # That its compiled part cannot be loaded is why this module is there.
        warnings.simplefilter("ignore")
        return importlib.import_module("torchvision.models")
