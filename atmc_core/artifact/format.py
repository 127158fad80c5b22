"""The compressed model on disk: one safetensors file that contains factors, never their product.

This is version 2 of the format. The metadata entry ``atmc`` is a JSON object, the header. It says
what the network is, and for every factor (U, V and C of each weight, in the architecture's order)
how many non-zeros it has, how large its codebook is, and the Rice parameter of its positions. The
entries of a factor are in the order of ``MatrixView``: a convolution's columns run over the pixels
of its kernel, and for each pixel over the input channels. The file's tensors are:

- ``remainders`` and ``quotients``: the gaps between the non-zeros of each flattened factor, as a
  Rice code. ``remainders`` are the low bits of all gaps, ``quotients`` the rest of them in unary;
- ``codes`` and ``codebooks`` (bits 1 to 8): for each non-zero its index in the factor's codebook,
  with as many bits as the codebook needs, and the codebooks' values, float32;
- ``values`` (bits 16 and 32): the non-zeros themselves, float16 or float32;
- ``others``: biases, norm parameters and buffers, float32, in the order of the state dict;
- ``channels``, only if channels were dropped: one bit for each channel class of the architecture
  (see ``atmc_core.networks.channels``), 1 if it is kept. Everything else in the file then belongs
  to the smaller network, without the dropped channels.

For a network that only its maker can build (architecture ``own``), the header has one more entry,
``tensors``: the name and shape of each float tensor of the state dict, in order.

Files of version 1 are read, too. They have no ``channels`` and are otherwise the same.
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

#: The version of the files that are written.
FORMAT_VERSION = 2
_READABLE = (1, 2)
# Values of at most this many bits are stored as indices into a codebook.
_CODEBOOK_BITS = 8
# A safetensors file begins with the length of its JSON header, an integer of this many bytes.
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class CompressedModel:
    """A network whose convolution and linear weights are factors W = UV + C.

    Attributes:
        architecture: a known architecture's name, ``onnx`` or ``own``.
        num_classes: the number of classes.
        normalization: the normalisation in front of the network.
        factors: U, V and C of each weight by its name, in the architecture's order. Factors that
            are held in part are completed with zeros.
        others: the float tensors of the state dict that are no such weights, in its order.
        bits: the bits of each non-zero: 1 to 8 (a codebook), 16 or 32 (floats).
        k: the budget; the factors have at most this many non-zeros.
        kept: whether each channel class is left, bool ``[count]``; None if all are.
        input_shape: channels, height and width of the images; None if the architecture fixes them.
        graph: the graph of an ``onnx`` network, with which the file needs nothing else.
        module: for an ``own`` network, one with the same modules; its weights do not matter.
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
        """What it takes to build the network without its weights."""
        return Blueprint.of(
            self.architecture, self.num_classes, self.input_shape, self.graph, self.module
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The float tensors of the network's state dict, with the weights composed."""
        return self.others | {name: factors.compose() for name, factors in self.factors.items()}

    def network(self) -> nn.Module:
        """The network in evaluation mode with its weights composed, without the normalisation."""
        network = build_kept(self.blueprint, self.kept)
        load_tensors(network, self.state_dict(), strict=False)
        return network.eval()

    def classifier(self) -> Classifier:
        """The network behind its normalisation, in evaluation mode, with its weights composed."""
        channels = self.blueprint.input_shape[0]
        return Classifier(self.network(), self.normalization, channels).eval()

    def nonzeros(self) -> tuple[int, int, int]:
        """The numbers of non-zeros in all U, in all V and in all C."""
        counts = [[int(t.count_nonzero()) for t in f.tensors] for f in self.factors.values()]
        u, v, c = (sum(column) for column in zip(*counts, strict=True))
        return u, v, c

    def distinct_values(self) -> dict[str, tuple[int, int, int]]:
        """The numbers of distinct non-zero values in U, V and C of each weight, by its name."""
        return {
            name: tuple(len(torch.unique(t[t != 0])) for t in factors.tensors)  # type: ignore[misc]
            for name, factors in self.factors.items()
        }

    def nominal_ratio(self) -> float:
        """The compression ratio as the ATMC paper's code computes it.

        It is (bits * non-zeros + 32 * codebook values) / (32 * N), where N is the number of dense
        conv and linear weights. Positions do not count.
        """
        codebooks = sum(sum(counts) for counts in self.distinct_values().values())
        table = 32 * codebooks if self.bits <= _CODEBOOK_BITS else 0
        views = compressible_weights(self.blueprint.build())
        dense = sum(int(np.prod(view.shape)) for view in views.values())
        return (self.bits * sum(self.nonzeros()) + table) / (32 * dense)


def build_kept(blueprint: Blueprint, kept: Tensor | None) -> nn.Module:
    """Build a network with only some of its channel classes, with PyTorch's initial weights.

    Args:
        blueprint: the whole network.
        kept: whether each channel class is kept, bool ``[count]``; None keeps all.

    Raises:
        ValueError: if the network does not have ``count`` channel classes.
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
        path: the file.
        module: as in ``decode``.

    Raises:
        InvalidInput: as ``decode``.
        OSError: if the file cannot be read.
    """
    return decode(path.read_bytes(), module)


def encode(model: CompressedModel) -> bytes:
    """The content of the model's file; equal models have equal files."""
    layout, gaps, codes, codebooks, values = [], [], [], [], []
    for factor in _flattened(model.factors):
        positions = np.flatnonzero(factor)
        kept = factor[positions]
        gaps.append(np.diff(positions, prepend=-1) - 1)
        low = bitpacking.rice_parameter(gaps[-1])
        codebook = np.unique(kept) if model.bits <= _CODEBOOK_BITS else kept[:0]
        if model.bits <= _CODEBOOK_BITS:
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
    if model.bits <= _CODEBOOK_BITS:
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
        content: the content of an artifact file.
        module: if the architecture is ``own``, a network with the same modules as the one that was
            compressed; its weights do not matter. Otherwise None.

    Raises:
        InvalidInput: ``malformed_artifact`` if the bytes are no artifact or contradict themselves;
            ``invalid_value`` if ``module`` is missing, or given for another architecture;
            ``tensor_mismatch`` if ``module`` is not like the network that was compressed.
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
    end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    metadata = json.loads(content[_LENGTH_BYTES:end]).get("__metadata__", {})
    header: dict[str, Any] = json.loads(metadata["atmc"])
    if header["version"] not in _READABLE:
        raise ValueError(
            f"format version {header['version']}; "
            f"this release reads versions up to {FORMAT_VERSION}: update atmc_core"
        )
    return header


def _named_shapes(network: nn.Module) -> list[list[Any]]:
    """The name and shape of each float tensor of the state dict, in order."""
    return [
        [name, list(tensor.shape)]
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    ]


def _mismatch(header: dict[str, Any], module: nn.Module | None) -> InvalidInput | None:
    """Compare the caller's network with the one that was compressed.

    Returns:
        The error to raise, or None if they match.
    """
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
    """The network, the matrix view of each weight, and the channel classes that are kept.

    Args:
        blueprint: the whole network.
        channels: the file's ``channels``, uint8 ``[bytes]``; None if none were dropped.
    """
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
    # Which factor of a weight is square was decided by its shape before channels were dropped.
    small = compressible_weights(network)
    return (
        network,
        {name: replace(view, oriented=views[name].wide) for name, view in small.items()},
        kept,
    )


def float_state(network: torch.nn.Module, views: dict[str, Any]) -> dict[str, Tensor]:
    """The float tensors of a state dict that are not factorised: what ``others`` contains.

    The integer counters of batch norms are left out: they have no use in evaluation mode.

    Args:
        network: the network.
        views: the weights that are factorised, by name.

    Returns:
        Copies on the CPU, by name.
    """
    return {
        name: tensor.detach().cpu().clone()
        for name, tensor in network.state_dict().items()
        if name not in views and tensor.is_floating_point()
    }


def _values(
    bits: int, layout: list[list[int]], tensors: dict[str, NDArray[Any]]
) -> Iterator[NDArray[np.float32]]:
    """Yield the values of the non-zeros of each factor, ``[n]``."""
    counts = [row[0] for row in layout]
    if bits > _CODEBOOK_BITS:
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
    """Yield the positions of the non-zeros in each flattened factor, ``[n]``."""
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
    """Yield consecutive runs of a stream, ``counts`` entries long."""
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
    """The number of bits that an index into a codebook of that size needs."""
    return max(codebook_size - 1, 0).bit_length()


def dense_bytes(network: torch.nn.Module) -> int:
    """The size of the network's state dict as a float32 safetensors file, in bytes.

    Size ratios refer to it.
    """
    tensors = {
        name: tensor.detach().cpu().float().numpy()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }
    return len(save_safetensors(tensors))
