"""The parametrisation W = U V + C of conv and linear weights.

How a weight is *seen* stands here (as one matrix a group, with a deviation from the identity as the
square factor); what is *done* to the factors (pruning, quantisation) stands elsewhere.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MatrixView:
    """A conv or linear weight as ``groups`` matrices of ``rows`` x ``columns``.

    Rows are a group's output channels, columns its input channels times the kernel's area.
    """

    shape: tuple[int, ...]
    groups: int

    @property
    def rows(self) -> int:
        return self.shape[0] // self.groups

    @property
    def columns(self) -> int:
        return int(torch.Size(self.shape[1:]).numel())

    @property
    def wide(self) -> bool:
        """Whether U is the square factor: W = (I+U) V + C, else W = U (V+I) + C."""
        return self.rows <= self.columns

    @property
    def factor_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Shapes of U, V and C."""
        g, m, n = self.groups, self.rows, self.columns
        return ((g, m, m), (g, m, n), (g, m, n)) if self.wide else ((g, m, n), (g, n, n), (g, m, n))


@dataclass
class Factors:
    """One weight's U, V and C, each ``[groups, ., .]``, dense tensors that hold many zeros."""

    view: MatrixView
    u: Tensor
    v: Tensor
    c: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.u, self.v, self.c

    def compose(self) -> Tensor:
        """The weight W in its own shape, convolutions' in channels-last order; differentiable."""
        carried = self.v if self.view.wide else self.u
        weight = torch.baddbmm(carried + self.c, self.u, self.v).view(self.view.shape)
        # Convolutions whose channels lie together run up to 1.6 times faster
        # (benchmarks.throughput).
        return weight.contiguous(memory_format=torch.channels_last) if weight.ndim == 4 else weight

    @torch.no_grad()
    def effects(self) -> tuple[Tensor, Tensor, Tensor]:
        """How far W moves (Frobenius norm) when an entry of U, V or C moves by one.

        An entry of U moves W along a whole row of V, one of V along a whole column of the left
        factor. Sizes and gradients alone do not compare across the three; scaled by these they do.

        Returns:
            Tensors that broadcast against U, V and C.
        """
        left = _norm_with_identity(self.u, -2) if self.view.wide else self.u.norm(dim=-2)
        right = self.v.norm(dim=-1) if self.view.wide else _norm_with_identity(self.v, -1)
        return right.unsqueeze(-2), left.unsqueeze(-1), torch.ones_like(self.c[:1, :1, :1])

    def scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """What each entry of U, V and C contributes to W: its size times its effect."""
        u, v, c = (t.detach().abs() * e for t, e in zip(self.tensors, self.effects(), strict=True))
        return u, v, c


def _norm_with_identity(square: Tensor, dim: int) -> Tensor:
    """Column (-2) or row (-1) norms of I + square."""
    diagonal = square.diagonal(dim1=-2, dim2=-1)
    squared = square.square().sum(dim) + 2 * diagonal + 1
    return squared.clamp_min(0).sqrt()


def compressible_weights(network: nn.Module) -> dict[str, MatrixView]:
    """The weights that are factorised: every Conv2d's and Linear's, by parameter name.

    A weight that several modules share appears once.
    """
    views: dict[str, MatrixView] = {}
    seen: set[int] = set()
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and id(module.weight) not in seen:
            seen.add(id(module.weight))
            groups = module.groups if isinstance(module, nn.Conv2d) else 1
            key = f"{name}.weight" if name else "weight"
            views[key] = MatrixView(tuple(module.weight.shape), groups)
    return views


@torch.no_grad()
def seed_factors(weight: Tensor, view: MatrixView, rank_fraction: float) -> Factors:
    """Split a dense weight into factors that all do different work, without changing it.

    Some rows of W, picked greedily so that they span the most of it, go to V as they are (the
    identity passes them on free of charge). The other rows are written as combinations of those:
    the coefficients go to U, what is left to C. No entry is stored twice, so as the budget shrinks
    each has to earn its own place. (From U = C = 0 they never fill; see docs/method.md.) A tall
    weight is treated by columns: the picked columns go to U and the coefficients to V.

    Args:
        weight: of shape ``view.shape``.
        rank_fraction: share of the rows (columns) that are picked; at least one is.
    """
    matrix = weight.detach().reshape(view.groups, view.rows, view.columns)
    if not view.wide:
        matrix = matrix.transpose(-2, -1)
    square, carried, rest = _interpolative_split(matrix, rank_fraction)
    if view.wide:
        return Factors(view, square, carried, rest)
    u, v, c = (part.transpose(-2, -1).contiguous() for part in (carried, square, rest))
    return Factors(view, u, v, c)


def _interpolative_split(matrix: Tensor, rank_fraction: float) -> tuple[Tensor, Tensor, Tensor]:
    """S, B and R with matrix = (I+S) B + R, B holding picked rows of the matrix."""
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
    square = torch.zeros(groups, rows, rows, dtype=matrix.dtype, device=matrix.device)
    square.scatter_(2, picked.unsqueeze(1).expand(-1, rows, -1), coefficients)
    carried = matrix * is_picked
    rest = (matrix - coefficients @ basis).masked_fill(is_picked, 0)
    return square, carried, rest


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
