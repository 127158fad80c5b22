"""The compressed model on disk, the files made from it, and what a size in bytes means."""

from atmc_core.artifact.model import CompressedModel, build_kept, dense_bytes, float_state
from atmc_core.artifact.reading import decode, load
from atmc_core.artifact.writing import encode, save

__all__ = [
    "CompressedModel",
    "build_kept",
    "decode",
    "dense_bytes",
    "encode",
    "float_state",
    "load",
    "save",
]
