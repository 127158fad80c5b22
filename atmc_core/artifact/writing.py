"""Writes a compressed network to a file; docs/format.md has the layout."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from atmc_core.artifact.fitting import FEWEST, layout_of
from atmc_core.artifact.model import CompressedModel
from atmc_core.factors.views import MatrixView
from atmc_reader.coder import Writer
from atmc_reader.layout import (
    CODEBOOK_BITS,
    MOST_VALUES,
    FactorLayout,
    Header,
    Other,
    Tensors,
    Weight,
    file_of,
    groups_of,
    known_tensors,
)
from atmc_reader.network import Contents, Sparse, basis_of, code_network
from atmc_reader.positions import Weights
from atmc_reader.values import Kind, kind_of, rises


def save(model: CompressedModel, path: Path) -> int:
    """Write the artifact; returns its size in bytes."""
    content = encode(model)
    path.write_bytes(content)
    return len(content)


def encode(model: CompressedModel, fitted: dict[int, Weights] | None = None) -> bytes:
    """The content of the model's file; equal models have equal files.

    Args:
        model: the model.
        fitted: weights of positions' contexts by the factor's number, to take instead of fitting
            them; what has been fitted is added. It saves time where sizes need only be nearly so.
    """
    tensors = tensors_of(
        {name: factors.view for name, factors in model.factors.items()}, model.others
    )
    contents = _contents(model)
    header = _header(model, tensors, contents, {} if fitted is None else fitted)
    writer = Writer()
    code_network(writer, header, contents)
    return file_of(header, writer.content())


def tensors_of(views: dict[str, MatrixView], others: dict[str, Any]) -> Tensors:
    """The float tensors of a network.

    Args:
        views: its conv and linear weights.
        others: its other float tensors, in the order of the state dict.
    """
    return Tensors(
        tuple(Weight(name, v.shape, v.groups, v.wide) for name, v in views.items()),
        tuple(Other(name, tuple(tensor.shape)) for name, tensor in others.items()),
    )


def _contents(model: CompressedModel) -> Contents:
    factors = []
    for own in model.factors.values():
        for tensor in own.tensors:
            flat = tensor.detach().cpu().numpy().reshape(-1)
            (positions,) = np.nonzero(flat)
            values = flat[positions]
            if model.bits == 16:
                values = values.astype(np.float16).astype(np.float32)
            groups, rows, columns = tensor.shape
            factors.append(Sparse((groups, rows, columns), positions, values))
    others = (tensor.detach().cpu().float().numpy() for tensor in model.others.values())
    return Contents(tuple(factors), tuple(others))


def _header(
    model: CompressedModel, tensors: Tensors, contents: Contents, fitted: dict[int, Weights]
) -> Header:
    is_coded = model.bits <= CODEBOOK_BITS
    books = [np.unique(own.values) if is_coded else own.values[:0] for own in contents.factors]
    factors: list[FactorLayout] = []
    bases = []
    maps = 0
    for index, weight in enumerate(tensors.weights):
        own = contents.factors[3 * index : 3 * index + 3]
        basis = basis_of(weight, own[0].positions, own[1].positions)
        for role, factor in enumerate(own):
            number = 3 * index + role
            layout = layout_of(
                weight, role, factor.positions, len(books[number]), basis, maps, fitted.get(number)
            )
            if layout.count >= FEWEST:
                fitted[number] = layout.weights
            factors.append(layout)
        bases.append(int(basis.sum()))
        maps = weight.shape[0]
    if max(map(len, books), default=0) > MOST_VALUES:
        raise ValueError(
            f"a codebook of more than {MOST_VALUES} values: quantise the factors first"
        )
    flat_books = _concatenated(books)
    kinds, rising = _kinds(tensors.others, contents.others)
    return Header(
        architecture=model.architecture,
        num_classes=model.num_classes,
        bits=model.bits,
        k=model.k,
        extra=_extra(model, tensors),
        tensors=tensors,
        basis=tuple(bases),
        factors=tuple(factors),
        codebook_kind=kind_of(flat_books, [len(flat_books)], grid=False),
        kinds=kinds,
        rising=rising,
    )


def _extra(model: CompressedModel, tensors: Tensors) -> dict[str, Any]:
    """What the network needs beyond the header's fields, as JSON."""
    extra: dict[str, Any] = {}
    if model.normalization.mean or model.normalization.std:
        extra |= {"mean": list(model.normalization.mean), "std": list(model.normalization.std)}
    if model.input_shape is not None:
        extra["input_shape"] = list(model.input_shape)
    if model.graph is not None:
        extra["graph"] = model.graph.to_text()
    if model.kept is not None:
        extra["channels"] = np.packbits(model.kept.numpy()).tobytes().hex()
        if model.module is not None:
            extra["whole"] = named_shapes(model.module)
    if tensors != known_tensors(model.architecture, model.num_classes):
        extra["tensors"] = tensors.to_json()
    return extra


def _kinds(
    others: tuple[Other, ...], values: tuple[Any, ...]
) -> tuple[tuple[Kind, ...], tuple[bool, ...]]:
    """How the other tensors can be stored without loss, for each ending of their names.

    Returns:
        The kinds, and whether rising tensors are stored by their steps.
    """
    kinds, rising = [], []
    for indices in groups_of(others).values():
        flat = _concatenated([values[index].reshape(-1) for index in indices])
        sizes = [others[index].size for index in indices]
        kinds.append(kind_of(flat, sizes))
        rising.append(rises(kinds[-1], flat, sizes))
    return tuple(kinds), tuple(rising)


def _concatenated(parts: Iterable[Any]) -> Any:
    return np.concatenate([np.zeros(0, np.float32), *parts])


def named_shapes(network: nn.Module) -> dict[str, list[int]]:
    """The shape of each float tensor of the state dict by its name, in order."""
    return {
        name: list(tensor.shape)
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }
