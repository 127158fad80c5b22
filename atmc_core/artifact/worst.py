"""Values that take the most room in a file, to measure supports whose values are not known yet."""

import torch

from atmc_core.factors.factors import Factors, NamedFactors
from atmc_core.solver.projection import quantize
from atmc_core.solver.rounding import rounded, to_half
from atmc_spec.names import FLOAT_BITS, MAX_CODEBOOK_BITS, SmallTensorBits

# How often codes come is found by a sample of so many values, quantised to so many bits, of factors
# with at least this share of all non-zeros; and this share of them is taken to be alike.
_SAMPLE, _COARSE_BITS, _LARGE, _ALIKE = 1000, 4, 0.02, 0.1
# The values that take the most room are spread over so many powers of two: those of a codebook or
# of float16, and float32.
_OCTAVES, _FLOAT_OCTAVES = 8, 24

#: How often each code of a factor comes, in proportion, ``[2^bits]``, by weight and role.
Shares = dict[tuple[str, int], torch.Tensor]


@torch.no_grad()
def code_shares(supports: NamedFactors, values: NamedFactors, bits: int) -> Shares:
    """How often each code of the larger factors comes, as the values are now.

    A sample is quantised to a few bits; further bits are taken to be as likely as not.

    Args:
        supports: only where their non-zeros are matters.
        values: the factors' values.
        bits: of a code.
    """
    coarse = min(bits, _COARSE_BITS)
    total = sum(int(t.count_nonzero()) for own in supports.values() for t in own.tensors)
    shares: Shares = {}
    for name, own in supports.items():
        tensors = values[name].whole().tensors
        for role, (mask, tensor) in enumerate(zip(own.tensors, tensors, strict=True)):
            found = tensor[mask != 0]
            if len(found) < max(_LARGE * total, 2**coarse):
                continue
            sample = found[:: -(-len(found) // _SAMPLE)].float().cpu().contiguous()
            quantised = quantize(sample, coarse).values
            _, counts = torch.unique(quantised[quantised != 0], return_counts=True)
            each = torch.full((2**coarse,), _ALIKE * len(sample) / 2**coarse)
            each[: len(counts)] += (1 - _ALIKE) * counts
            shares[name, role] = each.repeat_interleave(2 ** (bits - coarse))
    return shares


@torch.no_grad()
def worst_values(
    factors: NamedFactors, bits: int, small_tensor_bits: SmallTensorBits, shares: Shares
) -> NamedFactors:
    """Factors with the same supports and values that take the most room.

    There are as many distinct ones as the bits allow, each is as likely as any other, or as
    ``shares`` say, and they are spread at random over more powers of two than real ones.
    """
    generator = torch.Generator().manual_seed(0)
    is_coded = bits <= MAX_CODEBOOK_BITS
    octaves = _FLOAT_OCTAVES if bits == FLOAT_BITS else _OCTAVES

    def assigned(tensor: torch.Tensor, share: torch.Tensor | None) -> torch.Tensor:
        support, found = tensor != 0, torch.zeros_like(tensor, dtype=torch.float32)
        count = int(support.sum())
        if not count:
            return found
        values = _drawn(2**bits if is_coded else count, octaves, generator)
        if is_coded:
            if small_tensor_bits < FLOAT_BITS:
                values = to_half(values)
            share = torch.ones(2**bits) if share is None else share
            codes = torch.multinomial(share, count, replacement=True, generator=generator)
            codes[: 2**bits] = torch.arange(min(2**bits, count))
            values = values.sort().values[codes]
        found[support] = values.to(tensor.device)
        return found

    return {
        name: Factors(
            own.view,
            *(
                assigned(tensor, shares.get((name, role)))
                for role, tensor in enumerate(own.tensors)
            ),
        )
        for name, own in factors.items()
    }


def worst_others(others: dict[str, torch.Tensor], bits: SmallTensorBits) -> dict[str, torch.Tensor]:
    """Other tensors of the same shapes, which training may yet fill with any values."""
    generator = torch.Generator().manual_seed(1)
    octaves = _FLOAT_OCTAVES if bits == FLOAT_BITS else _OCTAVES
    return {
        name: rounded(name, _drawn(t.numel(), octaves, generator).view(t.shape), bits)
        for name, t in others.items()
    }


def _drawn(count: int, octaves: int, generator: torch.Generator) -> torch.Tensor:
    spread = torch.rand(count, generator=generator).mul(-octaves).exp2()
    return torch.where(torch.rand(count, generator=generator) < 0.5, spread, -spread)
