"""Exports a network as an ONNX file."""

import contextlib
import copy
import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from atmc_core.networks.onnx.adaptive import window_means
from atmc_core.networks.onnx.runtime import runner
from atmc_core.networks.onnx.verify import relative_difference

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
    images = torch.rand(_IMAGES, *input_shape, generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _writable(classifier),
                (images[:2],),
                path,
                dynamo=False,
                opset_version=_OPSET,
                input_names=[input_name],
                output_names=[output_name],
                dynamic_axes={input_name: {0: "N"}, output_name: {0: "N"}},
            )
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


def _writable(classifier: nn.Module) -> nn.Module:
    """A copy in which modules that the exporter does not know are replaced by ones it knows."""
    copied = copy.deepcopy(classifier)
    for name, module in list(copied.named_modules()):
        if isinstance(module, nn.AdaptiveAvgPool2d):
            parent, _, own = name.rpartition(".")
            setattr(copied.get_submodule(parent), own, _WindowMeans(module))
    return copied


class _WindowMeans(nn.Module):
    """An adaptive average pool as a product with constant matrices on either side."""

    def __init__(self, pool: nn.AdaptiveAvgPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, maps: Tensor) -> Tensor:
        # The exporter knows the pool itself if the new sizes divide the maps' sizes.
        with torch.no_grad():
            sizes = self.pool(torch.zeros(1, 1, *map(int, maps.shape[2:]))).shape[2:]
        if all(int(own) % size == 0 for own, size in zip(maps.shape[2:], sizes, strict=True)):
            pooled: Tensor = self.pool(maps)
            return pooled
        rows, columns = (
            window_means(int(own), size) for own, size in zip(maps.shape[2:], sizes, strict=True)
        )
        return torch.from_numpy(rows) @ maps @ torch.from_numpy(columns.T.copy())
