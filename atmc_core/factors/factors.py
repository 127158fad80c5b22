"""The parametrisation W = U V + C of conv and linear weights.

How a weight is *seen* stands here (as one matrix a group, with a deviation from the identity as the
square factor); what is *done* to the factors (pruning, quantisation) stands elsewhere.
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

    U and V meet in an inner dimension as long as the weight's short side. In training of most of it
    nothing is ever used, so it may be held in part: U is ``[groups, rows, R]``, V
    ``[groups, R, columns]`` and C ``[groups, rows, columns]``.

    Attributes:
        plain: only the carried factor is used, and the other two are zero and stay so: no product
            is formed, nothing is trained but W itself, and nothing else takes memory.
        basis: which of the inner dimension is held, distinct places, int64 ``[groups, R]``; all of
            it by default. What is not held is zero.
    """

    view: MatrixView
    u: Tensor
    v: Tensor
    c: Tensor
    plain: bool = field(default=False, kw_only=True)
    basis: Tensor | None = field(default=None, kw_only=True)

    @classmethod
    def of_carried(cls, view: MatrixView, carried: Tensor) -> "Factors":
        """Plain ones: all of W is in the factor that the identity passes on."""
        zero = carried.new_zeros(())
        u, v, c = (zero.expand(shape) for shape in view.factor_shapes)
        u, v = (u, carried) if view.wide else (carried, v)
        return cls(view, u, v, c, plain=True)

    @classmethod
    def from_state(cls, view: MatrixView, state: dict[str, Any], device: torch.device) -> "Factors":
        """What ``state`` held."""
        used, basis = [tensor.to(device) for tensor in state["used"]], state["basis"]
        if state["plain"]:
            return cls.of_carried(view, *used)
        return cls(view, *used, basis=basis if basis is None else basis.to(device))

    def state(self) -> dict[str, Any]:
        """Copies of what is used, for a checkpoint or to go on from."""
        used = [self.tensors[role].clone() for role in self.used]
        return {"used": used, "plain": self.plain, "basis": self.basis}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on, in the same memory, from a ``state`` of factors of the same shapes."""
        basis = state["basis"]
        self.basis = basis if basis is None else basis.to(self.c.device)
        for role, saved in zip(self.used, state["used"], strict=True):
            self.tensors[role].copy_(saved)

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

    def held(self, u: Tensor, v: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The held part of tensors of the view's ``factor_shapes``."""
        if self.basis is None:
            return u, v, c
        columns, rows = _across(self.basis, u, -1), _across(self.basis, v, -2)
        return u.gather(-1, columns), v.gather(-2, rows), c

    def whole(self) -> "Factors":
        """The same with all of the inner dimension, in the view's ``factor_shapes``."""
        if self.basis is None:
            return self
        u, v = (self.c.new_zeros(shape) for shape in self.view.factor_shapes[:2])
        u.scatter_(-1, _across(self.basis, u, -1), self.u)
        v.scatter_(-2, _across(self.basis, v, -2), self.v)
        return replace(self, u=u, v=v, basis=None)

    @torch.no_grad()
    def compose(self) -> Tensor:
        """The weight W in its own shape."""
        if self.plain:
            return self.view.to_weight(self.carried)
        matrices = torch.baddbmm(self.c, self.u, self.v)
        # Added, not multiplied by an identity: a GPU's products keep ten bits of a value (TF32).
        if self.basis is None:
            matrices += self.carried
        else:
            matrices.scatter_add_(self._passes, self._places(matrices), self.carried)
        return self.view.to_weight(matrices)

    @torch.no_grad()
    def write_gradients(self, gradient: Tensor, into: Sequence[Tensor]) -> None:
        """Write the gradients of the ``used`` tensors (the chain rule, the identity included).

        V and C both have an entry that moves an entry of W by itself. Of the two only one gets a
        gradient, or W would go twice as far as it should: V's in its rows that hold anything (of a
        tall weight U's in such columns), C's elsewhere.

        Args:
            gradient: that in W.
            into: a tensor for each of the used ones in turn, overwritten.
        """
        outer = self.view.to_matrices(gradient)
        if self.plain:
            into[0].copy_(outer)
            return
        in_u, in_v, in_c = into
        passed = outer
        if self.basis is not None:
            passed = outer.gather(self._passes, self._places(outer))
        if self.view.wide:
            torch.bmm(outer, self.v.mT, out=in_u)
            torch.baddbmm(passed, self.u.mT, outer, out=in_v)
        else:
            torch.baddbmm(passed, outer, self.v.mT, out=in_u)
            torch.bmm(self.u.mT, outer, out=in_v)
        along = -3 - self._passes
        holds = (self.carried != 0).any(along, keepdim=True)
        (in_v if self.view.wide else in_u).mul_(holds)
        if self.basis is not None:
            nowhere = holds.new_zeros(outer.select(along, 0).shape).unsqueeze(along)
            holds = nowhere.scatter_(self._passes, self.basis.unsqueeze(along), holds)
        torch.mul(outer, ~holds, out=in_c)

    @property
    def _passes(self) -> int:
        """The dimension of W that the identity passes on: rows, of a tall weight columns."""
        return -2 if self.view.wide else -1

    def _places(self, like: Tensor) -> Tensor:
        """Where in a tensor like W's matrices the carried factor goes."""
        assert self.basis is not None
        return _across(self.basis, like, self._passes)

    @torch.no_grad()
    def effects(self) -> tuple[Tensor, Tensor]:
        """How far W moves (Frobenius norm) when an entry of U or V moves by one; of C it is one.

        An entry of U moves W along a whole row of V, one of V along a whole column of the left
        factor. Sizes and gradients alone do not compare across the three; scaled by these they do.

        Returns:
            Tensors that broadcast against U and V.
        """
        left = self._with_identity(self.u) if self.view.wide else self.u
        right = self.v if self.view.wide else self._with_identity(self.v.mT).mT
        return right.norm(dim=-1).unsqueeze(-2), left.norm(dim=-2).unsqueeze(-1)

    def _with_identity(self, square: Tensor) -> Tensor:
        """``[groups, side, R]``, and one more where a row is the inner dimension's own."""
        if self.basis is None:
            passed = square.clone()
            passed.diagonal(dim1=-2, dim2=-1).add_(1)
            return passed
        ones = square.new_ones(()).expand(len(square), 1, square.shape[-1])
        return square.scatter_add(-2, self.basis.unsqueeze(-2), ones)

    @torch.no_grad()
    def score(self, sizes: Sequence[Tensor]) -> None:
        """Make of the sizes of entries what they contribute to W: their sizes times their effects.

        Args:
            sizes: of the ``used`` tensors in turn, overwritten.
        """
        if not self.plain:
            for effect, scores in zip(self.effects(), sizes, strict=False):
                scores.mul_(effect)


def _across(basis: Tensor, like: Tensor, dim: int) -> Tensor:
    """The basis as an index into a dimension of ``like``, the same all along the other one."""
    sizes = list(like.shape)
    sizes[dim] = basis.shape[1]
    return basis.unsqueeze(-3 - dim).expand(sizes)


#: The factors of several weights, by the weights' names in their network.
NamedFactors = dict[str, Factors]
