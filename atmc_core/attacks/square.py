"""Square: random search with squares of shrinking size; needs no gradient.

Source: Andriushchenko, Croce, Flammarion & Hein, "Square Attack: a query-efficient black-box
adversarial attack via random search" (2020), algorithms 1 to 3; the margin loss and the schedule
without rescaling, as in AutoAttack.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from atmc_core.attacks.base import Found, Model, SearchAttack, require_positive
from atmc_core.attacks.losses import margin
from atmc_core.attacks.norms import Ball
from atmc_core.attacks.patches import L2Patches, LinfPatches, Patches, Window

# After each of these queries the squares' share of the pixels is halved (section 4.1, for 10,000
# queries).
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


# In l2 a square's side is odd and at least this many pixels.
_SMALLEST_L2_SIDE = 3


@dataclass(frozen=True)
class Square(SearchAttack):
    """Square Attack on the margin loss.

    As in AutoAttack, all images of a batch get each square at the same place. A proposal is not
    sent to the model if the answer is known: if it equals the image's current point, or if it was
    refused since that point last changed. (A model whose outputs change from run to run might have
    answered differently.)

    Attributes:
        ball: the ball that the perturbations stay in.
        queries: the number of proposals for each image, after the first points.
        initial_share: the share of the image's pixels that the first squares cover, at most 1.

    Raises:
        ValueError: if a number is not positive, or ``initial_share`` is above 1.
    """

    ball: Ball
    queries: int = field(default=5000, kw_only=True)
    initial_share: float = field(default=0.8, kw_only=True)

    def __post_init__(self) -> None:
        require_positive(queries=self.queries, initial_share=self.initial_share)
        if self.initial_share > 1:
            raise ValueError(f"initial_share is {self.initial_share}: it must be at most 1")

    @torch.no_grad()
    def search(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        logits: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Found:
        found = Found(images)
        patches: Patches = (
            LinfPatches.start(images, self.ball, generator)
            if self.ball.norm == "linf"
            else L2Patches.start(images, self.ball, generator)
        )
        numbers = torch.arange(len(images), device=images.device)
        losses = -margin(model(patches.points), labels)
        search = _Search(model, found, patches, numbers, labels, losses)
        search.drop_fallen()
        for query, window in enumerate(self._windows(images, generator)):
            if not len(search.labels):
                break
            search.propose(query, window, generator)
        return found

    def _windows(self, images: Tensor, generator: torch.Generator | None) -> Iterator[Window]:
        """The windows of all queries; they are drawn at once, to wait for the device only once."""
        height, width = images.shape[2:]
        draws = torch.rand(self.queries, 4, device=images.device, generator=generator).tolist()
        for query, places in enumerate(draws):
            share = self.initial_share / 2 ** sum(query > start for start in _HALVINGS)
            side = round(math.sqrt(share * height * width))
            if self.ball.norm == "l2":
                side = max(side, _SMALLEST_L2_SIDE) | 1
            side = min(max(side, 1), height, width)
            # As in the published code, the last row and column at which a square would fit are
            # never drawn.
            rows, columns = height - side, width - side
            yield Window(
                side,
                (int(places[0] * rows), int(places[1] * columns)),
                (int(places[2] * rows), int(places[3] * columns)),
            )


class _Search:
    """The images that still stand, the best point of each, and the loss there."""

    def __init__(
        self,
        model: Model,
        found: Found,
        patches: Patches,
        numbers: Tensor,
        labels: Tensor,
        losses: Tensor,
    ) -> None:
        self.model = model
        self.found = found
        self.patches = patches
        self.numbers = numbers
        self.labels = labels
        self.losses = losses
        # The number (from 1) of the query that last improved each image; 0 if there was none.
        self.changed = torch.zeros_like(labels)
        # The number of the query in which each proposal was last tried, by the proposal's key.
        self.tried: dict[object, int] = {}

    def propose(self, query: int, window: Window, generator: torch.Generator | None) -> None:
        """Change one window of every image, and keep the changes that lower the image's margin."""
        proposal, alters, key = self.patches.propose(window, generator)
        if key is not None:
            alters &= self.changed >= self.tried.get(key, 0)
            self.tried[key] = query + 1
        chosen = alters.nonzero()[:, 0]
        if not len(chosen):
            return
        points = self.patches.altered(chosen, proposal, window)
        losses = -margin(self.model(points), self.labels[chosen])
        better = losses < self.losses[chosen]
        chosen, losses = chosen[better], losses[better]
        if not len(chosen):
            return
        self.patches.points[chosen] = points[better]
        self.losses[chosen] = losses
        self.changed[chosen] = query + 1
        if (losses < 0).any():
            self.drop_fallen()

    def drop_fallen(self) -> None:
        """Note the images that are misclassified, and remove them from the search."""
        fallen = self.losses < 0
        if not fallen.any():
            return
        self.found.record(self.numbers[fallen], self.patches.points[fallen])
        self.patches = self.patches.rows(~fallen)
        self.numbers, self.labels = self.numbers[~fallen], self.labels[~fallen]
        self.losses, self.changed = self.losses[~fallen], self.changed[~fallen]
