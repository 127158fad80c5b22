"""Reads a compressed network from a file of any version; docs/format.md has the layouts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from atmc_core.artifact.model import CompressedModel, build_kept, float_state
from atmc_core.artifact.writing import named_shapes, tensors_of
from atmc_core.errors import InvalidInput
from atmc_core.factors.factors import Factors
from atmc_core.factors.views import MatrixView, compressible_weights
from atmc_core.networks.blueprint import OWN, Blueprint
from atmc_core.networks.channels import channel_graph
from atmc_core.networks.classifier import Normalization
from atmc_core.networks.graph import Graph
from atmc_reader import MALFORMED, File, open_file
from atmc_reader.layout import Tensors


def load(path: Path, module: nn.Module | None = None) -> CompressedModel:
    """Read an artifact.

    Args:
        path: the file.
        module: as in ``decode``.

    Raises:
        InvalidInput: as ``decode``.
        OSError: if the file cannot be read.
    """
    return decode(path.read_bytes(), module)


def decode(content: bytes, module: nn.Module | None = None) -> CompressedModel:
    """The inverse of ``encode``.

    Args:
        content: the content of an artifact file.
        module: if the architecture is ``own``, a network with the same modules as the one that was
            compressed; its weights do not matter. Otherwise None.

    Raises:
        InvalidInput: ``malformed_artifact`` if the bytes are no artifact or contradict themselves;
            ``invalid_value`` if ``module`` is missing, or given for another architecture;
            ``tensor_mismatch`` if ``module`` is not like the network that was compressed.
    """
    try:
        file = open_file(content)
        mismatch = _mismatch(file, module)
        if mismatch is None:
            return _rebuild(file, module)
    except MALFORMED as error:
        raise InvalidInput("malformed_artifact", f"not a readable artifact: {error}") from error
    raise mismatch


def _mismatch(file: File, module: nn.Module | None) -> InvalidInput | None:
    """Compare the caller's network with the one that was compressed.

    Returns:
        The error to raise, or None if they match.
    """
    if file.architecture != OWN:
        if module is not None:
            message = f"the file is of the architecture {file.architecture}: leave network out"
            return InvalidInput("invalid_value", message, "network")
        return None
    if module is None:
        message = "the file is of a network that only its maker can build: give network=..."
        return InvalidInput("invalid_value", message, "network")
    expected, found = file.shapes, named_shapes(module)
    for name in [*expected, *found]:
        if expected.get(name) != found.get(name):
            message = (
                f"{name} is {found.get(name, 'missing')} in the network and "
                f"{expected.get(name, 'missing')} in the file: give the network that was compressed"
            )
            return InvalidInput("tensor_mismatch", message, name)
    return None


def _rebuild(file: File, module: nn.Module | None) -> CompressedModel:
    shape, graph = file.extra.get("input_shape"), file.extra.get("graph")
    blueprint = Blueprint.of(
        file.architecture,
        file.num_classes,
        tuple(shape) if shape else None,
        Graph.from_text(graph) if graph else None,
        module,
    )
    network, views, kept = _without_channels(blueprint, file.extra.get("channels"))
    state = float_state(network, views)
    contents, _ = file.read(_checked(file, tensors_of(views, state)))
    parts = iter(contents.factors)
    factors = {
        name: Factors(view, *(torch.from_numpy(next(parts).dense()) for _ in view.factor_shapes))
        for name, view in views.items()
    }
    others = {
        name: torch.from_numpy(np.array(values))
        for name, values in zip(state, contents.others, strict=True)
    }
    mean, std = (tuple(file.extra.get(name, ())) for name in ("mean", "std"))
    return CompressedModel(
        architecture=file.architecture,
        num_classes=file.num_classes,
        normalization=Normalization(mean, std),
        factors=factors,
        others=others,
        bits=file.bits,
        k=file.k,
        kept=kept,
        input_shape=blueprint.input_shape if shape else None,
        graph=blueprint.graph,
        module=module,
    )


def _checked(file: File, built: Tensors) -> Tensors:
    """The tensors of the network that was built, if the file describes the same or none."""
    if file.tensors is not None and file.tensors != built:
        raise ValueError(f"its tensors are not those of {file.architecture}")
    return built


def _without_channels(
    blueprint: Blueprint, channels: str | None
) -> tuple[nn.Module, dict[str, MatrixView], Tensor | None]:
    """The network, the matrix view of each weight, and the channel classes that are kept.

    Args:
        blueprint: the whole network.
        channels: a bit for each class, in hexadecimal; None if none were dropped.
    """
    whole = blueprint.build()
    views = compressible_weights(whole)
    if channels is None:
        return whole, views, None
    graph = channel_graph(whole)
    count = graph.count if graph is not None else 0
    packed = np.frombuffer(bytes.fromhex(channels), np.uint8)
    if len(packed) != -(-count // 8):
        raise ValueError(f"channels holds {len(packed)} bytes for {count} classes")
    kept = torch.from_numpy(np.unpackbits(packed, count=count).astype(np.bool_))
    network = build_kept(blueprint, kept)
    # Which factor of a weight is square was decided by its shape before channels were dropped.
    small = compressible_weights(network)
    return (
        network,
        {name: replace(view, oriented=views[name].wide) for name, view in small.items()},
        kept,
    )
