"""The compressed model on disk: one safetensors file that holds factors, never their product.

Version 2. The metadata entry ``atmc`` is a JSON object: what the network is, and for every factor
(U, V, C of each weight, in the architecture's order) its number of non-zeros, the size of its
codebook and the Rice parameter of its positions. A factor's entries are in the order of
``MatrixView``: a convolution's columns are its kernel's area times its input channels. The tensors:

- ``remainders``, ``quotients``: gaps between the non-zeros of a flattened factor, Rice-coded: low
  bits of all factors, then their high parts in unary;
- ``codes`` (bits 1 to 8): indices into the factor's codebook, as many bits each as it needs;
  ``codebooks``: float32 values;
- ``values`` (bits 16, 32): the non-zeros themselves, float16 or float32;
- ``others``: biases, norm parameters and buffers, float32, in the order of the state dict;
- ``channels``, only where channels are gone: a bit for each of the architecture's channel classes
  (see ``channels``), 1 where it is kept. All else is then of the network without the others.

Version 1 is the same without ``channels``, and is read, too. Of a network that only its maker can
build (architecture ``own``) the entry has ``tensors``, too: name and shape of each float tensor of
its state dict, in order.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors
from torch import Tensor, nn

from atmc_core.artifact import bitpacking
from atmc_core.errors import InvalidInput
from atmc_core.factors.factors import Factors
from atmc_core.factors.views import MatrixView, compressible_weights
from atmc_core.networks.blueprint import OWN, Blueprint
from atmc_core.networks.channels import channel_graph
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.graph import Graph
from atmc_core.networks.removal import remove
from atmc_core.networks.state_dict import load_tensors

FORMAT_VERSION = 2
_READABLE = (1, 2)


@dataclass(frozen=True)
class CompressedModel:
    """A network whose conv and linear weights are factors.

    Attributes:
        architecture: a known name, or ``onnx``.
        input_shape: channels, height, width, where the architecture does not say.
        graph: of an ``onnx`` network: the file needs nothing beside it.
        module: of an ``own`` network: one like it, of whatever weights.
        factors: U, V and C by weight name, in the architecture's order; made whole.
        others: the rest of the state dict that is float, in its order.
        bits: 1 to 8, 16 or 32.
        k: the budget it was made for; the non-zeros are at most that.
        kept: the channel classes that are left, bool; None if all are.
    """

    architecture: str
    num_classes: int
    normalization: Normalization
    factors: dict[str, Factors]
    others: dict[str, Tensor]
    bits: int
    k: int
    kept: Tensor | None = None
    input_shape: tuple[int, int, int] | None = None
    graph: Graph | None = None
    module: nn.Module | None = None

    def __post_init__(self) -> None:
        whole = {name: factors.whole() for name, factors in self.factors.items()}
        object.__setattr__(self, "factors", whole)

    @property
    def blueprint(self) -> Blueprint:
        """The network without its weights."""
        return Blueprint.of(
            self.architecture, self.num_classes, self.input_shape, self.graph, self.module
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The weights composed, and the rest."""
        return self.others | {name: factors.compose() for name, factors in self.factors.items()}

    def network(self) -> nn.Module:
        """The network, in evaluation mode, its weights composed; without its normalisation."""
        network = build_kept(self.blueprint, self.kept)
        load_tensors(network, self.state_dict(), strict=False)
        return network.eval()

    def classifier(self) -> Classifier:
        """The runnable network, in evaluation mode, its weights composed."""
        channels = self.blueprint.input_shape[0]
        return Classifier(self.network(), self.normalization, channels).eval()

    def nonzeros(self) -> tuple[int, int, int]:
        """Of U, V and C, over all weights."""
        counts = [[int(t.count_nonzero()) for t in f.tensors] for f in self.factors.values()]
        u, v, c = (sum(column) for column in zip(*counts, strict=True))
        return u, v, c

    def distinct_values(self) -> dict[str, tuple[int, int, int]]:
        """Distinct non-zero values of U, V and C, by weight."""
        return {
            name: tuple(len(torch.unique(t[t != 0])) for t in factors.tensors)  # type: ignore[misc]
            for name, factors in self.factors.items()
        }

    def nominal_ratio(self) -> float:
        """(b nonzeros + 32 bits for each codebook value) / (32 N), as the paper's code counts."""
        codebooks = sum(sum(counts) for counts in self.distinct_values().values())
        table = 32 * codebooks if self.bits <= 8 else 0
        views = compressible_weights(self.blueprint.build())
        dense = sum(int(np.prod(view.shape)) for view in views.values())
        return (self.bits * sum(self.nonzeros()) + table) / (32 * dense)


