"""Removes the dead channels of a network: its weights get smaller, its outputs stay the same.

A channel is dead if no layer reads it, or if it is constant for every image and the constant can be
folded into the bias of every layer that reads it. A padded convolution reads zeros beyond the
border, so a constant can be folded into it only if the constant is zero.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from atmc_core.networks.channels import (
    ChannelGraph,
    Layer,
    Norm,
    Reader,
    channel_graph,
    kernels,
    pads,
)
from atmc_core.networks.classifier import Classifier

Net = TypeVar("Net", bound=nn.Module)


def compact(network: Net) -> Net:
    """Cut the dead channels out of a copy of a network: smaller weights, the same outputs.

    This works for networks that ``torch.fx`` can trace; another one is returned as a plain copy.
    The weights have other shapes afterwards, so the copy is meant for evaluation and export.

    Args:
        network: maps images ``[N, C, H, W]`` to logits ``[N, classes]``.

    Returns:
        The copy, in evaluation mode. Its outputs differ by rounding only.

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
    """Whether each channel class can be dropped without changing the outputs, bool ``[count]``."""
    dead = torch.zeros(graph.count, dtype=torch.bool)
    used = {reader.name: (kernels(reader.layer) != 0).any(2) for reader in graph.readers}
    while True:
        blocked = graph.pinned.clone()
        for reader in graph.readers:
            if not reader.depthwise:
                blocked[_needed(reader, used[reader.name], dead)] = True
        # Every layer keeps at least one channel.
        for reader in graph.readers:
            if not blocked[reader.outputs].any():
                blocked[reader.outputs[0]] = True
        # A channel that only dead channels read is dead, too, so repeat until nothing changes.
        if torch.equal(~blocked, dead):
            return dead
        dead = ~blocked


def _needed(reader: Reader, used: Tensor, dead: Tensor) -> Tensor:
    """The input classes that a layer needs, int64 ``[M]``.

    Args:
        reader: the layer.
        used: whether any weight between an output and an input channel is not zero, bool
            ``[out, in]``.
        dead: the classes that are known to be dead, bool ``[count]``.
    """
    known = reader.inputs >= 0
    foldable = ~reader.values.isnan()
    if pads(reader.layer):
        foldable &= reader.values == 0
    read = used[~dead[reader.outputs]].any(0)
    if not reader.depthwise and len(read) != len(reader.inputs):
        read = torch.ones_like(known)  # a grouped convolution; its inputs are pinned anyway
    return reader.inputs[known & read & ~foldable]


@torch.no_grad()
def _fold(graph: ChannelGraph, dead: Tensor) -> None:
    """Fold the constants of dead channels into the biases of the layers that read them."""
    for reader in graph.readers:
        gone = (reader.inputs >= 0) & dead[reader.inputs] & (reader.values != 0)
        if reader.depthwise or not gone.any():
            continue
        layer = reader.layer
        # A dead channel may vary if only dead output channels read it. It is NaN here, and its
        # value does not matter.
        values = torch.where(gone, reader.values, 0).nan_to_num().double()
        shift = (kernels(layer).sum(2) @ values).to(layer.weight)
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros_like(shift))
        layer.bias += shift


@torch.no_grad()
def remove(network: nn.Module, graph: ChannelGraph, dead: Tensor) -> None:
    """Cut the channels of dead classes out of a network's layers and norms, in place.

    Args:
        network: the network that ``graph`` describes.
        graph: its channel classes.
        dead: the classes to cut, bool ``[count]``.
    """
    if not dead.any():
        return
    for reader in graph.readers:
        rows = ~dead[reader.outputs]
        columns = ~dead[reader.inputs] | (reader.inputs < 0)
        _replace(network, reader.name, _cut_layer(reader, rows, columns))
    for name, classes in graph.norms.items():
        norm = network.get_submodule(name)
        assert isinstance(norm, Norm)
        _replace(network, name, _cut_norm(norm, ~dead[classes]))


def _cut_layer(reader: Reader, rows: Tensor, columns: Tensor) -> Layer:
    """A copy of the layer with some of its output channels (rows) and input channels (columns).

    The weight of a grouped convolution has no columns that could be cut.
    """
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


def _cut_norm(norm: Norm, kept: Tensor) -> Norm:
    small = type(norm)(
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
