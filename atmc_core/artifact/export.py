"""The compressed network as files that other software reads: a state dict, and ONNX."""

import importlib.util
from pathlib import Path

import safetensors.torch

from atmc_core.artifact import CompressedModel
from atmc_core.events import Emit

STATE_DICT, ONNX_FILE = "model.safetensors", "model.onnx"


def write_exports(model: CompressedModel, folder: Path, emit: Emit) -> None:
    """Write ``model.safetensors`` and ``model.onnx`` into ``folder``.

    The first is a state dict of the architecture with the weights composed. The second contains the
    normalisation, and its input and output have the names that they have in the uploaded graph. A
    file that cannot be written is not an error, because the artifact exists; a warning says why.

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
    if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime")):
        message = "no model.onnx: onnx and onnxruntime are not installed (pip install atmc[worker])"
        emit({"type": "warning", "code": "onnx_not_exported", "message": message})
        return
    # Imported here because it needs the onnx package, which may be missing.
    from atmc_core.networks.onnx.exporter import ExportFailed, export

    blueprint = model.blueprint
    try:
        export(
            model.classifier(),
            blueprint.input_shape,
            folder / ONNX_FILE,
            input_name=blueprint.input_name,
            output_name=blueprint.output_name,
        )
    except ExportFailed as error:
        emit({"type": "warning", "code": "onnx_not_exported", "message": str(error)})
