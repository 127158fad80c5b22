"""The channel constraint: which classes of channels stay, so that at most k weights are left.

A weight stays only if the classes of both its input and its output channel stay. So the value of
what is kept (the sum of its squares) is a quadratic form in the choice of classes, and so is the
number of weights. This is a quadratic knapsack problem, which is NP-hard. If few classes can be
dropped, all choices are tried. Otherwise the classes with the lowest value per weight are dropped,
in rounds.

A choice of classes is a bool tensor ``[count]``. Where it is used as numbers, a one is appended:
channels that belong to no class have the number ``count``, and they always stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: If at most this many classes can be dropped, all ways to do so are tried.
EXACT_LIMIT = 12
# A round drops classes until this share of the weights is left. Then the values per weight are
# computed anew, because each depends on the classes that are still there.
_ROUND = 0.95


@dataclass(frozen=True)
class Block:
    """The weight tensor of one layer, seen as a matrix between output and input channels.

    Attributes:
        rows: the class of each output channel, int64 ``[R]``; ``count`` (the number of classes) for
            a channel that belongs to no class and always stays.
        columns: the class of each input channel, int64 ``[C]``, likewise.
        worth: the value of the weights between each two channels, float64 ``[R, C]``.
        area: how much the weights between two channels count in the budget: of a budget of weights
            the kernel's area.
    """

    rows: Tensor
    columns: Tensor
    worth: Tensor
    area: int

    def size(self, kept: Tensor) -> Tensor:
        """The number of weights that are kept, a float64 scalar.

        Args:
            kept: one for each class that is kept, zero for others, and a one at the end; float64
                ``[count + 1]``.
        """
        return self.area * kept[self.rows].sum() * kept[self.columns].sum()

    def in_mean_squares(self, alive: Tensor) -> "Block":
        """This block with ``worth`` in units of its mean over the weights of alive classes.

        Args:
            alive: the classes that have not been dropped, bool ``[count]``.
        """
        state = _with_one(alive)
        total = state[self.rows] @ self.worth @ state[self.columns]
        scale = self.size(state) / total if total > 0 else 0.0
        return Block(self.rows, self.columns, self.worth * scale, self.area)


@dataclass(frozen=True)
class Choice:
    """The problem: what there is to choose from.

    Attributes:
        blocks: the weight tensors.
        alive: the classes that may stay, bool ``[count]``.
        pinned: the classes that must stay, bool ``[count]``.
        layers: for each layer the classes of its output channels, int64 ``[M]``; at least one of
            them stays.
    """

    blocks: Sequence[Block]
    alive: Tensor
    pinned: Tensor
    layers: Sequence[Tensor]


def worthiest(choice: Choice, k: int) -> Tensor:
    """Choose the most valuable classes that have at most k weights between them.

    The choice is optimal if at most ``EXACT_LIMIT`` classes can be dropped, and otherwise greedy.
    If even the smallest possible choice (one class a layer) has more than k weights, the result has
    more than k weights, too.

    Args:
        choice: the problem.
        k: the largest number of weights.

    Returns:
        The classes to keep, bool ``[count]``.
    """
    free = (choice.alive & ~choice.pinned).nonzero()[:, 0]
    best = _best(choice, free, k) if len(free) <= EXACT_LIMIT else None
    return _thinned(choice, k) if best is None else best


def _thinned(choice: Choice, k: int) -> Tensor:
    """Drop the classes with the lowest value per weight until at most k weights are left."""
    kept = choice.alive.clone()
    size = _size(choice, kept)
    while size > k:
        scores = _scores(choice, kept)
        free = kept & ~choice.pinned
        for layer in choice.layers:
            own = layer[kept[layer]]
            free[own[scores[own].argmax()]] = False
        order = scores.masked_fill(~free, torch.inf).argsort(stable=True)[: int(free.sum())]
        if not len(order):
            break
        aim = max(k, int(_ROUND * size))
        low, high = 1, len(order)
        while low < high:
            middle = (low + high) // 2
            if _size(choice, _without(kept, order[:middle])) <= aim:
                high = middle
            else:
                low = middle + 1
        kept = _without(kept, order[:low])
        size = _size(choice, kept)
    return kept


def _best(choice: Choice, free: Tensor, k: int) -> Tensor | None:
    """The best of all ways to keep or drop the ``free`` classes; None if all have more than k."""
    choices = (torch.arange(2 ** len(free))[:, None] >> torch.arange(len(free))) & 1 == 1
    # All classes that stay in any case share one more column, the last. Dropped ones have none.
    places = torch.full((len(choice.alive) + 1,), -1)
    places[:-1][choice.alive] = len(free)
    places[-1] = len(free)
    places[free] = torch.arange(len(free))
    with_rest = torch.cat([choices, torch.ones(len(choices), 1, dtype=torch.bool)], 1)
    worth, size = (
        ((with_rest.double() @ form) * with_rest).sum(1) for form in _forms(choice, places)
    )
    fits = size <= k
    for layer in choice.layers:
        own = places[layer]
        fits &= with_rest[:, own[own >= 0]].any(1)
    if not fits.any():
        return None
    kept = choice.alive.clone()
    kept[free] = choices[worth.masked_fill(~fits, -1).argmax()]
    return kept


def _forms(choice: Choice, places: Tensor) -> tuple[Tensor, Tensor]:
    """The value and the number of the weights as quadratic forms in the choice of classes.

    Args:
        choice: the problem.
        places: the row and column of each class in the forms, int64 ``[count + 1]``, the last for
            channels without a class; -1 for a class that is dropped in any case.

    Returns:
        The two forms, float64 ``[P, P]`` each, where P is the number of different places.
    """
    count = int(places.max()) + 1
    worth, size = torch.zeros(2, count, count, dtype=torch.double)
    for block in choice.blocks:
        rows, columns = (
            (places[side][:, None] == torch.arange(count)).double()
            for side in (block.rows, block.columns)
        )
        worth += rows.T @ block.worth @ columns
        size += block.area * torch.outer(rows.sum(0), columns.sum(0))
    return worth, size


def _scores(choice: Choice, kept: Tensor) -> Tensor:
    """For each class the mean value of its weights to and from kept classes, ``[count]``."""
    state = _with_one(kept)
    worth, size = torch.zeros(2, len(state), dtype=torch.double)
    for block in choice.blocks:
        rows, columns = state[block.rows], state[block.columns]
        worth.index_add_(0, block.rows, block.worth @ columns)
        worth.index_add_(0, block.columns, rows @ block.worth)
        size.index_add_(0, block.rows, block.area * columns.sum().expand_as(rows))
        size.index_add_(0, block.columns, block.area * rows.sum().expand_as(columns))
    average: Tensor = worth / size.clamp_min(1)
    return average[:-1]


def _size(choice: Choice, kept: Tensor) -> int:
    state = _with_one(kept)
    return sum(int(block.size(state)) for block in choice.blocks)


def _with_one(kept: Tensor) -> Tensor:
    """The choice as numbers, float64 ``[count + 1]``, with a one for channels without a class."""
    return torch.cat([kept.double(), torch.ones(1, dtype=torch.double)])


def _without(kept: Tensor, dropped: Tensor) -> Tensor:
    left = kept.clone()
    left[dropped] = False
    return left
