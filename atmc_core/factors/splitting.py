"""The ways to split the dense weights of a network into the factors that compression starts from.

Each is a function of the network's conv and linear weights; ``low_rank`` also takes k.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from atmc_core.factors.factors import Factors, NamedFactors
from atmc_core.factors.views import MatrixView
from atmc_spec import defaults

#: The conv and linear weights of a network, each with its view as matrices, by parameter name.
ViewedWeights = Mapping[str, tuple[Tensor, MatrixView]]

# These keep divisions finite where a whole weight, or the rest of one, is zero.
_LEAST_VALUE, _LEAST_NORM = 1e-30, 1e-12
# The ridge of the regression on picked rows, as a share of their mean square norm.
_RIDGE = 1e-2


@torch.no_grad()
def plain(weights: ViewedWeights) -> NamedFactors:
    """Copies of the weights as they are, not factorised: U = C = 0, of tall weights V = C = 0."""
    return {
        name: Factors.unfactorized(
            view, view.to_matrices(weight).clone(memory_format=torch.contiguous_format)
        )
        for name, (weight, view) in weights.items()
    }


def interpolative(
    weights: ViewedWeights, rank_fraction: float = defaults.RANK_FRACTION
) -> NamedFactors:
    """Split dense weights into factors that all do different work and together compose W exactly.

    Some rows of W go to V as they are; they are picked greedily so that they span as much of W as
    they can, and the identity carries them back at no cost. The other rows are approximated by
    combinations of the picked ones: the coefficients go to U, and the residual goes to C. So no
    entry of W is stored twice, and each non-zero does work of its own as the budget shrinks. (If
    training starts from U = C = 0, they stay nearly empty; see docs/method.md.) In a tall weight
    columns are picked: they go to U and the coefficients to V.

    An interpolative decomposition, as in Cheng et al., "On the compression of low rank matrices",
    SIAM J. Sci. Comput. 26 (2005).

    Args:
        weights: not changed.
        rank_fraction: share of the rows (of a tall weight the columns) that are picked, 0 to 1; at
            least one is. The factors hold only these indices of the inner dimension
            (``Factors.basis``).
    """
    return {
        name: _interpolate(weight, view, rank_fraction) for name, (weight, view) in weights.items()
    }


@torch.no_grad()
def low_rank(weights: ViewedWeights, k: int) -> NamedFactors:
    """Truncated singular value decompositions that together hold at most k entries.

    The singular values of all layers compete, each divided by the largest of its layer. The largest
    are kept while their vectors, m + n entries each, fit the budget. So every layer keeps at least
    one, without which the network would be a constant. The identity is subtracted from the kept
    columns of U (of a tall weight the kept rows of V), so that W is the plain product U V. The
    factors hold only the indices of kept values (``Factors.basis``), in every group as many as in
    the group that keeps the most.

    Args:
        weights: not changed.
        k: at least the number of entries of ``rank_one``.
    """
    decomposed = {name: _decompose(weight, view) for name, (weight, view) in weights.items()}
    kept = _largest_singular_values(decomposed, k)
    factors = {}
    for name, (left, values, right) in decomposed.items():
        rank = int(kept[name].sum(-1).max())  # kept values come first: the largest are in front
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
    """The smallest factors that ``low_rank`` can leave: one singular value in each weight.

    Only where their non-zeros are matters: the two vectors hold ones.
    """
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
    """The singular value decomposition of each group's matrix in its wide form.

    Returns:
        Left vectors ``[groups, short, short]``, values ``[groups, short]`` in falling order, and
        right vectors ``[groups, short, long]``.
    """
    left, values, right = torch.linalg.svd(_wide_form(weight, view), full_matrices=False)
    return left, values, right


def _largest_singular_values(
    decomposed: Mapping[str, tuple[Tensor, Tensor, Tensor]], k: int
) -> dict[str, Tensor]:
    """For each weight 1 where a singular value is kept, 0 elsewhere, ``[groups, short]``.

    Args:
        decomposed: what ``_decompose`` returns, by name.
        k: the number of entries that the kept values' vectors may have together.
    """
    entries = [
        (float(share), left.shape[1] + right.shape[2], name, group, index)
        for name, (left, values, right) in decomposed.items()
        for group, row in enumerate((values / values.max().clamp_min(_LEAST_VALUE)).tolist())
        for index, share in enumerate(row)
    ]
    kept = {name: torch.zeros_like(values) for name, (_, values, _) in decomposed.items()}
    for _, cost, name, group, index in sorted(entries, key=lambda entry: -entry[0]):
        if cost <= k:
            kept[name][group, index] = 1
            k -= cost
    return kept


def _wide_form(weight: Tensor, view: MatrixView) -> Tensor:
    """The matrices ``[groups, short, long]`` of a weight: transposed where it is tall."""
    matrix = view.to_matrices(weight.detach())
    return matrix if view.wide else matrix.mT


def _oriented(
    view: MatrixView, square: Tensor, carried: Tensor, rest: Tensor, basis: Tensor | None = None
) -> Factors:
    """The factors of a weight from those of its wide form: transposed where it is tall.

    Args:
        square, carried, rest: U, V and C of the wide form.
        basis: as in ``Factors``.
    """
    parts = (square, carried, rest) if view.wide else (carried.mT, square.mT, rest.mT)
    u, v, c = (part.contiguous() for part in parts)
    return Factors(view, u, v, c, basis=basis)


@torch.no_grad()
def _interpolate(weight: Tensor, view: MatrixView, rank_fraction: float) -> Factors:
    return _oriented(view, *_interpolative_split(_wide_form(weight, view), rank_fraction))


def _interpolative_split(
    matrix: Tensor, rank_fraction: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split ``[groups, short, long]`` as matrix = (I+S) B + R, where B has only the picked rows.

    Returns:
        The picked columns of S ``[groups, short, rank]``, the picked rows of B, which are the
        matrix's own, ``[groups, rank, long]``, R ``[groups, short, long]``, and the picked indices
        ``[groups, rank]``.
    """
    groups, rows, _ = matrix.shape
    rank = min(rows, max(1, round(rank_fraction * rows)))
    picked = _pivot_rows(matrix, rank)
    basis = matrix.gather(1, picked.unsqueeze(-1).expand(-1, -1, matrix.shape[2]))
    # All rows are regressed on the picked ones. Without the ridge, picked rows that nearly depend
    # on each other would get huge coefficients.
    gram = basis @ basis.mT
    scale = _RIDGE * gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(_LEAST_NORM)
    ridge = scale[:, None, None] * torch.eye(rank, device=matrix.device, dtype=matrix.dtype)
    coefficients = torch.linalg.solve(gram + ridge, basis @ matrix.mT).mT

    is_picked = torch.zeros(groups, rows, 1, dtype=torch.bool, device=matrix.device)
    is_picked.scatter_(1, picked.unsqueeze(-1), True)
    coefficients = coefficients.masked_fill(is_picked, 0)
    rest = (matrix - coefficients @ basis).masked_fill(is_picked, 0)
    return coefficients, basis, rest, picked


def _pivot_rows(matrix: Tensor, rank: int) -> Tensor:
    """Pick rows by greedy pivoted Gram-Schmidt (QR with row pivoting); indices ``[groups, rank]``.

    Args:
        matrix: ``[groups, rows, columns]``.
        rank: how many rows to pick in each group.
    """
    residual = matrix.clone()
    picked = []
    taken = torch.zeros(matrix.shape[:2], dtype=torch.bool, device=matrix.device)
    for _ in range(rank):
        norms = residual.square().sum(-1).masked_fill(taken, -1)
        pivot = norms.argmax(1, keepdim=True)
        taken.scatter_(1, pivot, True)
        picked.append(pivot)
        row = residual.gather(1, pivot.unsqueeze(-1).expand(-1, -1, matrix.shape[2]))
        row = row / row.norm(dim=-1, keepdim=True).clamp_min(_LEAST_NORM)
        residual -= (residual @ row.mT) * row
    return torch.cat(picked, 1)
