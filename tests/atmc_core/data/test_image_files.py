"""Which data sets of encoded images are read, and how hostile files are refused."""

import gzip
import io
import json
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pytest
import safetensors.numpy
import torch
from PIL import Image
from pyarrow import parquet

from atmc_core.data import Reading, load_dataset
from atmc_core.errors import InvalidInput

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (24, 6, 5, 3), dtype=np.uint8)


def _encoded(pixels: np.ndarray, form: str = "PNG", mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, form)
    return buffer.getvalue()


def _zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def _folders(prefix: str = "") -> dict[str, bytes]:
    return {f"{prefix}{('cat', 'ant')[i % 2]}/{i:02}.png": _encoded(PIXELS[i]) for i in range(24)}


def test_class_folders_are_split_stratified_and_it_is_said(tmp_path: Path) -> None:
    data = load_dataset(_zip(tmp_path / "d", _folders()), 0.2, seed=3)
    assert data.class_names == ("ant", "cat")
    assert [len(split) for split in (data.train, data.val, data.test)] == [16, 4, 4]
    assert data.test.labels.bincount().tolist() == [2, 2]
    assert [code for code, _ in data.notes] == ["test_split_cut", "validation_split_cut"]
    assert "seed 3" in data.notes[0][1]
    again = load_dataset(_zip(tmp_path / "d", _folders()), 0.2, seed=3)
    assert torch.equal(data.test.images, again.test.images)


def test_folders_of_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    members = _folders("set/train/") | _folders("set/test/") | {"__MACOSX/._x": b"litter"}
    data = load_dataset(_zip(tmp_path / "d", members), 0.2, seed=0)
    assert len(data.test) == 24
    expected = torch.from_numpy(PIXELS[1::2]).permute(0, 3, 1, 2)
    assert torch.equal(data.test.images[:12], expected)


def test_idx_files_are_read_gzipped_or_not(tmp_path: Path) -> None:
    def idx(array: np.ndarray) -> bytes:
        sizes = struct.pack(f">{array.ndim}I", *array.shape)
        return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()

    images, labels = PIXELS[..., 0], (np.arange(24) % 3).astype(np.uint8)
    members = {
        "train-images-idx3-ubyte.gz": gzip.compress(idx(images)),
        "train-labels-idx1-ubyte": idx(labels),
        "t10k-images-idx3-ubyte": idx(images[:6]),
        "t10k-labels-idx1-ubyte.gz": gzip.compress(idx(labels[:6])),
    }
    data = load_dataset(_zip(tmp_path / "d", members), 0.25, seed=0, reading=Reading(1))
    assert torch.equal(data.test.images[:, 0], torch.from_numpy(images[:6]))
    assert len(data.train) + len(data.val) == 24


def test_an_idx_file_inflates_to_what_its_header_says_and_no_further(tmp_path: Path) -> None:
    labels = bytes([0, 0, 8, 1]) + struct.pack(">I", 24) + bytes(24)
    bomb = gzip.compress(labels + bytes(300 * 2**20), 1)
    path = _zip(tmp_path / "d", {"train-labels-idx1-ubyte.gz": bomb})
    tracemalloc.start()
    with pytest.raises(InvalidInput, match="does not have the 24 values") as refused:
        load_dataset(path, 0.2, seed=0)
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()
    assert refused.value.param == "train-labels-idx1-ubyte.gz"
    claim = bytes([0, 0, 8, 3]) + struct.pack(">III", 2**31, 2**31, 2**31)
    with pytest.raises(InvalidInput, match="claims"):
        load_dataset(_zip(tmp_path / "d", {"train-images-idx3-ubyte": claim}), 0.2, seed=0)


def test_safetensors_are_read_as_arrays(tmp_path: Path) -> None:
    arrays = {"x_train": PIXELS, "y_train": np.arange(24) % 2}
    safetensors.numpy.save_file(arrays, tmp_path / "d")
    assert load_dataset(tmp_path / "d", 0.2, seed=0).train.images.shape[1:] == (3, 6, 5)


def test_parquet_in_the_hubs_layout_is_read_with_its_class_names(tmp_path: Path) -> None:
    images = [{"bytes": _encoded(p), "path": None} for p in PIXELS]
    table = arrow.table({"image": images, "label": [i % 2 for i in range(24)]})
    info = {"info": {"features": {"label": {"names": ["ant", "cat"], "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    parquet.write_table(table, tmp_path / "d")
    data = load_dataset(tmp_path / "d", 0.2, seed=0)
    assert data.class_names == ("ant", "cat")
    assert len(data.train) + len(data.val) + len(data.test) == 24


def _header_png(side: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))


def _animated() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.fromarray(pixels) for pixels in PIXELS[:3]]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


REFUSED = {
    "an enormous header": ("cat/99.png", _header_png(100_000), "bad_image"),
    "a truncated stream": ("cat/99.png", _encoded(PIXELS[0])[:60], "bad_image"),
    "an animation": ("cat/99.png", _animated(), "bad_image"),
    "another format": ("cat/99.png", _encoded(PIXELS[0], "BMP"), "bad_image"),
    "another size": ("cat/99.png", _encoded(PIXELS[0][:3]), "image_shape_mismatch"),
    "a path out of the archive": ("../cat/99.png", _encoded(PIXELS[0]), "malformed_dataset"),
    "a file that is no image": ("cat/run.sh", b"rm", "malformed_dataset"),
    "a bomb": ("cat/99.png", b"\0" * (65 * 2**20), "malformed_dataset"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_images_are_refused_by_name(name: str, tmp_path: Path) -> None:
    member, content, code = REFUSED[name]
    with pytest.raises(InvalidInput) as refused:
        load_dataset(_zip(tmp_path / "d", _folders() | {member: content}), 0.2, seed=0)
    assert (refused.value.code, refused.value.param) == (code, member)


def test_symbolic_links_are_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "d", _folders())
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("cat/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InvalidInput, match="symbolic link"):
        load_dataset(path, 0.2, seed=0)


def test_sixteen_bits_cmyk_and_grey_become_what_the_network_takes(tmp_path: Path) -> None:
    grey = (np.arange(30, dtype=np.uint16).reshape(6, 5) * 2000).astype(np.uint16)
    members = _folders() | {
        "cat/97.png": _encoded(grey),
        "cat/98.jpg": _encoded(PIXELS[0], "JPEG", "CMYK"),
        "cat/99.png": _encoded(PIXELS[0], "PNG", "RGBA"),
    }
    for channels in (1, 3):
        data = load_dataset(_zip(tmp_path / "d", members), 0.2, seed=0, reading=Reading(channels))
        assert data.train.images.shape[1:] == (channels, 6, 5)


def test_mutated_archives_are_refused_or_read_and_nothing_else(tmp_path: Path) -> None:
    good = _zip(tmp_path / "good", _folders()).read_bytes()
    refusals = 0
    for _ in range(150):
        content = bytearray(good)
        for place in RNG.integers(0, len(content), RNG.integers(1, 20)):
            content[place] = RNG.integers(0, 256)
        (tmp_path / "d").write_bytes(bytes(content[: RNG.integers(9, len(content) + 1)]))
        try:
            load_dataset(tmp_path / "d", 0.2, seed=0)
        except InvalidInput:
            refusals += 1
    assert refusals > 50
