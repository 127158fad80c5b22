"""The compressed model on disk, the files made from it, and what a size in bytes means."""

from atmc_core.artifact.format import (
    CompressedModel,
    build_kept,
    decode,
    dense_bytes,
    encode,
    float_state,
    load,
    save,
)

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
