"""A file of version 3 holds exactly what was written, and nothing else is taken for one."""

import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from atmc_core import artifact
from atmc_core.artifact import CompressedModel, float_state
from atmc_core.artifact.catalogue import catalogue
from atmc_core.factors.factors import Factors
from atmc_core.factors.views import compressible_weights
from atmc_core.networks.classifier import Normalization
from atmc_reader import files, layout, open_file
from atmc_reader.coder import Reader, Weigh, Writer, code_integers, code_symbols, rarely, smoothly
from atmc_reader.composition import state_dict
from atmc_reader.values import Kind, code_floats, kind_of
from benchmarks import format2
from benchmarks.proof import kept

KEPT = [path for path in kept().values() if path.suffix == ".atmc"]
# Where a file's header begins, behind magic, version and checksum.
BODY = 9


class _Layers(nn.Module):
    """Layers that are never called: only their weights matter."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


@st.composite
def _networks(draw: st.DrawFn) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            groups = draw(st.sampled_from([1, 1, 2, 3]))
            kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
            into, out = groups * draw(st.integers(1, 4)), groups * draw(st.integers(1, 9))
            layers.append(nn.Conv2d(into, out, kernel, groups=groups, bias=draw(st.booleans())))
        else:
            layers.append(nn.Linear(draw(st.integers(1, 60)), draw(st.integers(1, 60))))
        if draw(st.booleans()):
            layers.append(nn.BatchNorm2d(3))
    return _Layers(layers)


def _filled(network: nn.Module, bits: int, density: float, seed: int) -> CompressedModel:
    """A model of random factors with at most 2^bits values each, some rows and columns empty."""
    random = np.random.default_rng(seed)
    views = compressible_weights(network)
    factors = {}
    for name, view in views.items():
        parts = []
        for shape in view.factor_shapes:
            book = random.normal(size=2 ** min(bits, 8)).astype(np.float32)
            part = random.choice(book, size=shape)
            part *= random.random(shape) < density
            part *= random.random((shape[0], shape[1], 1)) < 0.8
            part *= random.random((1, 1, shape[2])) < 0.8
            if bits == 16:
                part = part.astype(np.float16).astype(np.float32)
            if bits == 32:
                part *= random.normal(size=shape).astype(np.float32)
            parts.append(torch.from_numpy(part + 0.0))
        factors[name] = Factors(view, *parts)
    others = float_state(network, views)
    return CompressedModel(
        "own", 0, Normalization(), factors, others, bits, k=123_456, module=network
    )


def _assert_same(first: CompressedModel, second: CompressedModel) -> None:
    """Bit for bit."""
    for name, own in first.factors.items():
        for before, after in zip(own.tensors, second.factors[name].tensors, strict=True):
            assert torch.equal(before, after), name
    for name, tensor in first.others.items():
        assert torch.equal(tensor.view(torch.int32), second.others[name].view(torch.int32)), name
    assert list(first.others) == list(second.others)


@settings(max_examples=40, deadline=None)
@given(
    _networks(),
    st.sampled_from([1, 2, 3, 4, 8, 16, 32]),
    st.sampled_from([0.0, 0.001, 0.02, 0.3, 0.9, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_every_dtype_shape_and_density_comes_back(
    network: nn.Module, bits: int, density: float, seed: int
) -> None:
    model = _filled(network, bits, density, seed)
    content = artifact.encode(model)
    assert content == artifact.encode(model)
    _assert_same(model, artifact.decode(content, network))
    old = format2.encode(model)
    _assert_same(model, artifact.decode(old, network))
    older = old.replace(b'\\"version\\":2', b'\\"version\\":1')
    _assert_same(model, artifact.decode(older, network))


_FLOATS = [0.0, -0.0, 1.0, -1.5, 1e-45, 3e38, np.inf, np.nan, 65504.0, 6e-8, 0.1]


@given(st.lists(st.sampled_from(_FLOATS), max_size=40), st.integers(0, 40))
def test_floats_come_back_bit_for_bit(numbers: list[float], cut: int) -> None:
    values = np.array(numbers, np.float32)
    sizes = [min(cut, len(values)), len(values) - min(cut, len(values))]
    kind = kind_of(values, sizes)
    writer = Writer()
    code_floats(writer, kind, sizes, values)
    found = code_floats(Reader(writer.content()), kind, sizes, None)
    assert found.view(np.uint32).tolist() == values.view(np.uint32).tolist()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.5, -0.25, 63 / 128], Kind.GRID),
        ([0.0, 0.0], Kind.GRID),
        ([1.0, 0.0009765625], Kind.FLOAT16),
        ([-0.0], Kind.FLOAT16),
        ([0.1], Kind.FLOAT32),
        ([1e38], Kind.FLOAT32),
        ([127 * 2.0**-149, 2.0**-149], Kind.GRID),
    ],
)
def test_numbers_are_stored_as_small_as_they_are(values: list[float], kind: Kind) -> None:
    assert kind_of(np.array(values, np.float32), [len(values)]) is kind


@given(
    st.lists(st.integers(0, 2**32 - 1)),
    st.integers(2, 300),
    st.sampled_from([rarely, smoothly]),
    st.data(),
)
def test_integers_and_symbols_come_back(
    integers: list[int], alphabet: int, weigh: Weigh, data: st.DataObject
) -> None:
    symbols = data.draw(st.lists(st.integers(0, alphabet - 1)))
    writer = Writer()
    code_integers(writer, 32, len(integers), np.array(integers, np.int64))
    code_symbols(writer, alphabet, weigh, len(symbols), np.array(symbols, np.int64))
    reader = Reader(writer.content())
    assert code_integers(reader, 32, len(integers), None).tolist() == integers
    assert code_symbols(reader, alphabet, weigh, len(symbols), None).tolist() == symbols
    reader.finish()


@pytest.fixture(scope="module")
def content() -> bytes:
    network = _Layers([nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20), nn.Linear(80, 40)])
    return artifact.encode(_filled(network, 4, 0.1, 0))


def test_cut_and_altered_files_are_refused_before_an_array_is_built(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object) -> None:
        raise AssertionError("an array is built")

    monkeypatch.setattr(files, "code_network", build)
    for end in range(0, len(content), 7):
        with pytest.raises(ValueError, match=r"begin|checksum|header|JSON|version"):
            open_file(content[:end])
    for place in range(len(content)):
        altered = bytearray(content)
        altered[place] ^= 1 << place % 8
        with pytest.raises((ValueError, KeyError)):
            open_file(bytes(altered))


def test_forged_files_neither_crash_nor_take_more_memory_than_they_say(content: bytes) -> None:
    """The checksum is made to fit, so that everything behind it is reached."""
    random = np.random.default_rng(0)
    outcomes = set()
    for _ in range(120):
        body = bytearray(content[BODY:])
        for place in random.integers(len(body), size=random.integers(1, 4)):
            body[place] = random.integers(256)
        forged = content[:5] + zlib.crc32(body).to_bytes(4, "little") + bytes(body)
        try:
            file = open_file(forged)
        except (ValueError, KeyError, IndexError, TypeError):
            outcomes.add("refused")
            continue
        assert file.tensors is not None
        entries = sum(
            np.prod(shape) for weight in file.tensors.weights for shape in weight.factor_shapes
        ) + sum(other.size for other in file.tensors.others)
        if entries > 10**6:
            continue  # it says so much that it may take as much
        tracemalloc.start()
        try:
            state_dict(file.tensors, file.read(file.tensors)[0])
            outcomes.add("read")
        except ValueError:
            outcomes.add("contradicts itself")
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 100 * entries + 2**20
    assert outcomes == {"refused", "read", "contradicts itself"}


def test_a_text_that_inflates_without_end_is_refused() -> None:
    text = zlib.compress(b"[" * (layout.MOST_TEXT + 1), 9)
    length = bytes([len(text) & 127 | 128, len(text) >> 7 & 127 | 128, len(text) >> 14])
    body = b"\x05lenet\x0a\x04\x01" + length + text
    forged = b"ATMC\x03" + zlib.crc32(body).to_bytes(4, "little") + body
    with pytest.raises(ValueError, match="longer than"):
        open_file(forged)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_kept_networks_are_a_tenth_smaller_than_in_version_2(path: Path) -> None:
    model = artifact.load(path)
    content, old = artifact.encode(model), format2.encode(model)
    assert len(content) <= 0.9 * len(old)
    _assert_same(model, artifact.decode(content))
    _assert_same(model, artifact.decode(old))


def test_the_reader_knows_the_architectures() -> None:
    """If it fails, run ``python -m atmc_core.artifact.catalogue``."""
    known = Path(layout.__file__).with_name("architectures.json").read_text()
    assert known == catalogue()


def test_a_file_is_read_without_torch(tmp_path: Path) -> None:
    model = artifact.load(KEPT[0])
    artifact.save(model, tmp_path / "model.atmc")
    script = (
        "import runpy, sys; sys.modules.update(torch=None, safetensors=None, pydantic=None);"
        "sys.argv[0] = 'atmc_reader'; runpy.run_module('atmc_reader', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "model.atmc", "--output", "weights.npz"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(layout.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "lenet, 10 classes" in done.stdout
    with np.load(tmp_path / "weights.npz") as weights:
        assert set(weights) == set(model.state_dict())
        for name, tensor in model.state_dict().items():
            np.testing.assert_allclose(weights[name], tensor, rtol=1e-6, atol=1e-7)
