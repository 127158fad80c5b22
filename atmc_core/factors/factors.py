"""The parametrisation W = U V + C of conv and linear weights.

A weight is one matrix a group of a convolution, and one matrix for a linear layer. Its square
factor is held as the deviation from the identity: a wide matrix is W = (I+U) V + C, a tall one
W = U (V+I) + C. What is done to the factors (pruning, quantisation) stands in ``solver``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from atmc_core.factors.views import MatrixView


@dataclass
class Factors:
    """One weight's U, V and C, dense tensors that hold many zeros.

    The product U V sums over an inner dimension as long as the weight's short side. Training never
    uses most of it, so the factors may hold only R of its indices: U is ``[groups, rows, R]``, V is
    ``[groups, R, columns]`` and C is ``[groups, rows, columns]``.

    Attributes:
        view: how the weight is seen as matrices.
        plain: whether W is not factorised: the carried factor is W itself, and the other two are
            zero, are not trained and take no memory.
        basis: the R indices of the inner dimension that are held, distinct in each group, int64
            ``[groups, R]``; None means all. U and V are zero at the others.
    """

    view: MatrixView
    u: Tensor
    v: Tensor
    c: Tensor
    plain: bool = field(default=False, kw_only=True)
    basis: Tensor | None = field(default=None, kw_only=True)

    @classmethod
    def unfactorized(cls, view: MatrixView, matrices: Tensor) -> "Factors":
        """Plain factors, whose carried factor is W itself.

        Args:
            matrices: W as ``view.to_matrices`` gives it, ``[groups, rows, columns]``; not copied.
        """
        zero = matrices.new_zeros(())
        u, v, c = (zero.expand(shape) for shape in view.factor_shapes)
        u, v = (u, matrices) if view.wide else (matrices, v)
        return cls(view, u, v, c, plain=True)

    @classmethod
    def from_state(cls, view: MatrixView, state: dict[str, Any], device: torch.device) -> "Factors":
        """Rebuild the factors that a ``state`` was taken of, on a device."""
        used, basis = [tensor.to(device) for tensor in state["used"]], state["basis"]
        if state["plain"]:
            return cls.unfactorized(view, *used)
        return cls(view, *used, basis=basis if basis is None else basis.to(device))

    def state(self) -> dict[str, Any]:
        """Copies of the ``used`` tensors with ``plain`` and ``basis``, as a checkpoint needs."""
        used = [self.tensors[role].clone() for role in self.used]
        return {"used": used, "plain": self.plain, "basis": self.basis}

    def restore(self, state: dict[str, Any]) -> None:
        """Write a ``state`` of factors of the same shapes into these tensors' own memory."""
        basis = state["basis"]
        self.basis = basis if basis is None else basis.to(self.c.device)
        for role, saved in zip(self.used, state["used"], strict=True):
            self.tensors[role].copy_(saved)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """U ``[groups, rows, R]``, V ``[groups, R, columns]``, C ``[groups, rows, columns]``."""
        return self.u, self.v, self.c

    @property
    def used(self) -> tuple[int, ...]:
        """The indices into ``tensors`` of those that may hold non-zeros."""
        return ((1,) if self.view.wide else (0,)) if self.plain else (0, 1, 2)

    @property
    def carried(self) -> Tensor:
        """The factor that the identity carries into W as it is: V of a wide weight, U of a tall."""
        return self.v if self.view.wide else self.u

    def held(self, u: Tensor, v: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Select the entries at the ``basis`` from whole tensors.

        Args:
            u, v, c: tensors of the view's ``factor_shapes``, such as masks.

        Returns:
            Tensors of the shapes of ``tensors``.
        """
        if self.basis is None:
            return u, v, c
        columns, rows = _across(self.basis, u, -1), _across(self.basis, v, -2)
        return u.gather(-1, columns), v.gather(-2, rows), c

    def whole(self) -> "Factors":
        """The same factors with all of the inner dimension, in the view's ``factor_shapes``."""
        if self.basis is None:
            return self
        u, v = (self.c.new_zeros(shape) for shape in self.view.factor_shapes[:2])
        u.scatter_(-1, _across(self.basis, u, -1), self.u)
        v.scatter_(-2, _across(self.basis, v, -2), self.v)
        return replace(self, u=u, v=v, basis=None)

    @torch.no_grad()
    def compose(self) -> Tensor:
        """The weight W in its own shape, ``view.shape``."""
        if self.plain:
            return self.view.to_weight(self.carried)
        matrices = torch.baddbmm(self.c, self.u, self.v)
        # The carried factor is added and not multiplied by an identity, since a GPU's products keep
        # only ten bits of each value (TF32).
        if self.basis is None:
            matrices += self.carried
        else:
            matrices.scatter_add_(self._carried_dim, self._carried_index(matrices), self.carried)
        return self.view.to_weight(matrices)

    @torch.no_grad()
    def write_gradients(self, gradient: Tensor, into: Sequence[Tensor]) -> None:
        """Write the gradients of the ``used`` tensors (the chain rule, the identity included).

        An entry of the carried factor moves one entry of W directly, and so does an entry of C. If
        both had a gradient, W would move twice as far as it should. So the carried factor has one
        only in rows (of a tall weight in columns) where it has non-zeros, and C only elsewhere.

        Args:
            gradient: the gradient of the loss in W, in W's own shape.
            into: one tensor for each of the used ones, in their order and shapes; overwritten.
        """
        outer = self.view.to_matrices(gradient)
        if self.plain:
            into[0].copy_(outer)
            return
        in_u, in_v, in_c = into
        direct = outer
        if self.basis is not None:
            direct = outer.gather(self._carried_dim, self._carried_index(outer))
        if self.view.wide:
            torch.bmm(outer, self.v.mT, out=in_u)
            torch.baddbmm(direct, self.u.mT, outer, out=in_v)
        else:
            torch.baddbmm(direct, outer, self.v.mT, out=in_u)
            torch.bmm(self.u.mT, outer, out=in_v)
        along = -3 - self._carried_dim
        holds = (self.carried != 0).any(along, keepdim=True)
        (in_v if self.view.wide else in_u).mul_(holds)
        if self.basis is not None:
            nowhere = holds.new_zeros(outer.select(along, 0).shape).unsqueeze(along)
            holds = nowhere.scatter_(self._carried_dim, self.basis.unsqueeze(along), holds)
        torch.mul(outer, ~holds, out=in_c)

    @property
    def _carried_dim(self) -> int:
        """The dimension of W's matrices that is the inner one of U V: rows, or columns if tall."""
        return -2 if self.view.wide else -1

    def _carried_index(self, like: Tensor) -> Tensor:
        """The index of the carried factor along ``_carried_dim`` of a tensor like W's matrices."""
        assert self.basis is not None
        return _across(self.basis, like, self._carried_dim)

    @torch.no_grad()
    def effects(self) -> tuple[Tensor, Tensor]:
        """How far W moves, as a Frobenius norm, when an entry of U or of V moves by one.

        An entry of U moves W along a whole row of the right factor, an entry of V along a whole
        column of the left factor, an entry of C by one. So the magnitudes and gradients of entries
        of U, V and C can only be compared once they are scaled by these effects.

        Returns:
            The effects of U's entries, ``[groups, 1, R]``, and of V's, ``[groups, R, 1]``.
        """
        left = self._with_identity(self.u) if self.view.wide else self.u
        right = self.v if self.view.wide else self._with_identity(self.v.mT).mT
        return right.norm(dim=-1).unsqueeze(-2), left.norm(dim=-2).unsqueeze(-1)

    def _with_identity(self, square: Tensor) -> Tensor:
        """The square factor ``[groups, side, R]`` plus the identity, at the basis's columns."""
        if self.basis is None:
            whole = square.clone()
            whole.diagonal(dim1=-2, dim2=-1).add_(1)
            return whole
        ones = square.new_ones(()).expand(len(square), 1, square.shape[-1])
        return square.scatter_add(-2, self.basis.unsqueeze(-2), ones)

    @torch.no_grad()
    def score(self, magnitudes: Sequence[Tensor]) -> None:
        """Scale the magnitudes of entries by their effects, to what the entries contribute to W.

        Args:
            magnitudes: one tensor for each of the ``used`` ones, in their order and shapes;
                overwritten.
        """
        if not self.plain:
            for effect, scores in zip(self.effects(), magnitudes, strict=False):
                scores.mul_(effect)


def _across(basis: Tensor, like: Tensor, dim: int) -> Tensor:
    """The basis as an index along ``dim`` of ``like``, expanded over the other dimension."""
    sizes = list(like.shape)
    sizes[dim] = basis.shape[1]
    return basis.unsqueeze(-3 - dim).expand(sizes)


#: The factors of several weights, by the weights' names in their network.
NamedFactors = dict[str, Factors]
