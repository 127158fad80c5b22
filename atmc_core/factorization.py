"""The parametrisation W = U V + C of conv and linear weights.

How a weight is *seen* stands here (as one matrix a group, with a deviation from the identity as the
square factor); what is *done* to the factors (pruning, quantisation) stands elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MatrixView:
    """A conv or linear weight as ``groups`` matrices of ``rows`` x ``columns``.

    Rows are a group's output channels, columns the kernel's area times its input channels, in this
    order: then W comes out with its channels together in memory (channels-last) without a copy, as
    convolutions on a CPU run fastest (1.6 times as fast for LeNet on two cores).

    Attributes:
        oriented: whether it is ``wide``, where that does not follow from the shape: a weight that
            has lost channels stays as it was.
    """

    shape: tuple[int, ...]
    groups: int
    oriented: bool | None = None

    @property
    def rows(self) -> int:
        return self.shape[0] // self.groups

    @property
    def columns(self) -> int:
        return int(torch.Size(self.shape[1:]).numel())

    @property
    def wide(self) -> bool:
        """Whether U is the square factor: W = (I+U) V + C, else W = U (V+I) + C."""
        return self.rows <= self.columns if self.oriented is None else self.oriented

    def to_matrices(self, weight: Tensor) -> Tensor:
        """``[groups, rows, columns]`` from a weight of ``shape``."""
        last = weight.permute(0, 2, 3, 1) if weight.ndim == 4 else weight
        return last.reshape(self.groups, self.rows, self.columns)

    def to_weight(self, matrices: Tensor) -> Tensor:
        """The inverse of ``to_matrices``; a view of contiguous matrices."""
        if len(self.shape) != 4:
            return matrices.view(self.shape)
        out, channels, height, width = self.shape
        return matrices.view(out, height, width, channels).permute(0, 3, 1, 2)

    @property
    def factor_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Shapes of U, V and C."""
        g, m, n = self.groups, self.rows, self.columns
        return ((g, m, m), (g, m, n), (g, m, n)) if self.wide else ((g, m, n), (g, n, n), (g, m, n))


@dataclass
class Factors:
    """One weight's U, V and C, each ``[groups, ., .]``, dense tensors that hold many zeros.

    Attributes:
        plain: only the carried factor is used, and the other two are zero and stay so: no product
            is formed and nothing is trained but W itself.
    """

    view: MatrixView
    u: Tensor
    v: Tensor
    c: Tensor
    plain: bool = field(default=False, kw_only=True)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.u, self.v, self.c

    @property
    def used(self) -> tuple[int, ...]:
        """Which of ``tensors`` may hold anything."""
        return ((1,) if self.view.wide else (0,)) if self.plain else (0, 1, 2)

    @property
    def carried(self) -> Tensor:
        """The factor that the identity passes on: V, or U of a tall weight."""
        return self.v if self.view.wide else self.u

    def basis(self) -> Tensor:
        """Where the carried factor holds anything: by rows of V, or columns of a tall weight's U.

        Returns:
            Bool, broadcasts against it.
        """
        return (self.carried != 0).any(-1 if self.view.wide else -2, keepdim=True)

    @torch.no_grad()
    def compose(self) -> Tensor:
        """The weight W in its own shape."""
        if self.plain:
            return self.view.to_weight(self.carried)
        return self.view.to_weight(torch.baddbmm(self.carried + self.c, self.u, self.v))

    @torch.no_grad()
    def add_gradients(self, gradient: Tensor, into: Sequence[Tensor]) -> None:
        """Add the gradients in the ``used`` tensors (the chain rule, the identity included).

        V and C both have an entry that moves an entry of W by itself. Of the two only one gets a
        gradient, or W would go twice as far as it should: V's in the ``basis``, C's elsewhere.

        Args:
            gradient: that in W.
            into: a tensor for each of the used ones in turn.
        """
        whole = self.view.to_matrices(gradient)
        if self.plain:
            into[0].add_(whole)
            return
        in_u, in_v, in_c = into
        elsewhere = ~self.basis()
        if self.view.wide:
            in_u.baddbmm_(whole, self.v.mT)
            in_v.add_(torch.baddbmm(whole, self.u.mT, whole).masked_fill_(elsewhere, 0))
        else:
            in_v.baddbmm_(self.u.mT, whole)
            in_u.add_(torch.baddbmm(whole, whole, self.v.mT).masked_fill_(elsewhere, 0))
        in_c.addcmul_(whole, elsewhere.to(whole.dtype))

    @torch.no_grad()
    def effects(self) -> tuple[Tensor, Tensor]:
        """How far W moves (Frobenius norm) when an entry of U or V moves by one; of C it is one.

        An entry of U moves W along a whole row of V, one of V along a whole column of the left
        factor. Sizes and gradients alone do not compare across the three; scaled by these they do.

        Returns:
            Tensors that broadcast against U and V.
        """
        left = _norm_with_identity(self.u, -2) if self.view.wide else self.u.norm(dim=-2)
        right = self.v.norm(dim=-1) if self.view.wide else _norm_with_identity(self.v, -1)
        return right.unsqueeze(-2), left.unsqueeze(-1)

    @torch.no_grad()
    def write_scores(self, into: Sequence[Tensor]) -> None:
        """What each entry of the ``used`` tensors contributes to W: its size times its effect.

        Args:
            into: a tensor for each of the used ones in turn, overwritten.
        """
        for role, scores in zip(self.used, into, strict=True):
            torch.abs(self.tensors[role], out=scores)
        if not self.plain:
            for effect, scores in zip(self.effects(), into, strict=False):
                scores.mul_(effect)


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


def dense_weights(network: nn.Module) -> dict[str, tuple[Tensor, MatrixView]]:
    """The weights that are factorised and how they are seen, by parameter name."""
    parameters = dict(network.named_parameters())
    return {name: (parameters[name], view) for name, view in compressible_weights(network).items()}
