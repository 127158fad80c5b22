"""Puts a network's hidden units into the order in which they take the least room in a file.

Units that all layers treat alike can change places without changing what the network computes, but
for the order in which sums are rounded: n of them have n! orders, which are worth log2 n! bits. In
the order of their biases (or whatever comes first in the state dict) these can be stored by the
steps between them.
"""

from collections import Counter, defaultdict
from dataclasses import replace

import torch
from torch import Tensor, nn

from atmc_core.artifact.model import CompressedModel, build_kept
from atmc_core.factors.factors import Factors, NamedFactors
from atmc_core.networks.channels import ChannelGraph, Reader, channel_graph


@torch.no_grad()
def ordered(model: CompressedModel) -> CompressedModel:
    """The model with its hidden units in rising order of their biases, as far as they are free.

    What is judged must be what the file holds: a network is to be ordered before it is evaluated.
    """
    order = _order_of(model)
    return (
        model if order is None else replace(model, factors=order.factors(), others=order.others())
    )


def ordered_others(model: CompressedModel) -> dict[str, Tensor]:
    """The model's other tensors as ``ordered`` would have them."""
    order = _order_of(model)
    return model.others if order is None else order.others()


def _order_of(model: CompressedModel) -> "_Order | None":
    """None if the network cannot be traced."""
    graph = channel_graph(build_kept(model.blueprint, model.kept).eval())
    return None if graph is None else _Order(graph, model)


class _Order:
    """Which channel class comes to the place of each.

    Args:
        graph: of the model's network.
        model: the model.
    """

    def __init__(self, graph: ChannelGraph, model: CompressedModel) -> None:
        self.graph, self.model = graph, model
        self.readers = {f"{reader.name}.weight": reader for reader in graph.readers}
        self.of_others = {f"{reader.name}.bias": reader.outputs for reader in graph.readers} | {
            f"{name}.{part}": classes
            for name, classes in graph.norms.items()
            for part in ("weight", "bias", "running_mean", "running_var")
        }
        self.source = self._source()

    def others(self) -> dict[str, Tensor]:
        """The model's other tensors in this order."""
        return {
            name: tensor[self._places(self.of_others[name])] if name in self.of_others else tensor
            for name, tensor in self.model.others.items()
        }

    def factors(self) -> NamedFactors:
        """The model's factors in this order."""
        return {
            name: self._permuted(own, self.readers[name]) if name in self.readers else own
            for name, own in self.model.factors.items()
        }

    def _source(self) -> list[int]:
        """For each class the one that takes its place."""
        values: dict[int, tuple[str, float]] = {}
        for name, tensor in self.model.others.items():
            if name in self.of_others and bool(tensor.isfinite().all()):
                named = zip(self.of_others[name].tolist(), tensor.tolist(), strict=True)
                for class_, value in named:
                    values.setdefault(class_, (name, value))
        source = list(range(self.graph.count))
        for alike in self._alike():
            # Classes whose first tensors differ are compared with none of each other.
            by_tensor = defaultdict(list)
            for class_ in alike:
                if class_ in values:
                    by_tensor[values[class_][0]].append(class_)
            for classes in by_tensor.values():
                by_value = sorted(classes, key=lambda class_: values[class_][1])
                for place, class_ in zip(classes, by_value, strict=True):
                    source[place] = class_
        return source

    def _alike(self) -> list[list[int]]:
        """The classes that can change places: each layer and norm has them equally often."""
        fixed = set(self.graph.pinned.nonzero().flatten().tolist()) | {-1}
        parameters = Counter(id(reader.layer.weight) for reader in self.graph.readers)
        lists: list[Tensor] = list(self.graph.norms.values())
        for reader in self.graph.readers:
            sides = [reader.outputs, reader.inputs]
            # Two layers that share a weight would have to agree.
            if parameters[id(reader.layer.weight)] > 1 or _is_grouped(reader):
                fixed |= {class_ for side in sides for class_ in side.tolist()}
            lists += sides
        seen: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for index, classes in enumerate(lists):
            for class_, count in sorted(Counter(classes.tolist()).items()):
                seen[class_].append((index, count))
        alike: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
        for class_ in range(self.graph.count):
            if class_ not in fixed:
                alike[tuple(seen[class_])].append(class_)
        return list(alike.values())

    def _places(self, classes: Tensor) -> Tensor:
        """From which place what stands at each place comes, int64 like ``classes``."""
        # Places by class, those of one class in order; the last is for channels of no known class.
        source = torch.tensor([*self.source, -1])
        wanted = source[classes].argsort(stable=True)
        there = classes.argsort(stable=True)
        result = torch.empty_like(there)
        result[wanted] = there
        return result

    def _permuted(self, own: Factors, reader: Reader) -> Factors:
        rows = self._places(reader.outputs)
        if own.view.groups > 1:
            # Depthwise: each group has one row, and reads what has its own class. The channels of
            # other grouped convolutions stay where they are.
            u, v, c = (tensor[rows] if reader.depthwise else tensor for tensor in own.tensors)
            return replace(own, u=u, v=v, c=c)
        inputs = self._places(reader.inputs)
        # In a convolution's columns the channel is the index that varies fastest.
        first = torch.arange(0, own.view.columns, len(inputs))
        columns = (first[:, None] + inputs).flatten()
        inner = rows if own.view.wide else columns
        return replace(
            own,
            u=_at(own.u, rows, inner),
            v=_at(own.v, inner, columns),
            c=_at(own.c, rows, columns),
        )


def _is_grouped(reader: Reader) -> bool:
    layer = reader.layer
    return isinstance(layer, nn.Conv2d) and layer.groups > 1 and not reader.depthwise


def _at(tensor: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return tensor[:, rows.to(tensor.device)][:, :, columns.to(tensor.device)]
