"""The channel constraint: which classes of channels stay, so that the weights between them are k.

A class is worth something, and costs something, only together with the classes that its weights
run to and from: the squares that stay are a quadratic form in what is kept, and so is their number.
This is a quadratic knapsack, which is NP-hard. Up to a dozen classes all choices are tried; of more
the ones that are worth least for what they cost go, one round after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Of so many classes all ways to keep or drop them are tried.
EXACT_LIMIT = 12
# Classes go in rounds, each to this share of the weights: what one is worth depends on the others.
_ROUND = 0.95


@dataclass(frozen=True)
class Block:
    """One weight between classes of channels.

    Attributes:
        rows: the class of each output channel, int64 ``[R]``; the number of classes where it is
            none that could go.
        columns: the same of each input channel, ``[C]``.
        worth: what the weights between the two are worth, float64 ``[R, C]``.
        area: how many weights those are.
    """

    rows: Tensor
    columns: Tensor
    worth: Tensor
    area: int

    def size(self, kept: Tensor) -> Tensor:
        """Weights between what is kept, float64 ``[count + 1]``, a one at the end."""
        return self.area * kept[self.rows].sum() * kept[self.columns].sum()

    def in_mean_squares(self, alive: Tensor) -> "Block":
        """The same, its worth in units of the mean over what is alive, bool ``[count]``."""
        state = _with_one(alive)
        total = state[self.rows] @ self.worth @ state[self.columns]
        scale = self.size(state) / total if total > 0 else 0.0
        return Block(self.rows, self.columns, self.worth * scale, self.area)


@dataclass(frozen=True)
class Choice:
    """What there is to choose from.

    Attributes:
        blocks: the weights.
        alive: the classes that may stay, bool ``[count]``.
        pinned: those that must.
        layers: the classes of each layer, of which at least one stays.
    """

    blocks: Sequence[Block]
    alive: Tensor
    pinned: Tensor
    layers: Sequence[Tensor]


def worthiest(choice: Choice, k: int) -> Tensor:
    """The classes to keep, bool ``[count]``, such that at most k weights are between them.

    The sum of what those weights are worth is the largest there is if at most ``EXACT_LIMIT``
    classes can go. If one channel a layer is more than k already, that is what is left.
    """
    free = (choice.alive & ~choice.pinned).nonzero()[:, 0]
    best = _best(choice, free, k) if len(free) <= EXACT_LIMIT else None
    return _thinned(choice, k) if best is None else best


def _thinned(choice: Choice, k: int) -> Tensor:
    """Drop the cheapest classes until the rest holds at most k weights."""
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
    """The best of all ways to keep or drop the free classes; None if none is within k."""
    choices = (torch.arange(2 ** len(free))[:, None] >> torch.arange(len(free))) & 1 == 1
    # What stays anyway is one class more, and what has gone is none.
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
    """Worth and number of weights as quadratic forms in what is kept, ``[places, places]``.

    Args:
        places: the row of each class, and of what is none at the end; -1 for what is left out.
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
    """Of each class what its weights to and from what is kept are worth on average, ``[count]``."""
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
    """As numbers, with what is none of the classes at the end."""
    return torch.cat([kept.double(), torch.ones(1, dtype=torch.double)])


def _without(kept: Tensor, dropped: Tensor) -> Tensor:
    left = kept.clone()
    left[dropped] = False
    return left
