"""Compares an imported network with what onnxruntime makes of the same file."""

from pathlib import Path

import torch
from torch import Tensor, nn

from atmc_core.errors import InvalidInput
from atmc_core.networks.onnx.document import read_needed
from atmc_core.networks.onnx.importer import Imported
from atmc_core.networks.onnx.runtime import runner

#: The largest difference of the outputs, as a share of the largest output.
TOLERANCE = 1e-4
# Half precision has three digits, so the runtime's own sums are no more exact than this.
_HALF_TOLERANCE = 2e-2
# The number of random images on which the outputs are compared.
_IMAGES = 4


def verify(network: nn.Module, path: Path, imported: Imported) -> float:
    """Compare a network with the file that it was imported from, on random images.

    Args:
        network: maps images ``[N, C, H, W]`` to logits ``[N, classes]``; on the CPU. It is put into
            evaluation mode.
        path: the ONNX file.
        imported: what was imported from the file.

    Returns:
        The largest difference of the outputs, as ``relative_difference``.

    Raises:
        InvalidInput: ``malformed_model`` if the difference is above 1e-4 (2e-2 for a file that
            computes in half precision), or if onnxruntime refuses the file.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(_IMAGES, *imported.graph.input_shape, generator=generator)
    document = imported.document
    if document.batch is not None:
        # A file with a fixed batch takes whole batches only.
        count = -(-_IMAGES // document.batch) * document.batch
        images = images.repeat(-(-count // _IMAGES), 1, 1, 1)[:count]
    output = imported.head.logits or document.output_name
    file = path if document.whole and not imported.head.logits else read_needed(path, output)
    theirs = runner(file, output, document.images.channels_last)(images)
    with torch.no_grad():
        ours = network.eval()(images)
    if theirs[0].numel() == ours[0].numel():
        # Axes of one entry may stand behind the classes.
        theirs = theirs.reshape(ours.shape)
    if theirs.shape != ours.shape or not torch.isfinite(theirs).all():
        raise InvalidInput(
            "malformed_model",
            f"onnxruntime makes {list(theirs.shape)} of the images, or numbers that are not "
            f"finite; expected {list(ours.shape)}",
            "model",
        )
    difference = relative_difference(ours, theirs)
    tolerance = _HALF_TOLERANCE if document.half else TOLERANCE
    if not difference <= tolerance:
        raise InvalidInput(
            "malformed_model",
            f"the imported network differs from the ONNX file by {difference:.2g} of its largest "
            f"output; at most {tolerance:g} is accepted",
            "model",
        )
    return difference


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest absolute difference, as a share of the largest output (or of 1, if larger).

    Args:
        ours: outputs, float ``[N, classes]``.
        theirs: the outputs to compare with, ``[N, classes]``.
    """
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1))
