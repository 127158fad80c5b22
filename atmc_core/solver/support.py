"""Which non-zeros stay under a budget of k: the best single entries, or whole channels."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from atmc_core.errors import InvalidInput
from atmc_core.factors.factors import Factors, NamedFactors
from atmc_core.factors.pool import used_tensors
from atmc_core.factors.views import MatrixView, compressible_weights
from atmc_core.networks.channels import Reader, channel_graph
from atmc_core.solver.projection import Block, Choice, mark_balanced, mark_largest, worthiest
from atmc_spec import defaults
from atmc_spec.names import Importance


@dataclass(frozen=True)
class Cut:
    """A network whose dropped channels are cut out.

    Attributes:
        factors: the smaller weights' factors, by weight name.
        others: the other float tensors of the state dict, without the dropped channels' entries.
        kept: whether each channel class is left, bool ``[count]``.
    """

    factors: NamedFactors
    others: dict[str, Tensor]
    kept: Tensor


class Structure:
    """Keeps or drops single entries; a subclass may keep or drop larger parts.

    Args:
        importance: how the entries of different weights compare: ``lamp`` (Lee et al., 2021) or
            ``magnitude``.
    """

    def __init__(self, importance: Importance = defaults.IMPORTANCE) -> None:
        self.importance = importance

    def shrink(self, factors: NamedFactors, k: int, scratch: Tensor | None = None) -> None:
        """Set all entries to zero, in place, that do not stay under a budget of k non-zeros.

        Args:
            scratch: memory for one float32 per used entry, in the pool's order, which is
                overwritten; allocated by default.
        """
        marks = self._marks(factors, k, scratch)
        torch._foreach_mul_(used_tensors(factors), marks)

    def supports(self, factors: NamedFactors, k: int) -> NamedFactors:
        """The supports that a budget of k would leave; the factors are not changed.

        Returns:
            Factors with ones where a non-zero would stay and zeros elsewhere, with all of the inner
            dimension.
        """
        marks = iter(self._marks(factors, k))
        supports = {}
        for name, own in factors.items():
            tensors = list(own.tensors)
            for role in own.used:
                tensors[role] = next(marks) * (own.tensors[role] != 0)
            supports[name] = _with(own, tensors).whole()
        return supports

    def _marks(self, factors: NamedFactors, k: int, scratch: Tensor | None = None) -> list[Tensor]:
        """Masks of the used tensors: ones at the k most important entries, zeros elsewhere."""
        tensors = used_tensors(factors)
        sizes = [tensor.numel() for tensor in tensors]
        scores = tensors[0].new_empty(sum(sizes)) if scratch is None else scratch
        views = [
            part.view_as(tensor)
            for part, tensor in zip(torch.split(scores, sizes), tensors, strict=True)
        ]
        torch._foreach_copy_(views, tensors)
        torch._foreach_abs_(views)
        rest, layers = iter(views), []
        for own in factors.values():
            parts = [next(rest) for _ in own.used]
            own.score(parts)
            layers.append(sum(part.numel() for part in parts))
        if self.importance == "lamp":
            mark_balanced(scores, layers, k)
        else:
            mark_largest(scores, k)
        return views

    def silence(self, network: nn.Module) -> None:
        """Set the biases and norms of dropped channels to zero, so that they put out nothing.

        Single entries have none.
        """

    def adopt(self, factors: NamedFactors) -> None:
        """Take the channels that factors hold nothing of as dropped for good.

        Of single entries nothing has to be remembered.
        """

    def cut(self, factors: NamedFactors, others: Mapping[str, Tensor]) -> Cut | None:
        """Cut out the dropped channels.

        Args:
            factors: U, V and C of each weight, with all of the inner dimension.
            others: the other float tensors of the network's state dict.

        Returns:
            The smaller network, or None if no channel is dropped.
        """
        return None

    def state_dict(self) -> Tensor | None:
        """What a resumed training cannot tell from the factors, or None if there is nothing."""
        return None

    def load_state_dict(self, state: Tensor | None) -> None:
        """Continue from a ``state_dict``."""


class Channels(Structure):
    """Keeps or drops whole channels, together with all that reads them, norms and biases included.

    At most k dense weights lie between the channels that stay. Which channels stay is decided by
    the sum of these weights' squares, each in units of its layer's mean square. With up to a dozen
    channel classes that can go the sum is the largest possible; with more the cheapest classes go
    first (``worthiest``). Every layer keeps at least one channel, and a dropped channel never comes
    back. The factors have at most k non-zeros, too: if they have more, the least important go.

    The budget may be one of multiply-adds instead: then k of the network's N weights mean the share
    k / N of its multiply-adds, each square counts as often as its weight is met, and no single
    entries go.

    Args:
        network: the network.
        positions: at how many positions an image meets each weight, by the weight's name; by
            default the budget is one of weights.

    Raises:
        InvalidInput: if ``torch.fx`` cannot trace the network.
    """

    def __init__(self, network: nn.Module, positions: Mapping[str, int] | None = None) -> None:
        super().__init__()
        graph = channel_graph(network)
        if graph is None:
            raise InvalidInput(
                "invalid_value",
                "the network cannot be traced (torch.fx), so its channels are not known: "
                "ask for structure element",
                "target.structure",
            )
        self.graph = graph
        views = compressible_weights(network)
        readers = {f"{reader.name}.weight": reader for reader in graph.readers}
        self.sides = {
            name: _Sides(view, readers.get(name), positions.get(name, 0) if positions else 1)
            for name, view in views.items()
        }
        self.weights = sum(math.prod(view.shape) for view in views.values())
        self.counts_multiply_adds = positions is not None
        self.alive = torch.ones(graph.count, dtype=torch.bool)
        # The channel classes of the entries of biases and norms, by name in the state dict.
        self.others = {f"{reader.name}.bias": reader.outputs for reader in graph.readers} | {
            f"{name}.{part}": classes
            for name, classes in graph.norms.items()
            for part in ("weight", "bias", "running_mean", "running_var")
        }

    def least(self) -> int:
        """The least k that can be kept to: with pinned channels and one a layer alone."""
        size = self._size(self._with_one_each(self.graph.pinned))
        return math.ceil(Fraction(size * self.weights, self.total))

    @property
    def total(self) -> int:
        """What the whole network has of what the budget counts: weights, or multiply-adds."""
        return self._size(torch.ones_like(self.alive))

    def shrink(self, factors: NamedFactors, k: int, scratch: Tensor | None = None) -> None:
        self.alive = self._chosen(factors, k)
        for name, own in factors.items():
            masks = self.sides[name].masks(self.alive, own.u.device)
            held = own.held(*masks)
            for role in own.used:
                own.tensors[role].mul_(held[role])
        if not self.counts_multiply_adds:
            super().shrink(factors, k, scratch)

    def supports(self, factors: NamedFactors, k: int) -> NamedFactors:
        alive = self._chosen(factors, k)
        kept = {}
        for name, own in factors.items():
            masks = self.sides[name].masks(alive, own.u.device)
            held = own.held(*masks)
            kept[name] = _with(own, [t * m for t, m in zip(own.tensors, held, strict=True)])
        if self.counts_multiply_adds:
            k = sum(tensor.numel() for tensor in used_tensors(kept))
        return super().supports(kept, k)

    @torch.no_grad()
    def silence(self, network: nn.Module) -> None:
        for name, parameter in network.named_parameters():
            if name in self.others:
                parameter.mul_(self.alive[self.others[name]].to(parameter.device))

    def cut(self, factors: NamedFactors, others: Mapping[str, Tensor]) -> Cut | None:
        """Cut out the channels of which no weight is left; see ``Structure.cut``.

        No layer reads those channels, so the network's outputs stay the same, whatever biases and
        norms the channels have.
        """
        kept = self._with_one_each(~self._untouched(factors) | self.graph.pinned)
        if kept.all():
            return None
        return Cut(
            {name: self.sides[name].cut(own, kept) for name, own in factors.items()},
            {
                name: tensor[kept[self.others[name]]] if name in self.others else tensor
                for name, tensor in others.items()
            },
            kept,
        )

    def state_dict(self) -> Tensor:
        return self.alive

    def load_state_dict(self, state: Tensor | None) -> None:
        assert state is not None
        self.alive = state

    def adopt(self, factors: NamedFactors) -> None:
        self.alive = ~self._untouched(factors) | self.graph.pinned

    def _untouched(self, factors: NamedFactors) -> Tensor:
        """Whether no weight of a class is left, bool ``[count]``."""
        touched = torch.zeros(self.graph.count, dtype=torch.bool)
        for name, own in factors.items():
            self.sides[name].touch(touched, own)
        return ~touched

    def _with_one_each(self, kept: Tensor) -> Tensor:
        """``kept``, and the first class of each layer that would be left with none."""
        kept = kept.clone()
        for reader in self.graph.readers:
            if not kept[reader.outputs].any():
                kept[reader.outputs[0]] = True
        return kept

    def _chosen(self, factors: NamedFactors, k: int) -> Tensor:
        """Whether each class is alive and stays under a budget of k, bool ``[count]``."""
        # In the units of the budget; for weights it is k itself.
        k = k * self.total // self.weights
        if self._size(self.alive) <= k:
            return self.alive.clone()
        blocks = [self.sides[name].block(own, self.alive) for name, own in factors.items()]
        layers = [reader.outputs for reader in self.graph.readers]
        return worthiest(Choice(blocks, self.alive, self.graph.pinned, layers), k)

    def _size(self, alive: Tensor) -> int:
        """The dense weights, or multiply-adds, between the channels that are alive."""
        return sum(side.size(alive) for side in self.sides.values())


class _Sides:
    """The channel classes of the rows and columns of one weight's matrices.

    Attributes:
        rows: the class of each row, int64 ``[groups, rows]``; -1 if its channel can never go.
        columns: the class of each column, int64 ``[columns]``; -1 likewise.
        price: how often each weight counts.
    """

    def __init__(self, view: MatrixView, reader: Reader | None, price: int) -> None:
        self.view, self.price = view, price
        self.rows = torch.full((view.groups, view.rows), -1)
        self.columns = torch.full((view.columns,), -1)
        if reader is not None:
            self.rows = reader.outputs.view(view.groups, view.rows)
            if view.groups == 1:
                # In a convolution's columns the channel is the index that varies fastest.
                self.columns = reader.inputs.repeat(view.columns // len(reader.inputs))

    def kept(self, alive: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each row stays, bool ``[groups, rows]``, and each column, bool ``[columns]``."""
        # The last entry is for channels that can never go, whose class is -1.
        stays = torch.cat([alive, torch.ones(1, dtype=torch.bool)])
        return stays[self.rows], stays[self.columns]

    def size(self, alive: Tensor) -> int:
        """What the dense weights in the rows and columns that stay count."""
        rows, columns = self.kept(alive)
        return self.price * int(rows.sum()) * int(columns.sum())

    def masks(self, alive: Tensor, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Bool masks of U, V and C, in the view's ``factor_shapes``, of the entries that stay."""
        rows, columns = (side.to(device) for side in self.kept(alive))
        whole = rows[:, :, None] & columns
        if self.view.wide:
            return rows[:, :, None] & rows[:, None, :], whole, whole
        return whole, (columns[:, None] & columns).expand(self.view.factor_shapes[1]), whole

    def block(self, own: Factors, alive: Tensor) -> Block:
        """What the weights between each output and each input channel are worth.

        That is the sum of their squares, in units of the mean over the channels that are alive.
        """
        squares = self.view.to_matrices(own.compose()).square()
        count, columns, area = len(alive), torch.full((1,), -1), self.view.columns
        if self.view.groups == 1:
            # In a convolution's columns the channel is the index that varies fastest.
            columns = self.columns[: self.view.shape[1]]
            area //= len(columns)
        worth = squares.view(self.rows.numel(), area, -1).sum(1).cpu().double()
        rows = self.rows.reshape(-1)
        block = Block(rows % (count + 1), columns % (count + 1), worth, area * self.price)
        return block.in_mean_squares(alive)

    def touch(self, touched: Tensor, own: Factors) -> None:
        """Set ``touched``, bool ``[count]``, at classes whose rows or columns have non-zeros."""
        u, v, c = ((t != 0).cpu() for t in own.whole().tensors)
        rows, columns = c.any(2), c.any(1).any(0)
        if self.view.wide:
            rows = rows | v.any(2) | u.any(2) | u.any(1)
            columns = columns | v.any(1).any(0)
        else:
            rows = rows | u.any(2)
            columns = columns | u.any(1).any(0) | v.any(1).any(0) | v.any(2).any(0)
        for classes, hit in ((self.rows, rows), (self.columns, columns)):
            touched[classes[hit & (classes >= 0)]] = True

    def cut(self, own: Factors, alive: Tensor) -> Factors:
        """The factors without the dropped rows and columns, which must hold no non-zeros."""
        rows, columns = (side.to(own.u.device) for side in self.kept(alive))
        u, v, c = own.tensors
        out = rows.view(-1)
        if self.view.groups > 1:
            whole = rows.all(1)
            u, v, c = u[whole], v[whole], c[whole]
        elif self.view.wide:
            u, v, c = u[:, out][:, :, out], v[:, out][:, :, columns], c[:, out][:, :, columns]
        else:
            u, v, c = (
                u[:, out][:, :, columns],
                v[:, columns][:, :, columns],
                c[:, out][:, :, columns],
            )
        return replace(own, view=self._view(out, c), u=u, v=v, c=c)

    def _view(self, out: Tensor, c: Tensor) -> MatrixView:
        area = self.view.shape[2:]
        inputs = c.shape[2] // torch.Size(area).numel()
        return MatrixView((int(out.sum()), inputs, *area), len(c), oriented=self.view.wide)


def _with(own: Factors, tensors: list[Tensor]) -> Factors:
    u, v, c = tensors
    return replace(own, u=u, v=v, c=c)
