"""An artifact round-trips exactly, is as small as claimed, and is refused when damaged."""

import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atmc_core import artifact
from atmc_core.artifact import CompressedModel, float_state
from atmc_core.errors import InvalidInput
from atmc_core.factors.factors import Factors
from atmc_core.factors.views import compressible_weights
from atmc_core.networks.architectures import build
from atmc_core.networks.classifier import Normalization
from atmc_core.solver.projection import quantize
from atmc_core.solver.rounding import rounded
from atmc_reader import bitpacking
from atmc_spec.names import SmallTensorBits
from benchmarks import format2


def _model(architecture: str = "lenet", density: float = 0.01, bits: int = 8) -> CompressedModel:
    """A network of random sparse factors that meet the codebook constraint."""
    network = build(architecture, 10)
    views = compressible_weights(network)
    factors = {}
    for name, view in views.items():
        parts = []
        for shape in view.factor_shapes:
            part = torch.randn(shape) * (torch.rand(shape) < density)
            if bits <= 8:
                part = quantize(part, bits).values
            parts.append(part.half().float() if bits == 16 else part)
        factors[name] = Factors(view, *parts)
    return CompressedModel(
        architecture=architecture,
        num_classes=10,
        normalization=Normalization((0.5,), (0.25,)),
        factors=factors,
        others=float_state(network, views),
        bits=bits,
        k=10**6,
    )


