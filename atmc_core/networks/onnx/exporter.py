"""Exports a network as an ONNX file."""

import contextlib
import io
import warnings
from pathlib import Path

import torch
from torch import nn

from atmc_core.networks.onnx.names import Names
from atmc_core.networks.onnx.runtime import runner
from atmc_core.networks.onnx.verify import relative_difference
from atmc_core.networks.onnx.writable import has_operators, writable

#: The largest difference of onnxruntime's outputs from torch's, as a share of the largest output.
TOLERANCE = 1e-5
_OPSET = 17
# The number of random images on which the outputs are compared.
_IMAGES = 4


class ExportFailed(Exception):
    """The network could not be written as ONNX, or its outputs changed; the message says why."""


def export(
    classifier: nn.Module,
    input_shape: tuple[int, int, int],
    path: Path,
    *,
    input_name: str,
    output_name: str,
) -> float:
    """Write a classifier as ONNX, with the size of the batch left open.

    The exporter is torch's TorchScript-based one: it takes a tenth of the newer one's time and
    needs no further package.

    Args:
        classifier: on the CPU; maps images float32 ``[N, C, H, W]`` in [0, 1] to logits
            ``[N, classes]``. It is put into evaluation mode.
        input_shape: channels, height and width of the images.
        path: the file to write.
        input_name: the name of the images in the file.
        output_name: the name of the logits in the file.

    Returns:
        The largest difference between onnxruntime's outputs and torch's on random images, as a
        share of the largest output (or of 1, if that is larger).

    Raises:
        ExportFailed: if torch cannot export it, or the difference is above ``TOLERANCE``.
    """
    classifier = classifier.eval()
    names = Names.safe(input_name, output_name)
    network = writable(classifier)
    images = torch.rand(_IMAGES, *input_shape, generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                (images[:2],),
                path,
                dynamo=False,
                opset_version=_OPSET,
                input_names=[names.images],
                output_names=[names.logits],
                dynamic_axes={names.images: {0: "N"}, names.logits: {0: "N"}},
                autograd_inlining=not has_operators(network),
            )
        names.restore(path)
        theirs = runner(path)(images)
    except Exception as error:
        # The exporter and the runtime raise exceptions of many types.
        path.unlink(missing_ok=True)
        reason = str(error).split("\n")[0][:300]
        raise ExportFailed(f"the network cannot be written as ONNX: {reason}") from error
    with torch.no_grad():
        difference = relative_difference(classifier(images), theirs)
    if not difference <= TOLERANCE:
        path.unlink()
        raise ExportFailed(f"onnxruntime's outputs would differ by {difference:.2g}")
    return difference
