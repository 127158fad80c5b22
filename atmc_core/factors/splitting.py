"""Where the factors of a dense network start, for each way of compressing it.

A start is a function of the conv and linear weights of the network, and of k for ``low_rank``.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from atmc_core.factors.factors import Factors, NamedFactors
from atmc_core.factors.views import MatrixView
from atmc_spec import defaults

#: The conv and linear weights of a network and how each is seen as matrices, by name.
ViewedWeights = Mapping[str, tuple[Tensor, MatrixView]]


@torch.no_grad()
def plain(weights: ViewedWeights) -> NamedFactors:
    """W as it is: all in the factor that the identity passes on, U = C = 0 (or V = C = 0)."""
    return {
        name: Factors.of_carried(
            view, view.to_matrices(weight).clone(memory_format=torch.contiguous_format)
        )
        for name, (weight, view) in weights.items()
    }


def interpolative(
    weights: ViewedWeights, rank_fraction: float = defaults.RANK_FRACTION
) -> NamedFactors:
    """Split dense weights into factors that all do different work, without changing them.

    Some rows of W, picked greedily so that they span the most of it, go to V as they are (the
    identity passes them on free of charge). The other rows are written as combinations of those:
    the coefficients go to U, what is left to C. No entry is stored twice, so as the budget shrinks
    each has to earn its own place. (From U = C = 0 they never fill; see docs/method.md.) A tall
    weight is treated by columns: the picked columns go to U and the coefficients to V. The factors
    hold the picked rows (columns) and the coefficients of these alone (``Factors.basis``).

    Args:
        rank_fraction: share of the rows (columns) that are picked; at least one is.
    """
    return {
        name: _interpolate(weight, view, rank_fraction) for name, (weight, view) in weights.items()
    }


@torch.no_grad()
def low_rank(weights: ViewedWeights, k: int) -> NamedFactors:
    """Truncated singular value decompositions that together hold at most k entries.

    The singular values of all layers compete, each as a share of its layer's largest: those are
    kept that are largest, while their vectors, m + n entries each, fit the budget. So every layer
    keeps at least one, without which the network would be a constant. The identity is subtracted
    where a kept column of U meets it, so W is the plain product. Of U and V only what belongs to
    kept values is held (``Factors.basis``); of several groups, as many as the one with most has.

    Args:
        k: at least the number of entries of ``rank_one``.
    """
    decomposed = {name: _decompose(weight, view) for name, (weight, view) in weights.items()}
    kept = _largest_singular_values(decomposed, k)
    factors = {}
    for name, (left, values, right) in decomposed.items():
        rank = int(kept[name].sum(-1).max())  # the largest values come first
        root = (values * kept[name]).sqrt()
        square = left * root.unsqueeze(1) - torch.diag_embed(kept[name])
        carried = root.unsqueeze(2) * right
        factors[name] = _oriented(
            weights[name][1],
            square[:, :, :rank],
            carried[:, :rank],
            torch.zeros_like(carried),
            torch.arange(rank, device=carried.device).repeat(len(carried), 1),
        )
    return factors


def rank_one(views: Mapping[str, MatrixView]) -> NamedFactors:
    """The least that ``low_rank`` can leave: ones where a single singular value's vectors are."""
    factors = {}
    for name, view in views.items():
        short, long = sorted((view.rows, view.columns))
        square, carried = (
            torch.zeros(view.groups, short, short),
            torch.zeros(view.groups, short, long),
        )
        square[0, :, 0] = carried[0, 0] = 1
        factors[name] = _oriented(view, square, carried, torch.zeros_like(carried))
    return factors


def _decompose(weight: Tensor, view: MatrixView) -> tuple[Tensor, Tensor, Tensor]:
    """Singular vectors and values ``[groups, rank]`` of the wide form of each group's matrix."""
    left, values, right = torch.linalg.svd(_wide_form(weight, view), full_matrices=False)
    return left, values, right


def _largest_singular_values(
    decomposed: Mapping[str, tuple[Tensor, Tensor, Tensor]], k: int
) -> dict[str, Tensor]:
    """1 where a singular value is kept, 0 elsewhere, in the shape of the values."""
    entries = [
        (float(share), left.shape[1] + right.shape[2], name, group, index)
        for name, (left, values, right) in decomposed.items()
        for group, row in enumerate((values / values.max().clamp_min(1e-30)).tolist())
        for index, share in enumerate(row)
    ]
    kept = {name: torch.zeros_like(values) for name, (_, values, _) in decomposed.items()}
    for _, cost, name, group, index in sorted(entries, key=lambda entry: -entry[0]):
        if cost <= k:
            kept[name][group, index] = 1
            k -= cost
    return kept


def _wide_form(weight: Tensor, view: MatrixView) -> Tensor:
    """``[groups, short side, long side]``: transposed where the matrix is tall."""
    matrix = view.to_matrices(weight.detach())
    return matrix if view.wide else matrix.mT


def _oriented(
    view: MatrixView, square: Tensor, carried: Tensor, rest: Tensor, basis: Tensor | None = None
) -> Factors:
    """Factors of the matrix from those of its wide form."""
    parts = (square, carried, rest) if view.wide else (carried.mT, square.mT, rest.mT)
    u, v, c = (part.contiguous() for part in parts)
    return Factors(view, u, v, c, basis=basis)


@torch.no_grad()
def _interpolate(weight: Tensor, view: MatrixView, rank_fraction: float) -> Factors:
    return _oriented(view, *_interpolative_split(_wide_form(weight, view), rank_fraction))


def _interpolative_split(
    matrix: Tensor, rank_fraction: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """S, B, R and picked rows, with matrix = (I+S) B + R, where of B only those rows are not zero.

    Returned are these rows of B, which are the matrix's own, and these columns of S.
    """
    groups, rows, _ = matrix.shape
    rank = min(rows, max(1, round(rank_fraction * rows)))
    picked = _pivot_rows(matrix, rank)
    basis = matrix.gather(1, picked.unsqueeze(-1).expand(-1, -1, matrix.shape[2]))
    # Ridge regression of all rows on the picked ones: near-dependent rows give no huge
    # coefficients.
    gram = basis @ basis.mT
    scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-12)
    ridge = 1e-2 * scale[:, None, None] * torch.eye(rank, device=matrix.device, dtype=matrix.dtype)
    coefficients = torch.linalg.solve(gram + ridge, basis @ matrix.mT).mT

    is_picked = torch.zeros(groups, rows, 1, dtype=torch.bool, device=matrix.device)
    is_picked.scatter_(1, picked.unsqueeze(-1), True)
    coefficients = coefficients.masked_fill(is_picked, 0)
    rest = (matrix - coefficients @ basis).masked_fill(is_picked, 0)
    return coefficients, basis, rest, picked


def _pivot_rows(matrix: Tensor, rank: int) -> Tensor:
    """Indices ``[groups, rank]`` of rows by greedy pivoted Gram-Schmidt (QR with row pivoting)."""
    residual = matrix.clone()
    picked = []
    taken = torch.zeros(matrix.shape[:2], dtype=torch.bool, device=matrix.device)
    for _ in range(rank):
        norms = residual.square().sum(-1).masked_fill(taken, -1)
        pivot = norms.argmax(1, keepdim=True)
        taken.scatter_(1, pivot, True)
        picked.append(pivot)
        row = residual.gather(1, pivot.unsqueeze(-1).expand(-1, -1, matrix.shape[2]))
        row = row / row.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        residual -= (residual @ row.mT) * row
    return torch.cat(picked, 1)
