"""Euclidean projections onto the two constraint sets: one budget of non-zeros, and codebooks."""

from atmc_core.projection.codebook import Quantized, padded, quantize, requantize
from atmc_core.projection.sparsity import mark_largest

__all__ = ["Quantized", "mark_largest", "padded", "quantize", "requantize"]
