"""What is in a file: its network, its non-zeros, and the bytes of each part beside a bound."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from atmc_reader.files import File
from atmc_reader.layout import CODEBOOK_BITS, Tensors, groups_of
from atmc_reader.network import Contents, Sparse

# What the parts of a file of version 2 are called here.
_OLD_PARTS = {"remainders": "positions", "quotients": "positions"}


def inspect(content: bytes, file: File, tensors: Tensors) -> dict[str, Any]:
    """Describe a file as JSON.

    Args:
        content: the file's.
        file: what ``open_file`` made of it.
        tensors: the network's.

    Returns:
        The header's fields; the non-zeros of each weight's factors; and ``parts``, the bytes of
        each part with its ``bound``. For positions it is the entropy if all entries of a factor
        were alike, for codes the entropy of how often each comes, and for numbers their size at the
        precision that they are stored in.
    """
    contents, bits = file.read(tensors)
    sizes: dict[str, float] = {}
    for name, count in bits.items():
        part = _OLD_PARTS.get(name, name)
        sizes[part] = sizes.get(part, 0) + count / 8
    bounds = bounds_of(file.bits, tensors, contents)
    if file.version < 3:
        bounds["others"] = sum(4.0 * other.size for other in tensors.others)
    parts: dict[str, dict[str, float]] = {
        "header": {"bytes": round(len(content) - sum(sizes.values()), 1)}
    }
    for name, size in sizes.items():
        parts[name] = {"bytes": round(size, 1)}
        if name in bounds:
            parts[name]["bound"] = round(bounds[name], 1)
    return {
        "version": file.version,
        "file_bytes": len(content),
        "architecture": file.architecture,
        "num_classes": file.num_classes,
        "bits": file.bits,
        "k": file.k,
        "nonzeros": sum(len(factor.positions) for factor in contents.factors),
        "parts": parts,
        "weights": [
            {
                "name": weight.name,
                "shape": list(weight.shape),
                **dict(zip("uvc", map(_described, contents.factors[3 * index :][:3]), strict=True)),
            }
            for index, weight in enumerate(tensors.weights)
        ],
        "others": [{"name": other.name, "shape": list(other.shape)} for other in tensors.others],
        "extra": {name: value for name, value in file.extra.items() if name != "tensors"},
    }


def bounds_of(bits: int, tensors: Tensors, contents: Contents) -> dict[str, float]:
    """What each part would take at least, in bytes, if nothing were known of its surroundings.

    Args:
        bits: of a non-zero.
        tensors: the network's.
        contents: all factors and other tensors.
    """
    positions = sum(
        _entropy((len(own.positions), prod(own.shape) - len(own.positions)))
        for own in contents.factors
    )
    found: dict[str, float] = {"positions": positions / 8}
    if bits <= CODEBOOK_BITS:
        counts = [np.unique(own.values, return_counts=True)[1] for own in contents.factors]
        found["codes"] = sum(map(_entropy, counts)) / 8
        found["codebooks"] = sum(4.0 * len(each) for each in counts)
    else:
        found["values"] = sum(len(own.values) for own in contents.factors) * bits / 8
    for ending, indices in groups_of(tensors.others).items():
        found[ending] = sum(4.0 * tensors.others[index].size for index in indices)
    return found


def _described(factor: Sparse) -> dict[str, int]:
    return {"nonzeros": len(factor.positions), "values": len(np.unique(factor.values))}


def _entropy(counts: Sequence[int] | np.ndarray[Any, Any]) -> float:
    """The bits that a sequence takes whose symbols come so often, each without regard to others."""
    found = np.asarray(counts, np.float64)
    found = found[found > 0]
    return float(-(found * np.log2(found / found.sum())).sum()) if len(found) else 0.0