def build_kept(blueprint: Blueprint, kept: Tensor | None) -> nn.Module:
    """The network with only some of its channel classes; None keeps all.

    Raises:
        ValueError: if there is another number of classes than of bits in ``kept``.
    """
    network = blueprint.build()
    if kept is not None:
        graph = channel_graph(network)
        if graph is None or graph.count != len(kept):
            raise ValueError(f"{blueprint.architecture} has no {len(kept)} channel classes")
        remove(network, graph, ~kept)
    return network


def save(model: CompressedModel, path: Path) -> int:
    """Write the artifact; returns its size in bytes."""
    content = encode(model)
    path.write_bytes(content)
    return len(content)


def load(path: Path, module: nn.Module | None = None) -> CompressedModel:
    """Read an artifact.

    Args:
        module: of an ``own`` network: one like it, of whatever weights.

    Raises:
        InvalidInput: as ``decode``.
    """
    return decode(path.read_bytes(), module)


def encode(model: CompressedModel) -> bytes:
    """The file's bytes; the same model always gives the same ones."""
    layout, gaps, codes, codebooks, values = [], [], [], [], []
    for factor in _flattened(model.factors):
        positions = np.flatnonzero(factor)
        kept = factor[positions]
        gaps.append(np.diff(positions, prepend=-1) - 1)
        low = bitpacking.rice_parameter(gaps[-1])
        codebook = np.unique(kept) if model.bits <= 8 else kept[:0]
        if model.bits <= 8:
            codes.append(bitpacking.pack(np.searchsorted(codebook, kept), _width(len(codebook))))
            codebooks.append(codebook)
        else:
            values.append(kept.astype(np.float16 if model.bits == 16 else np.float32))
        layout.append([len(positions), len(codebook), low])
    lows = [
        bitpacking.pack(g & ((1 << row[2]) - 1), row[2])
        for g, row in zip(gaps, layout, strict=True)
    ]
    highs = [g >> row[2] for g, row in zip(gaps, layout, strict=True)]
    tensors: dict[str, NDArray[Any]] = {
        "remainders": np.packbits(np.concatenate(lows)),
        "quotients": np.packbits(bitpacking.unary(np.concatenate(highs))),
        "others": _concatenate([t.numpy().reshape(-1) for t in model.others.values()]),
    }
    if model.bits <= 8:
        tensors["codes"] = np.packbits(np.concatenate(codes))
        tensors["codebooks"] = _concatenate(codebooks)
    else:
        tensors["values"] = np.concatenate(values)
    if model.kept is not None:
        tensors["channels"] = np.packbits(model.kept.numpy())
    header = {
        "version": FORMAT_VERSION,
        "architecture": model.architecture,
        "num_classes": model.num_classes,
        "mean": model.normalization.mean,
        "std": model.normalization.std,
        "bits": model.bits,
        "k": model.k,
        "factors": layout,
    }
    if model.input_shape is not None:
        header["input_shape"] = model.input_shape
    if model.graph is not None:
        header["graph"] = model.graph.to_text()
    if model.module is not None:
        header["tensors"] = _named_shapes(model.module)
    return save_safetensors(tensors, {"atmc": json.dumps(header, separators=(",", ":"))})


