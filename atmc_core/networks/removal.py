"""A network without its dead channels: fewer rows and columns, the same outputs.

A channel is dead when nobody reads it, or when it holds a constant whatever the image and every
reader can have the constant folded into its bias. A padded convolution reads zeros beyond the
border, so there only a constant of zero can go; elsewhere the channel stays.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from atmc_core.networks.channels import ChannelGraph, Layer, Reader, channel_graph, kernels, pads
from atmc_core.networks.classifier import Classifier

Net = TypeVar("Net", bound=nn.Module)


def compact(network: Net) -> Net:
    """Cut the dead channels out of a copy of a network: fewer rows and columns, the same outputs.

    Works on any network that ``torch.fx`` can trace; another one comes back as a copy. Weights no
    longer have the shapes that they had, so the copy is for evaluation and export.

    Args:
        network: maps images ``[N, C, H, W]`` to logits ``[N, classes]``.

    Returns:
        The copy, in evaluation mode; its outputs differ by rounding only.

    Example:
        >>> from torch import nn
        >>> wide = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        >>> wide[0].weight.data[4:] = 0  # four channels that hold a constant
        >>> compact(wide)[0].out_channels, wide[0].out_channels
        (4, 8)
    """
    small = copy.deepcopy(network).eval()
    inner = small.network if isinstance(small, Classifier) else small
    graph = channel_graph(inner)
    if graph is not None:
        dead = dead_channels(graph)
        _fold(graph, dead)
        remove(inner, graph, dead)
    return small


def dead_channels(graph: ChannelGraph) -> Tensor:
    """Which classes can go without a change of outputs, bool ``[count]``."""
    dead = torch.zeros(graph.count, dtype=torch.bool)
    used = {reader.name: (kernels(reader.layer) != 0).any(2) for reader in graph.readers}
    while True:
        blocked = graph.pinned.clone()
        for reader in graph.readers:
            if not reader.depthwise:
                blocked[_needed(reader, used[reader.name], dead)] = True
        # A layer without any channel would be none.
        for reader in graph.readers:
            if not blocked[reader.outputs].any():
                blocked[reader.outputs[0]] = True
        # What only dead rows read is dead, too: once more, until nothing changes.
        if torch.equal(~blocked, dead):
            return dead
        dead = ~blocked


def _needed(reader: Reader, used: Tensor, dead: Tensor) -> Tensor:
    """The classes that a reader cannot do without."""
    known = reader.inputs >= 0
    foldable = ~reader.values.isnan()
    if pads(reader.layer):
        foldable &= reader.values == 0
    read = used[~dead[reader.outputs]].any(0)
    if not reader.depthwise and len(read) != len(reader.inputs):
        read = torch.ones_like(known)  # grouped: its inputs are pinned anyway
    return reader.inputs[known & read & ~foldable]


@torch.no_grad()
def _fold(graph: ChannelGraph, dead: Tensor) -> None:
    """Add what dead channels emit to the biases of their readers."""
    for reader in graph.readers:
        gone = (reader.inputs >= 0) & dead[reader.inputs] & (reader.values != 0)
        if reader.depthwise or not gone.any():
            continue
        layer = reader.layer
        # A constant that a dead row alone reads may vary; the row goes with it.
        values = torch.where(gone, reader.values, 0).nan_to_num().double()
        shift = (kernels(layer).sum(2) @ values).to(layer.weight)
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros_like(shift))
        layer.bias += shift


@torch.no_grad()
def remove(network: nn.Module, graph: ChannelGraph, dead: Tensor) -> None:
    """Cut the rows, columns and norms of dead classes out of a network, in place."""
    if not dead.any():
        return
    for reader in graph.readers:
        rows = ~dead[reader.outputs]
        columns = ~dead[reader.inputs] | (reader.inputs < 0)
        _replace(network, reader.name, _cut_layer(reader, rows, columns))
    for name, classes in graph.norms.items():
        norm = network.get_submodule(name)
        assert isinstance(norm, nn.BatchNorm2d)
        _replace(network, name, _cut_norm(norm, ~dead[classes]))


def _cut_layer(reader: Reader, rows: Tensor, columns: Tensor) -> Layer:
    """The layer with some of its rows and columns; a depthwise one has no columns to lose."""
    layer = copy.copy(reader.layer)
    layer._parameters = dict(layer._parameters)
    keep = rows.to(layer.weight.device)
    weight = layer.weight.detach()[keep]
    if not (isinstance(layer, nn.Conv2d) and layer.groups > 1):
        weight = weight[:, columns.to(keep.device)]
    layer.weight = nn.Parameter(weight.contiguous(), requires_grad=layer.weight.requires_grad)
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[keep], layer.bias.requires_grad)
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = weight.shape
        return layer
    if reader.depthwise:
        layer.groups = len(weight)
    layer.out_channels, layer.in_channels = len(weight), int(columns.sum())
    return layer


def _cut_norm(norm: nn.BatchNorm2d, kept: Tensor) -> nn.BatchNorm2d:
    small = nn.BatchNorm2d(
        int(kept.sum()),
        norm.eps,
        norm.momentum,
        norm.affine,
        device=next(norm.buffers()).device,
    )
    state = {
        name: tensor[kept.to(tensor.device)] if tensor.ndim else tensor
        for name, tensor in norm.state_dict().items()
    }
    small.load_state_dict(state)
    return small.train(norm.training)


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)
