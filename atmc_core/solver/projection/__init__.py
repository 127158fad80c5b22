"""Projections onto the constraint sets: few non-zeros, few channels, few distinct values."""

from atmc_core.solver.projection.classes import Block, Choice, worthiest
from atmc_core.solver.projection.codebook import Quantized, padded, quantize, requantize
from atmc_core.solver.projection.sparsity import mark_balanced, mark_largest

__all__ = [
    "Block",
    "Choice",
    "Quantized",
    "mark_balanced",
    "mark_largest",
    "padded",
    "quantize",
    "requantize",
    "worthiest",
]
