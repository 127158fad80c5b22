"""The bytes of ``.atmc`` files, beside what information theory and others would make of the same.

    python -m benchmarks.artifact [--networks lenet resnet18 resnet34] [--table FILE]

The kept networks (``benchmarks/results/networks``) are written anew in format 3 and, for
``lossless_gain_min``, in format 2; and once more with their hidden units in the order that a job
gives them, as all that are made here have. Networks of other sizes are made here: the dense LeNet
that is kept, and ResNets with PyTorch's initial weights, for no trained ones are kept, are pruned
to a density by ``lamp`` and quantised. At random weights there is nothing to be known of positions,
so these rows show what the coder costs, and the kept networks what its contexts bring. "Unequal"
ones have rows, columns, cells and kernels of different weight: reading them takes all contexts.

Each row has the bytes of

- the dense network in float32 (safetensors); the pruned and quantised one in float32 under zstd-19;
- scipy's CSR matrices, 32-bit indices, with codes of b bits and codebooks and the rest in float32;
- ``nncodec`` (see ``benchmarks.nncodec_peer``) without its headers, with codebooks and the rest in
  float32, as the standard stores floats that are not to change (``NNR_PT_RAW_FLOAT``); left out
  where it is not installed, and so is zstd;
- ``nncodec_coder``: the same with codebooks and the rest as they stand in our file, which compares
  the coders of positions and codes alone;
- the bound: memoryless positions, the entropy of the codes, and the rest in float32;

and the seconds that decoding takes on one core.

Prints one JSON line: ``lossless_gain_min`` (the least share of format 2's bytes that format 3
saves on a kept network), ``over_bound_max`` (the largest share by which a file exceeds its bound,
negative if none does), ``nncodec_ratio_max`` (our bytes over nncodec's, the largest; of the kept
networks alone ``nncodec_ratio_kept_max``; over ``nncodec_coder`` ``nncodec_coder_ratio_max``),
``decode_seconds_max``, ``find_k_seconds`` (in which k is found for a ``max_bytes`` of a hundredth
of the dense file), all of CPU time, and the rows.
"""

import argparse
import importlib.util
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from safetensors.torch import save as save_safetensors

from atmc_core import artifact
from atmc_core.artifact import CompressedModel, float_state
from atmc_core.artifact.budget import Budget
from atmc_core.artifact.ordering import ordered
from atmc_core.factors.factors import Factors
from atmc_core.factors.splitting import plain
from atmc_core.factors.views import dense_weights
from atmc_core.networks.architectures import build
from atmc_core.networks.classifier import Normalization
from atmc_core.networks.upload import ModelInput, open_upload
from atmc_core.solver.projection import quantize
from atmc_core.solver.support import Structure
from atmc_reader import open_file
from atmc_reader.inspection import bounds_of
from atmc_reader.network import Contents
from atmc_spec import Target
from benchmarks import format2, nncodec_peer
from benchmarks.proof import kept
from benchmarks.timing import print_result, say

NETWORKS = ("lenet", "resnet18", "resnet34")
DENSITIES, BITS = (0.1, 0.01, 0.005), (8, 4, 2)
_DENSE = "mnist-dense-seed0"
_COLUMNS = ("dense", "zstd", "csr", "format2", "nncodec", "nncodec_coder", "bound", "bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--table", type=Path, help="also write the rows there, as Markdown")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, model in [*_kept(), *_made(arguments.networks)]:
        rows.append({"network": name, **row(model)})
        say(_line(rows[-1]))
    if arguments.table:
        arguments.table.write_text(table(rows))
    found = [each for each in rows if each["network"] in kept()]
    ratios = {each["network"]: each["bytes"] / each["nncodec"] for each in rows if each["nncodec"]}
    coders = [each["bytes"] / each["nncodec_coder"] for each in rows if each["nncodec"]]
    print_result(
        {
            "lossless_gain_min": min(1 - each["bytes"] / each["format2"] for each in found),
            "over_bound_max": max(each["bytes"] / each["bound"] - 1 for each in rows),
            "nncodec_ratio_max": max(ratios.values(), default=None),
            "nncodec_ratio_kept_max": max(
                (ratios[each["network"]] for each in found if each["network"] in ratios),
                default=None,
            ),
            "nncodec_coder_ratio_max": max(coders, default=None),
            "decode_seconds_max": max(each["decode_seconds"] for each in rows),
            "find_k_seconds": {name: find_k_seconds(name) for name in arguments.networks},
            "rows": rows,
        }
    )


def _kept() -> Iterator[tuple[str, CompressedModel]]:
    for name, path in kept().items():
        if path.suffix == ".atmc":
            model = artifact.load(path)
            yield name, model
            yield f"{name}, in order", ordered(model)


def _made(networks: Sequence[str]) -> Iterator[tuple[str, CompressedModel]]:
    for architecture in networks:
        torch.manual_seed(0)
        network = build(architecture, 10)
        if architecture == "lenet":
            upload = open_upload(ModelInput(kept()[_DENSE], architecture))
            network = upload.load((1, 28, 28)).classifier(Normalization()).network
        for density in DENSITIES:
            for bits in BITS:
                name = f"{architecture} {density} {bits} bits"
                yield name, ordered(pruned(architecture, network, density, bits))
        if architecture != "lenet":
            make_unequal(network)
            for density in DENSITIES:
                name = f"{architecture} unequal {density} 4 bits"
                yield name, ordered(pruned(architecture, network, density, 4))