@pytest.mark.parametrize("bits", [1, 3, 4, 8, 16, 32])
def test_round_trip_is_exact(bits: int, tmp_path: Path) -> None:
    model = _model(bits=bits)
    size = artifact.save(model, tmp_path / "model.atmc")
    assert size == (tmp_path / "model.atmc").stat().st_size
    loaded = artifact.load(tmp_path / "model.atmc")
    for name, factors in model.factors.items():
        for before, after in zip(factors.tensors, loaded.factors[name].tensors, strict=True):
            assert torch.equal(before, after)
    for name, tensor in model.others.items():
        assert torch.equal(tensor, loaded.others[name])
    assert (loaded.bits, loaded.k, loaded.normalization) == (bits, model.k, model.normalization)
    images = torch.rand(4, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(model.classifier()(images), loaded.classifier()(images))


def test_batch_norms_survive() -> None:
    model = _model("mobilenet_v2", density=0.001, bits=4)
    for tensor in model.others.values():
        tensor.copy_(torch.rand(tensor.shape))
    loaded = artifact.decode(artifact.encode(model))
    assert model.others.keys() == loaded.others.keys()
    for name, tensor in model.others.items():
        assert torch.equal(loaded.others[name], tensor), name
    assert any("running_var" in name for name in loaded.others)


@pytest.mark.parametrize(("bits", "gain"), [(32, 1 / 4), (16, 1 / 4), (8, 0.0)])
def test_a_file_holds_two_vectors_of_a_batch_norm(bits: SmallTensorBits, gain: float) -> None:
    torch.manual_seed(0)
    network = build("mobilenet_v2", 10).eval()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.copy_(torch.rand(tensor.shape) + ("var" in name or "weight" in name))
    views = compressible_weights(network)
    model = _model("mobilenet_v2", density=0.0)
    model = replace(model, others=float_state(network, views, bits))
    plain = {
        name: rounded(name, tensor, bits)
        for name, tensor in network.state_dict().items()
        if name in model.others
    }
    before = len(artifact.encode(replace(model, others=plain)))
    assert len(artifact.encode(model)) <= (1 - gain) * before
    other = copy.deepcopy(network)
    other.load_state_dict(model.others, strict=False)
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        wanted, found = network(images), other(images)
    tolerance = {32: 1e-5, 16: 0.01, 8: 0.3}[bits]
    assert (found - wanted).abs().max() <= tolerance * wanted.abs().max()


def test_the_same_model_gives_the_same_bytes() -> None:
    torch.manual_seed(1)
    first = artifact.encode(_model())
    torch.manual_seed(1)
    assert artifact.encode(_model()) == first


def test_empty_factors_and_single_values() -> None:
    model = _model(density=0.0)
    factors = next(iter(model.factors.values()))
    factors.c.view(-1)[[0, 7, -1]] = 0.5
    loaded = artifact.decode(artifact.encode(model))
    assert sum(loaded.nonzeros()) == 3
    assert torch.equal(next(iter(loaded.factors.values())).c, factors.c)


def test_the_file_is_near_the_entropy_of_what_it_holds() -> None:
    density, bits = 0.01, 8
    model = _model(density=density, bits=bits)
    tensors = [tensor for factors in model.factors.values() for tensor in factors.tensors]
    size = len(artifact.encode(model))
    entropy = -(density * math.log2(density) + (1 - density) * math.log2(1 - density))
    positions = sum(tensor.numel() for tensor in tensors) * entropy
    codes = bits * sum(model.nonzeros())
    books = 32 * sum(sum(counts) for counts in model.distinct_values().values())
    others = 32 * sum(tensor.numel() for tensor in model.others.values())
    limit = (positions + codes + books + others) / 8
    # Of these positions and codes nothing is to be known, so they take what they must; floats take
    # less than 32 bits, since exponents are alike and codebooks are in order.
    floats = (books + others) / 8
    assert limit - 0.35 * floats < size < limit


def test_nominal_ratio_is_the_papers() -> None:
    model = _model(bits=4)
    distinct = sum(sum(counts) for counts in model.distinct_values().values())
    expected = (4 * sum(model.nonzeros()) + 32 * distinct) / (32 * 430_500)
    assert model.nominal_ratio() == pytest.approx(expected)


def test_damaged_files_are_refused() -> None:
    content = artifact.encode(_model())
    for damaged in (
        b"",
        content[:5],
        content[:-7],
        b"PK" + content,
        content.replace(b"lenet", b"lenat"),
    ):
        with pytest.raises(InvalidInput) as refused:
            artifact.decode(damaged)
        assert refused.value.code == "malformed_artifact"


def test_a_newer_format_says_so() -> None:
    content = artifact.encode(_model())
    with pytest.raises(InvalidInput, match="format version 9"):
        artifact.decode(content[:4] + bytes([9]) + content[5:])
    old = format2.encode(_model()).replace(b'\\"version\\":2', b'\\"version\\":9')
    with pytest.raises(InvalidInput, match="format version 9"):
        artifact.decode(old)


def test_what_a_header_of_version_2_announces_is_checked() -> None:
    content = format2.encode(_model(density=0.001))
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    described = json.loads(header["__metadata__"]["atmc"])
    described["factors"][0][0] += 10_000
    header["__metadata__"]["atmc"] = json.dumps(described)
    forged = json.dumps(header).encode()
    with pytest.raises(InvalidInput, match="announced"):
        artifact.decode(len(forged).to_bytes(8, "little") + forged + content[8 + length :])


@given(st.lists(st.integers(0, 2**16), max_size=50))
def test_rice_coded_gaps_round_trip(values: list[int]) -> None:
    gaps = np.array(values, np.int64)
    low = bitpacking.rice_parameter(gaps)
    quotients = bitpacking.from_unary(bitpacking.unary(gaps >> low))
    remainders = gaps * 0
    if low:
        remainders = bitpacking.unpack(bitpacking.pack(gaps & ((1 << low) - 1), low), low)
    assert ((quotients << low) + remainders).tolist() == values


@given(st.integers(1, 16), st.data())
def test_packed_integers_round_trip(width: int, data: st.DataObject) -> None:
    values = np.array(data.draw(st.lists(st.integers(0, 2**width - 1))), np.int64)
    assert bitpacking.unpack(bitpacking.pack(values, width), width).tolist() == values.tolist()
