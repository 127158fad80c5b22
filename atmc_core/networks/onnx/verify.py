"""An imported network held against onnxruntime."""

from pathlib import Path

import torch
from torch import Tensor, nn

from atmc_core.errors import InvalidInput
from atmc_core.networks.onnx.importer import Imported
from atmc_core.networks.onnx.runtime import runner

TOLERANCE = 1e-4
# Half precision keeps three digits, so the runtime's own sums are no better than this.
_HALF_TOLERANCE = 2e-2
_IMAGES = 4


def verify(network: nn.Module, path: Path, imported: Imported) -> float:
    """Compare the network with the file it came from, on random images.

    Returns:
        The largest difference of the outputs, as a share of the largest output (at least 1).

    Raises:
        InvalidInput: ``malformed_model`` if it is above 1e-4 (2e-2 for a file that computes in
            half precision), or if onnxruntime refuses the file.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(_IMAGES, *imported.graph.input_shape, generator=generator)
    if imported.document.batch is not None and imported.document.batch > _IMAGES:
        images = images.repeat(-(-imported.document.batch // _IMAGES), 1, 1, 1)
        images = images[: imported.document.batch]
    theirs = runner(path)(images)
    with torch.no_grad():
        ours = network.eval()(images)
    if imported.dropped:
        ours, theirs = _comparable(ours, theirs, imported.dropped)
    if theirs.shape != ours.shape or not torch.isfinite(theirs).all():
        raise InvalidInput(
            "malformed_model",
            f"onnxruntime makes {list(theirs.shape)} of the images, or numbers that are not "
            f"finite; expected {list(ours.shape)}",
            "model",
        )
    difference = relative_difference(ours, theirs)
    tolerance = _HALF_TOLERANCE if imported.document.half else TOLERANCE
    if not difference <= tolerance:
        raise InvalidInput(
            "malformed_model",
            f"the imported network differs from the ONNX file by {difference:.2g} of its largest "
            f"output; at most {tolerance:g} is accepted",
            "model",
        )
    return difference


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest absolute difference over the largest output, or over 1 if that is smaller."""
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1))


def _comparable(ours: Tensor, theirs: Tensor, dropped: str) -> tuple[Tensor, Tensor]:
    """Our logits as the operation that was dropped would return them."""
    return (ours.log_softmax(1) if dropped.startswith("Log") else ours.softmax(1)), theirs
