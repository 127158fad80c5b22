"""Reads the header of a `.pt` file: a zip archive with a pickled index and raw storages."""

from typing import Any, BinaryIO

from api.inspection.archives import UntrustedArchive
from api.inspection.headers import ITEM_BYTES, MAX_TENSORS, ModelHeader, TensorHeader
from api.inspection.pickle_outline import malformed, read_outline
from api.inspection.pickle_values import Global, Storage, StoredTensor, Value, as_tensor
from api.problems import Problem
from api.text import clip
from atmc_spec.checkpoints import StateDict, find_state_dicts

# As many tensors as are taken fit.
MAX_PICKLE_BYTES = 8 * 2**20

# How many entries of a file without tensors a message lists.
_LISTED = 5

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
    """Return names, types and shapes of the state dicts in a saved file.

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
    outline, storages = read_outline(archive.read(name, MAX_PICKLE_BYTES))
    found = find_state_dicts(outline, as_tensor)
    if not found:
        raise malformed(_without_tensors(outline))
    if (count := sum(len(each.tensors) for each in found)) > MAX_TENSORS:
        raise malformed(f"it has {count} tensors, {MAX_TENSORS} are allowed")
    for each in found:
        for key, tensor in each.tensors.items():
            _check_storage(archive, folder, key, tensor.storage)
    # What is no part of a state dict is loaded, too: an optimiser's moments.
    for storage in storages:
        _check_storage(archive, folder, storage.key, storage)
    read = [_headers_of(each) for each in found]
    largest = dict(max(read, key=lambda each: len(each.tensors)).tensors)
    flat = len(read) == 1 and not read[0].path and not read[0].beside
    return ModelHeader("torch", largest, () if flat else tuple(read))


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


def _headers_of(found: StateDict[StoredTensor]) -> StateDict[TensorHeader]:
    headers = {key: tensor.header for key, tensor in found.tensors.items()}
    return StateDict(found.path, headers, found.beside)


def _without_tensors(outline: Any) -> str:
    """Say what a file has instead of a state dict."""
    if not isinstance(outline, dict):
        return f"it holds a {_kind(outline)}"
    entries = [f"{clip(str(key))!r} (a {_kind(value)})" for key, value in outline.items()]
    listed = ", ".join(entries[:_LISTED]) + (" and more" if len(entries) > _LISTED else "")
    return f"it holds no tensors by name, only {listed}" if entries else "it is empty"


def _kind(value: Any) -> str:
    if isinstance(value, Value | Global):
        return "plain value"
    return "tensor" if isinstance(value, StoredTensor) else type(value).__name__


def _check_storage(archive: UntrustedArchive, folder: str, name: str, storage: Storage) -> None:
    member = archive.members.get(f"{folder}data/{storage.key}")
    expected = storage.elements * ITEM_BYTES[storage.dtype]
    if member is None or member.file_size != expected:
        found = "is missing" if member is None else f"has {member.file_size} bytes"
        raise archive.malformed(
            f"the data of {clip(name)!r} should take {expected} bytes and {found}: truncated?",
            clip(name),
        )
