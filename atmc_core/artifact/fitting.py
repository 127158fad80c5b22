"""How a file's writer predicts where non-zeros are: it fits the contexts' weights to a sample."""

import math

import numpy as np
from numpy.typing import NDArray

from atmc_reader.coder import UNIT, Integers, logarithm
from atmc_reader.layout import FactorLayout, Weight
from atmc_reader.network import Frame, frame_of, places_of
from atmc_reader.positions import NO_WEIGHTS, PASSES, STEP, WEIGHT_SHIFT, Matrix, Weights

Array = NDArray[np.float64]

#: Fewer non-zeros than these are coded by how many there are: no context pays for its weights.
FEWEST = 48
# Of set and of unset bits about so many are looked at.
_SAMPLE = 12_000
_NEWTON_STEPS, _RIDGE = 6, 1e-2
# The search starts here: about what real networks need.
_START = Weights(0, 16, 20, 12, 16, 16, 0)
# The weights from here on are for kernels.
_WITHOUT_KERNEL = 3
# What weights must save to be stored, in bits: they take seven bytes.
_WORTH = 64.0
# About what an empty row costs if it is not marked, in bits.
_EMPTY_COSTS = 5.0
_LARGEST_SIDE = 32


def layout_of(
    weight: Weight,
    role: int,
    positions: Integers,
    book: int,
    basis: NDArray[np.bool_],
    maps: int,
    known: Weights | None = None,
) -> FactorLayout:
    """Choose how a factor's positions are coded.

    Args:
        weight: the factor's weight.
        role: U, V or C.
        positions: of its non-zeros in the flattened factor.
        book: the size of its codebook.
        basis: the indices of the inner dimension that U and V use.
        maps: how many channels the layer before puts out; 0 if there is none.
        known: weights to take instead of fitting them.
    """
    if not len(positions):
        return FactorLayout(0)
    side = 1 if role == 0 else _side(weight, maps)
    frame = frame_of(weight, role, side, basis)
    rows, places = np.divmod(positions, weight.factor_shapes[role][2])
    area = frame.kernel[0] * frame.kernel[1]
    live_rows = np.isin(frame.rows, rows)
    live_channels = np.asarray(np.isin(frame.columns, places).reshape(-1, area).any(1))
    row_count, channel_count = _worth_marking(live_rows), _worth_marking(live_channels)
    frame = frame.without(
        live_rows if row_count is not None else None,
        live_channels if channel_count is not None else None,
    )
    weights = NO_WEIGHTS
    if FEWEST <= len(positions) < len(frame.rows) * len(frame.columns):
        weights = known if known is not None else _fitted(frame, rows, places)
    return FactorLayout(len(positions), book, weights, side, row_count, channel_count)


def _side(weight: Weight, maps: int) -> int:
    """The side of the square maps that a linear layer reads after ``maps`` channels, else 1."""
    if len(weight.shape) == 4 or not maps or weight.columns % maps:
        return 1
    side = math.isqrt(weight.columns // maps)
    return side if side * side * maps == weight.columns and side <= _LARGEST_SIDE else 1


def _worth_marking(live: NDArray[np.bool_]) -> int | None:
    """How many are live, if it pays to mark which; else None."""
    count, all_ = int(live.sum()), len(live)
    if count == all_:
        return None
    share = count / all_
    mask = -all_ * (share * math.log2(share) + (1 - share) * math.log2(1 - share))
    return count if _EMPTY_COSTS * (all_ - count) > mask + 16 else None


def _fitted(frame: Frame, rows: Integers, places: Integers) -> Weights:
    """The weights that predict a sample of the bits best, by logistic regression."""
    rows, columns = places_of(frame.rows, rows), places_of(frame.columns, places)
    counts = np.arange(frame.kernel[0] * frame.kernel[1] + 1, dtype=np.int16)
    matrix = Matrix(len(frame.rows), len(frame.columns), frame.kernel, len(rows), by_kernel=counts)
    contexts, bits, importance = _sample(matrix, rows, columns)
    base = matrix.base / UNIT * math.log(2)
    before = _cost(base + contexts @ np.zeros(len(NO_WEIGHTS)), bits, importance)
    fitted = np.array(_START, np.float64)
    if matrix.area == 1:
        fitted[_WITHOUT_KERNEL:] = 0  # and stays so, since those contexts are zero
    cost = _cost(base + contexts @ fitted, bits, importance)
    for _ in range(_NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(base + contexts @ fitted, -30, 30)))
        gradient = contexts.T @ (importance * (bits - chance))
        curvature = contexts * (importance * chance * (1 - chance))[:, None]
        step = np.linalg.solve(curvature.T @ contexts + _RIDGE * np.eye(len(fitted)), gradient)
        while (tried := _cost(base + contexts @ (fitted + step), bits, importance)) > cost:
            if np.abs(step).max() < 1:
                break
            step /= 2
        else:
            fitted, cost = fitted + step, tried
    whole = np.rint(fitted).clip(-127, 127)
    if before - _cost(base + contexts @ whole, bits, importance) < _WORTH:
        return NO_WEIGHTS
    return Weights(*(int(weight) for weight in whole))


def _cost(logits: Array, bits: Array, importance: Array) -> float:
    """The bits that a sample takes."""
    nats = np.logaddexp(0, np.where(bits > 0, -logits, logits))
    return float(importance @ nats) / math.log(2)


def _sample(matrix: Matrix, rows: Integers, columns: Integers) -> tuple[Array, Array, Array]:
    """Some bits of a matrix and what is known before each.

    Returns:
        The contexts, scaled so that a weight of 1 is the least that is stored, ``[N, 7]``; the
        bits, ``[N]``; and how many bits of the matrix each stands for, ``[N]``.
    """
    size, ones = matrix.rows * matrix.columns, len(rows)
    generator = np.random.default_rng(0)
    is_set = np.zeros(size, np.bool_)
    flat = rows * matrix.columns + columns
    is_set[flat] = True
    unset = generator.integers(size, size=_SAMPLE)
    unset = unset[~is_set[unset]]
    picked = np.concatenate([generator.permutation(flat)[:_SAMPLE], unset])
    bits = is_set[picked].astype(np.float64)
    importance = np.where(bits > 0, ones / max(bits.sum(), 1), (size - ones) / max(len(unset), 1))
    picked_rows, picked_columns = np.divmod(picked, matrix.columns)
    contexts = np.zeros((len(picked), len(NO_WEIGHTS)))
    contexts[:, 0] = STEP / UNIT
    pass_of, picked_pass = (rows + columns) % PASSES, (picked_rows + picked_columns) % PASSES
    for number in range(PASSES):
        (now,) = np.nonzero(picked_pass == number)
        row, column = picked_rows[now], picked_columns[now]
        features = matrix.features()
        places = (row, column, column // matrix.area, column % matrix.area)
        for index, (feature, place) in enumerate(zip(features, places, strict=True)):
            contexts[now, 1 + index] = feature[place] / (UNIT << WEIGHT_SHIFT)
        if matrix.area > 1:
            beside = matrix.neighbours[column % PASSES, row, column // PASSES]
            contexts[now, 5] = beside * (STEP / UNIT)
            in_kernel = matrix.kernels[row, column // matrix.area].astype(np.int64)
            contexts[now, 6] = logarithm(in_kernel + 1) / (UNIT << WEIGHT_SHIFT)
        else:
            contexts[now, _WITHOUT_KERNEL:] = 0
        mine = pass_of == number
        matrix.learn(number, rows[mine], columns[mine])
    return contexts * math.log(2), bits, importance
