"""Looks into uploaded files cheaply: headers only, nothing executed, no torch.

A file's content decides what it is; its name is never looked at.
"""

from typing import BinaryIO

from api.inspection.datasets import read_dataset_header
from api.inspection.fit import Fit, fit
from api.inspection.headers import ArrayHeader, ModelHeader, TensorHeader
from api.inspection.onnx_outline import read_onnx_header
from api.inspection.safetensors_header import read_safetensors_header
from api.inspection.torch_zip import legacy_pickle, read_torch_header
from api.problems import Problem

__all__ = [
    "ArrayHeader",
    "Fit",
    "ModelHeader",
    "TensorHeader",
    "fit",
    "read_dataset_header",
    "read_model_header",
]


def read_model_header(file: BinaryIO) -> ModelHeader:
    """Return the tensors that a safetensors file or a `.pt` state dict holds.

    Raises a Problem: `unsafe_pickle`, `torchscript_refused` or `malformed_model`.
    """
    head = file.read(9)
    # A safetensors file begins with the header's length (below 2^32) and the header itself. Asked
    # first, since that length may happen to look like another format's magic number.
    if head[4:] == b"\0\0\0\0{":
        return read_safetensors_header(file)
    if head.startswith(b"PK\x03\x04"):
        return read_torch_header(file)
    if head[:1] == b"\x08":
        return read_onnx_header(file)
    if head[:1] == b"\x80":
        raise legacy_pickle()
    raise Problem(
        "malformed_model",
        "The file is neither safetensors, nor ONNX, nor a .pt file written by torch.save. "
        "Write it with safetensors.torch.save_file(model.state_dict(), path).",
    )
