"""The compressed network as files that other software reads: a state dict, ONNX, and C."""

import copy
import importlib.util
from pathlib import Path
from tempfile import TemporaryDirectory

import safetensors.torch
from torch import nn

from atmc_core.artifact import CompressedModel
from atmc_core.codegen import NotCovered, c_source
from atmc_core.events import Emit
from atmc_core.networks.blueprint import Blueprint
from atmc_core.networks.classifier import Classifier

STATE_DICT, ONNX_FILE, C_FILE = "model.safetensors", "model.onnx", "model.c"
# The code of the warning that a network was not, or will not be, written as ONNX.
_NO_ONNX = "onnx_not_exported"
#: Likewise of C.
NO_C = "c_not_exported"


def write_exports(model: CompressedModel, folder: Path, emit: Emit) -> None:
    """Write ``model.safetensors``, ``model.onnx`` and ``model.c`` into ``folder``.

    The first is a state dict of the architecture with the weights composed. The other two contain
    the normalisation; the input and output of the second have the names that they have in the
    uploaded graph. A file that cannot be written is not an error, because the artifact exists; a
    warning says why.

    Args:
        model: the compressed network.
        folder: receives the files.
        emit: receives the warnings, as events.
    """
    if model.kept is None:
        state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        safetensors.torch.save_file(state, folder / STATE_DICT)
    else:
        message = f"no {STATE_DICT}: whole channels are gone, so it would not fit the architecture"
        emit({"type": "warning", "code": "state_dict_not_exported", "message": message})
    reason = _not_written(model.classifier(), model.blueprint, folder / ONNX_FILE)
    if reason:
        emit({"type": "warning", "code": _NO_ONNX, "message": reason})
    try:
        source = c_source(model.classifier(), model.blueprint.input_shape)
    except NotCovered as refusal:
        message = f"no {C_FILE}: {refusal}"
        emit({"type": "warning", "code": NO_C, "message": message})
    else:
        (folder / C_FILE).write_text(source)


def try_onnx(classifier: Classifier, blueprint: Blueprint, emit: Emit) -> None:
    """Write a network as ONNX to a file that is thrown away, and warn if that is not possible.

    So a job says before it trains, and not hours later, that ``model.onnx`` will be missing.

    Args:
        classifier: the uploaded classifier, on any device; it is not changed.
        blueprint: the network's description.
        emit: receives the warning, as an event.
    """
    with TemporaryDirectory() as folder:
        on_cpu = copy.deepcopy(classifier).cpu()
        reason = _not_written(on_cpu, blueprint, Path(folder) / ONNX_FILE)
    if reason:
        message = f"{reason}. The job goes on: {ONNX_FILE} would be missing, and nothing else"
        emit({"type": "warning", "code": _NO_ONNX, "message": message})


def _not_written(classifier: nn.Module, blueprint: Blueprint, path: Path) -> str:
    """Write a classifier as ONNX; returns why that was not possible, else an empty text."""
    if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime")):
        return "no model.onnx: onnx and onnxruntime are not installed (pip install atmc[worker])"
    # Imported here because it needs the onnx package, which may be missing.
    from atmc_core.networks.onnx.exporter import ExportFailed, export

    try:
        export(
            classifier,
            blueprint.input_shape,
            path,
            input_name=blueprint.input_name,
            output_name=blueprint.output_name,
        )
    except ExportFailed as error:
        return str(error)
    return ""
