"""What biases and codebooks of fewer bits bring and cost, without training on them.

    python -m benchmarks.small_tensors [NAME ...] [--images 1000] [--output FOLDER]

Each kept network (``benchmarks/results/networks``) is written with its small tensors rounded as
``target.small_tensor_bits`` of 16 and of 8 round them, and read again. Its decisions on the first
test images are compared with those of the network as it is kept. What rounding costs against
attacks, ``python -m benchmarks.proof`` measures on the files that ``--output`` keeps. In a job the
end game trains on what the rounded values make of the network, which can only be better.

Prints one JSON line of rows: the network, the bits, its bytes, and how many decisions changed.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from atmc_core import artifact
from atmc_core.artifact import CompressedModel
from atmc_core.artifact.ordering import ordered
from atmc_core.factors.factors import Factors
from atmc_core.solver.rounding import rounded, to_half
from atmc_spec.names import SmallTensorBits
from benchmarks.accuracy import first_images
from benchmarks.datasets import unpacked
from benchmarks.options import count
from benchmarks.proof import kept, kind_of
from benchmarks.timing import print_result, say


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = {name: path for name, path in kept().items() if path.suffix == ".atmc"}
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all there are")
    parser.add_argument("--images", type=count, default=1000)
    parser.add_argument("--output", type=Path, help="a folder for the files")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    rows = []
    for name in arguments.names or known:
        model = artifact.load(known[name])
        images = first_images(unpacked(kind_of(known[name]).dataset), arguments.images).images
        before = decisions(model, images)
        for bits in sorted(get_args(SmallTensorBits), reverse=True):
            content = artifact.encode(with_small_tensors(model, bits))
            if arguments.output is not None:
                arguments.output.mkdir(parents=True, exist_ok=True)
                (arguments.output / f"{name}-{bits}.atmc").write_bytes(content)
            after = decisions(artifact.decode(content), images)
            changed = int((before != after).sum())
            rows.append({"network": name, "small_tensor_bits": bits, "bytes": len(content)})
            rows[-1]["changed"] = changed
            say(f"{name}, {bits} bits: {len(content):,} bytes, {changed} of {len(after)} changed")
    print_result({"rows": rows})


def with_small_tensors(model: CompressedModel, bits: SmallTensorBits) -> CompressedModel:
    """The model with biases, norms and codebooks rounded to these bits, in a job's order."""
    if bits == 32:
        return model
    factors = {
        name: Factors(own.view, *(to_half(tensor) for tensor in own.tensors))
        for name, own in model.factors.items()
    }
    others = {name: rounded(name, tensor, bits) for name, tensor in model.others.items()}
    return ordered(replace(model, factors=factors, others=others))


@torch.no_grad()
def decisions(model: CompressedModel, images: Tensor) -> Tensor:
    """The class of each image, ``[N]``."""
    logits: Tensor = model.classifier()(images.float() / 255)
    return logits.argmax(1)


if __name__ == "__main__":
    main()