def decode(content: bytes, module: nn.Module | None = None) -> CompressedModel:
    """The inverse of ``encode``.

    Args:
        module: of an ``own`` network: one like it, of whatever weights.

    Raises:
        InvalidInput: ``malformed_artifact``, if the bytes are no artifact or contradict themselves;
            ``invalid_value`` for a module that is missing or not wanted; ``tensor_mismatch``, if
            the module is not the one that was compressed.
    """
    try:
        header = _read_header(content)
        mismatch = _mismatch(header, module)
        if mismatch is None:
            return _rebuild(header, load_safetensors(content), module)
    except (SafetensorError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InvalidInput("malformed_artifact", f"not a readable artifact: {error}") from error
    raise mismatch


def _read_header(content: bytes) -> dict[str, Any]:
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    header: dict[str, Any] = json.loads(metadata["atmc"])
    if header["version"] not in _READABLE:
        raise ValueError(
            f"format version {header['version']}; "
            f"this release reads versions up to {FORMAT_VERSION}: update atmc_core"
        )
    return header


def _named_shapes(network: nn.Module) -> list[list[Any]]:
    """Name and shape of each float tensor of the state dict, in order."""
    return [
        [name, list(tensor.shape)]
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    ]


def _mismatch(header: dict[str, Any], module: nn.Module | None) -> InvalidInput | None:
    """Hold the caller's network against the one that was compressed."""
    architecture = header["architecture"]
    if architecture != OWN:
        if module is not None:
            message = f"the file is of the architecture {architecture}: leave network out"
            return InvalidInput("invalid_value", message, "network")
        return None
    if module is None:
        message = "the file is of a network that only its maker can build: give network=..."
        return InvalidInput("invalid_value", message, "network")
    expected, found = dict(map(tuple, header["tensors"])), dict(map(tuple, _named_shapes(module)))
    for name in [*expected, *found]:
        if expected.get(name) != found.get(name):
            message = (
                f"{name} is {found.get(name, 'missing')} in the network and "
                f"{expected.get(name, 'missing')} in the file: give the network that was compressed"
            )
            return InvalidInput("tensor_mismatch", message, name)
    return None


def _rebuild(
    header: dict[str, Any], tensors: dict[str, NDArray[Any]], module: nn.Module | None
) -> CompressedModel:
    shape, graph = header.get("input_shape"), header.get("graph")
    blueprint = Blueprint.of(
        header["architecture"],
        header["num_classes"],
        tuple(shape) if shape else None,
        Graph.from_text(graph) if graph else None,
        module,
    )
    network, views, kept = _without_channels(blueprint, tensors.get("channels"))
    layout = header["factors"]
    if len(layout) != 3 * len(views):
        raise ValueError(f"{len(layout)} factors; {header['architecture']} has {3 * len(views)}")
    values = _values(header["bits"], layout, tensors)
    positions = _positions(layout, tensors)
    factors = {}
    for name, view in views.items():
        parts = []
        for shape in view.factor_shapes:
            dense = np.zeros(int(np.prod(shape)), np.float32)
            dense[next(positions)] = next(values)
            parts.append(torch.from_numpy(dense).view(shape))
        u, v, c = parts
        factors[name] = Factors(view, u, v, c)
    others = _split_others(tensors["others"], float_state(network, views))
    return CompressedModel(
        architecture=header["architecture"],
        num_classes=header["num_classes"],
        normalization=Normalization(tuple(header["mean"]), tuple(header["std"])),
        factors=factors,
        others=others,
        bits=header["bits"],
        k=header["k"],
        kept=kept,
        input_shape=blueprint.input_shape if shape else None,
        graph=blueprint.graph,
        module=module,
    )


def _without_channels(
    blueprint: Blueprint, channels: NDArray[np.uint8] | None
) -> tuple[nn.Module, dict[str, MatrixView], Tensor | None]:
    """The network, how its weights are seen, and the channel classes that it kept."""
    whole = blueprint.build()
    views = compressible_weights(whole)
    if channels is None:
        return whole, views, None
    graph = channel_graph(whole)
    count = graph.count if graph is not None else 0
    if len(channels) != -(-count // 8):
        raise ValueError(f"channels holds {len(channels)} bytes for {count} classes")
    kept = torch.from_numpy(np.unpackbits(channels, count=count).astype(np.bool_))
    network = build_kept(blueprint, kept)
    # A weight that has lost channels is still seen the way round that it was.
    small = compressible_weights(network)
    return (
        network,
        {name: replace(view, oriented=views[name].wide) for name, view in small.items()},
        kept,
    )


def float_state(network: torch.nn.Module, views: dict[str, Any]) -> dict[str, Tensor]:
    """The float tensors of a state dict that are not factorised: what ``others`` holds.

    Step counters of batch norms are left out: a network in evaluation mode has no use for them.
    """
    return {
        name: tensor.detach().cpu().clone()
        for name, tensor in network.state_dict().items()
        if name not in views and tensor.is_floating_point()
    }


def _values(
    bits: int, layout: list[list[int]], tensors: dict[str, NDArray[Any]]
) -> Iterator[NDArray[np.float32]]:
    """The non-zeros of each factor in turn."""
    counts = [row[0] for row in layout]
    if bits > 8:
        yield from _take(tensors["values"].astype(np.float32), counts)
        return
    stream = np.unpackbits(tensors["codes"]).astype(np.bool_)
    widths = [_width(row[1]) for row in layout]
    packed = _take(stream, [n * w for n, w in zip(counts, widths, strict=True)])
    books = _take(tensors["codebooks"], [row[1] for row in layout])
    for count, width, book, part in zip(counts, widths, books, packed, strict=True):
        yield book[bitpacking.unpack(part, width)] if width else np.repeat(book, count)


def _positions(
    layout: list[list[int]], tensors: dict[str, NDArray[Any]]
) -> Iterator[NDArray[np.int64]]:
    """The places of the non-zeros of each flattened factor in turn."""
    counts, lows = [row[0] for row in layout], [row[2] for row in layout]
    stream = np.unpackbits(tensors["remainders"]).astype(np.bool_)
    remainders = _take(stream, [n * low for n, low in zip(counts, lows, strict=True)])
    bits = np.unpackbits(tensors["quotients"]).astype(np.bool_)
    quotients = _take(bitpacking.from_unary(bits), counts)
    for low, remainder, quotient in zip(lows, remainders, quotients, strict=True):
        gap = quotient << low
        if low:
            gap = gap + bitpacking.unpack(remainder, low)
        yield np.cumsum(gap + 1) - 1


def _take(stream: NDArray[Any], counts: list[int]) -> Iterator[NDArray[Any]]:
    """Consecutive runs of a stream."""
    if sum(counts) > len(stream) or any(count < 0 for count in counts):
        raise ValueError(f"{sum(counts)} entries announced, {len(stream)} found")
    ends = np.cumsum(counts)
    yield from (stream[end - count : end] for end, count in zip(ends, counts, strict=True))


def _split_others(flat: NDArray[np.float32], like: dict[str, Tensor]) -> dict[str, Tensor]:
    sizes = [tensor.numel() for tensor in like.values()]
    if sum(sizes) != len(flat):
        raise ValueError(f"others holds {len(flat)} numbers; {sum(sizes)} expected")
    parts = torch.split(torch.from_numpy(flat.astype(np.float32)), sizes)
    return {
        name: part.clone().view(tensor.shape)
        for (name, tensor), part in zip(like.items(), parts, strict=True)
    }


def _flattened(factors: dict[str, Factors]) -> Iterator[NDArray[np.float32]]:
    for factor in factors.values():
        for tensor in factor.tensors:
            yield tensor.detach().cpu().numpy().reshape(-1)


def _concatenate(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate([np.zeros(0, np.float32), *parts])


def _width(codebook_size: int) -> int:
    """Bits that tell that many codes apart."""
    return max(codebook_size - 1, 0).bit_length()


def dense_bytes(network: torch.nn.Module) -> int:
    """Size of the network's float32 state dict as a safetensors file: what ratios refer to."""
    tensors = {
        name: tensor.detach().cpu().float().numpy()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }
    return len(save_safetensors(tensors))
