"""Reads the header of a `.pt` file: a zip archive with a pickled index and raw storages."""

from typing import Any, BinaryIO

from api.inspection.archives import UntrustedArchive
from api.inspection.headers import ITEM_BYTES, ModelHeader
from api.inspection.pickle_outline import StoredTensor, malformed, read_outline
from api.problems import Problem
from api.text import clip

# 20,000 tensors fit.
MAX_PICKLE_BYTES = 8 * 2**20

CONVERT_TORCHSCRIPT = (
    'python -c "import torch; torch.save(torch.jit.load('
    "'model.pt', map_location='cpu').state_dict(), 'state_dict.pt')\""
)
CONVERT_PT2 = (
    'python -c "import torch; torch.onnx.export(torch.export.load('
    "'model.pt2'), dynamo=True, external_data=False, f='model.onnx')\""
)
CONVERT_LEGACY = (
    'python -c "import torch; torch.save(torch.load('
    "'model.pt', map_location='cpu', weights_only=True), 'state_dict.pt')\""
)


def read_torch_header(file: BinaryIO) -> ModelHeader:
    """Return names, types and shapes of a saved state dict.

    Raises `torchscript_refused`, `pt2_refused`, `unsafe_pickle` or `malformed_model`. The pickle is
    interpreted, never unpickled; the storages are only measured.
    """
    archive = UntrustedArchive(file, code="malformed_model", what=".pt file")
    folder = _find_folder(archive)
    name = f"{folder}data.pkl"
    if archive.members[name].file_size > MAX_PICKLE_BYTES:
        raise archive.malformed(
            f"its data.pkl has {archive.members[name].file_size} bytes, "
            f"{MAX_PICKLE_BYTES} are allowed"
        )
    outline = read_outline(archive.read(name, MAX_PICKLE_BYTES))
    tensors = _state_dict(outline)
    for key, tensor in tensors.items():
        _check_storage(archive, folder, key, tensor)
    return ModelHeader("torch", {key: tensor.header for key, tensor in tensors.items()})


def legacy_pickle() -> Problem:
    """Return the refusal of a bare pickle, the form that torch.save wrote before version 1.6."""
    return Problem(
        "unsafe_pickle",
        "The file is a bare pickle, which cannot be checked before it is loaded; nothing was run. "
        f"Convert it with torch 1.6 or newer: {CONVERT_LEGACY}",
    )


def _find_folder(archive: UntrustedArchive) -> str:
    # All members lie in one folder, named after the file that was first written.
    names = [name.partition("/")[2] for name in archive.members]
    if "archive_format" in names or any(name.startswith("models/") for name in names):
        raise Problem(
            "pt2_refused",
            "The file is an exported program (.pt2): torch.export.load evaluates text of it as "
            "Python, so nothing was loaded. Export it as ONNX where you trust it: " + CONVERT_PT2,
        )
    if any(name == "constants.pkl" or name.startswith("code/") for name in names):
        raise Problem(
            "torchscript_refused",
            "The file is a TorchScript archive, which contains code. Convert it: "
            + CONVERT_TORCHSCRIPT,
        )
    folders = [name[: -len("data.pkl")] for name in archive.members if _is_index(name)]
    if len(folders) != 1:
        raise archive.malformed(
            "it is a zip archive without the data.pkl that torch.save writes; "
            "send a state dict, written by torch.save or as safetensors"
        )
    return folders[0]


def _is_index(name: str) -> bool:
    return name.count("/") == 1 and name.endswith("/data.pkl")


def _state_dict(outline: Any) -> dict[str, StoredTensor]:
    if not isinstance(outline, dict):
        raise malformed(f"it holds a {_kind(outline)}")
    for key, value in outline.items():
        if isinstance(value, dict) and any(isinstance(v, StoredTensor) for v in value.values()):
            raise Problem(
                "malformed_model",
                f"The state dict is nested under {clip(str(key))!r}. Send it alone: "
                f"torch.save(torch.load('model.pt')[{clip(str(key))!r}], 'state_dict.pt')",
                clip(str(key)),
            )
        if not isinstance(key, str):
            raise malformed(f"its key {key} is not a string", str(key))
        if not isinstance(value, StoredTensor):
            raise malformed(f"its entry {clip(key)!r} is a {_kind(value)}, not a tensor", key)
    return outline


def _kind(value: Any) -> str:
    return "tensor" if isinstance(value, StoredTensor) else type(value).__name__


def _check_storage(archive: UntrustedArchive, folder: str, key: str, tensor: StoredTensor) -> None:
    storage = tensor.storage
    member = archive.members.get(f"{folder}data/{storage.key}")
    expected = storage.elements * ITEM_BYTES[storage.dtype]
    if member is None or member.file_size != expected:
        found = "is missing" if member is None else f"has {member.file_size} bytes"
        raise archive.malformed(
            f"the data of {clip(key)!r} should take {expected} bytes and {found}: truncated?",
            clip(key),
        )