@torch.no_grad()
def make_unequal(network: torch.nn.Module) -> None:
    """Scale each row, column, cell and kernel of the weights by a factor of its own.

    So there is something to be known of positions, and a reader has all contexts to look at.
    """
    for weight, _ in dense_weights(network).values():
        for dimension, size in enumerate(weight.shape):
            spread, shape = (0.7 if dimension < 2 else 0.5), [1] * weight.dim()
            shape[dimension] = size
            weight *= (spread * torch.randn(shape)).exp()
        if weight.dim() == 4:
            weight *= (0.7 * torch.randn(*weight.shape[:2], 1, 1)).exp()


def pruned(
    architecture: str, network: torch.nn.Module, density: float, bits: int
) -> CompressedModel:
    """A network pruned by ``lamp`` to a density and quantised, its weights not factorised."""
    weights = dense_weights(network)
    factors = plain(weights)
    k = round(density * sum(weight.numel() for weight, _ in weights.values()))
    supports = Structure().supports(factors, k)
    found = {}
    for name, own in factors.items():
        parts = []
        for tensor, mask in zip(own.tensors, supports[name].tensors, strict=True):
            part = (tensor * mask).detach()
            support = part != 0
            if support.any():
                part[support] = quantize(part[support], bits).values
            parts.append(part.contiguous())
        found[name] = Factors(own.view, *parts)
    channels = next(iter(weights.values()))[1].shape[1]
    normalization = Normalization((0.5,) * channels, (0.25,) * channels)
    others = float_state(network, found)
    return CompressedModel(architecture, 10, normalization, found, others, bits, k)


def find_k_seconds(architecture: str) -> float:
    """The CPU time in which k is found for a file of a hundredth of the dense network's bytes."""
    torch.manual_seed(0)
    network = build(architecture, 10)
    factors, structure = plain(dense_weights(network)), Structure()
    most = sum(own.carried.numel() for own in factors.values())
    blank = CompressedModel(
        architecture, 10, Normalization(), factors, float_state(network, factors), 4, most
    )
    target = Target(bits=4, max_bytes=artifact.dense_bytes(network) // 100)
    budget = Budget(target, blank, most)
    began = time.process_time()
    budget.largest(lambda k: structure.supports(factors, k), lambda k: factors)
    return time.process_time() - began


def row(model: CompressedModel) -> dict[str, Any]:
    """The bytes of a network in all forms; None where a form's package is missing."""
    content = artifact.encode(model)
    file = open_file(content)
    assert file.tensors is not None
    began = time.process_time()
    contents, bits = file.read(file.tensors)
    seconds = time.process_time() - began
    rest = sum(size for name, size in bits.items() if name not in ("positions", "codes")) / 8
    floats = sum(4 * len(own) for _, own in _matrices(contents))
    floats += sum(own.nbytes for own in contents.others)
    coded = _nncodec(contents)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    dense = save_safetensors(state)
    return {
        "nonzeros": sum(model.nonzeros()),
        "bits": model.bits,
        "dense": len(dense),
        "zstd": _zstd(dense),
        "csr": _csr(contents, model.bits),
        "format2": len(format2.encode(model)),
        "nncodec": coded and coded + floats,
        "nncodec_coder": coded and coded + round(rest),
        "bound": sum(bounds_of(model.bits, file.tensors, contents).values()),
        "bytes": len(content),
        "parts": {name: round(size / 8) for name, size in bits.items()},
        "decode_seconds": seconds,
    }


def _zstd(content: bytes) -> int | None:
    if importlib.util.find_spec("zstandard") is None:
        return None
    import zstandard

    return len(zstandard.ZstdCompressor(level=19).compress(content))


def _matrices(contents: Contents) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield each factor that is not empty, ``[rows, columns]``, and its values, in order."""
    for own in contents.factors:
        if len(own.positions):
            yield own.dense().reshape(-1, own.shape[2]), np.unique(own.values)


def _csr(contents: Contents, bits: int) -> int:
    size = sum(values.nbytes for values in contents.others)
    for matrix, book in _matrices(contents):
        sparse = scipy.sparse.csr_array(matrix)
        size += sparse.indices.nbytes + sparse.indptr.nbytes
        size += -(-sparse.nnz * bits // 8) + book.nbytes
    return size


def _nncodec(contents: Contents) -> int | None:
    if nncodec_peer.coder() is None:
        return None
    size = 0
    for matrix, book in _matrices(contents):
        negative = int((book < 0).sum())
        index = np.searchsorted(book, matrix)
        signed = np.where(matrix < 0, index - negative, index - negative + 1)
        size += nncodec_peer.coded_bytes(np.where(matrix == 0, 0, signed).astype(np.int32))
    return size


def _line(each: dict[str, Any]) -> str:
    cells = [f"{each[name]:,.0f}" if each[name] is not None else "-" for name in _COLUMNS]
    return f"{each['network']:<24}" + "".join(f"{cell:>13}" for cell in cells)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    text = io.StringIO()
    text.write(f"| network | {' | '.join(_COLUMNS)} | decoding, s |\n")
    text.write("|---|" + "---:|" * (len(_COLUMNS) + 1) + "\n")
    for each in rows:
        cells = [f"{each[name]:,.0f}" if each[name] is not None else "-" for name in _COLUMNS]
        seconds = f"{each['decode_seconds']:.2f}"
        text.write(f"| {each['network']} | {' | '.join(cells)} | {seconds} |\n")
    return text.getvalue()


if __name__ == "__main__":
    main()
