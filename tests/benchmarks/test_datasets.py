"""Data sets are read as their authors publish them, from small files of the same form."""

import gzip
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from atmc_core.errors import InvalidInput
from benchmarks.datasets import is_here, unpacked
from tests.atmc_core.data.data_files import idx, tarred

Arrays = dict[str, np.ndarray]


def _arrays(side: int, channels: int, classes: int, train: int = 12, test: int = 5) -> Arrays:
    """Noise, so that turned, mirrored or exchanged images show, and labels that cover all."""
    generator = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", train), ("test", test)):
        shape = (count, side, side, channels)
        arrays[f"x_{split}"] = generator.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"y_{split}"] = np.linspace(classes - 1, 0, count).astype(np.int64)
    return arrays


def _rows(images: np.ndarray) -> np.ndarray:
    """A row for each image, as CIFAR's: red, then green, then blue, each row by row."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def _cifar_10(arrays: Arrays) -> dict[str, bytes]:
    """Its files; train is in five batches."""
    parts = {f"data_batch_{n + 1}": ("train", slice(3 * n, 3 * n + 3)) for n in range(5)}
    parts["test_batch"] = ("test", slice(None))
    files: dict[str, dict[str, Any]] = {
        name: {
            "labels": arrays[f"y_{split}"][part].tolist(),
            "data": _rows(arrays[f"x_{split}"][part]),
        }
        for name, (split, part) in parts.items()
    }
    files["batches.meta"] = {"label_names": ["cat"] * 10}
    return {f"cifar-10-batches-py/{name}": pickle.dumps(c, 2) for name, c in files.items()}


def _cifar_100(arrays: Arrays) -> dict[str, bytes]:
    files: dict[str, dict[str, Any]] = {
        split: {
            "coarse_labels": [0] * len(arrays[f"y_{split}"]),
            "fine_labels": arrays[f"y_{split}"].tolist(),
            "data": _rows(arrays[f"x_{split}"]),
        }
        for split in ("train", "test")
    }
    files["meta"] = {"fine_label_names": ["apple"] * 100}
    return {f"cifar-100-python/{name}": pickle.dumps(c, 2) for name, c in files.items()}


def _idx_files(arrays: Arrays) -> dict[str, bytes]:
    files = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = arrays[f"x_{split}"][..., 0], arrays[f"y_{split}"].astype(np.uint8)
        files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(idx(images))
        files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(idx(labels))
    return files


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _write_svhn(folder: Path, arrays: Arrays) -> None:
    """X is ``[32, 32, 3, N]``, and the digit 0 has the label 10."""
    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        labels = arrays[f"y_{split}"].astype(np.uint8)[:, None]
        savemat(
            folder / f"{split}_32x32.mat",
            {
                "X": arrays[f"x_{split}"].transpose(1, 2, 3, 0),
                "y": np.where(labels == 0, np.uint8(10), labels),
            },
            do_compression=True,
        )


RGB_10, RGB_100 = _arrays(32, 3, 10, train=15), _arrays(32, 3, 100)
GREY = _arrays(28, 1, 10)
FORMS: dict[str, tuple[str, Arrays, Callable[[Path], None]]] = {
    "mnist/": ("mnist", GREY, lambda f: _write(f / "mnist", _idx_files(GREY))),
    "fashion_mnist/": (
        "fashion_mnist",
        GREY,
        lambda f: _write(f / "fashion_mnist", _idx_files(GREY)),
    ),
    "cifar-10-python.tar.gz": (
        "cifar10",
        RGB_10,
        lambda f: _write(f, {"cifar-10-python.tar.gz": tarred(_cifar_10(RGB_10), "gz")}),
    ),
    "cifar-10-batches-py/": ("cifar10", RGB_10, lambda f: _write(f, _cifar_10(RGB_10))),
    "cifar-100-python.tar.gz": (
        "cifar100",
        RGB_100,
        lambda f: _write(f, {"cifar-100-python.tar.gz": tarred(_cifar_100(RGB_100), "gz")}),
    ),
    "cifar-100-python/": ("cifar100", RGB_100, lambda f: _write(f, _cifar_100(RGB_100))),
    "train_32x32.mat": ("svhn", RGB_10, lambda f: _write_svhn(f, RGB_10)),
    "svhn/train_32x32.mat": ("svhn", RGB_10, lambda f: _write_svhn(f / "svhn", RGB_10)),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder, still empty; what is unpacked is kept in another."""
    for name in ("data", "kept"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("ATMC_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "kept"))
    return tmp_path / "data"


@pytest.mark.parametrize("form", FORMS)
def test_a_set_is_read_with_images_upright_in_order_and_labels_from_0(
    form: str, folder: Path
) -> None:
    name, arrays, write = FORMS[form]
    write(folder)
    assert is_here(name)
    with np.load(unpacked(name)) as found:
        assert set(found) == set(arrays)
        for key, expected in arrays.items():
            assert found[key].dtype == expected.dtype
            assert np.array_equal(found[key], expected), key


def test_what_is_unpacked_is_kept(folder: Path) -> None:
    _write_svhn(folder, RGB_10)
    kept = unpacked("svhn")
    written = kept.stat().st_mtime_ns
    assert unpacked("svhn") == kept
    assert kept.stat().st_mtime_ns == written
    assert [path.name for path in kept.parent.iterdir()] == ["svhn.npz"]


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("mnist", "mnist/ with train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k"),
        ("cifar10", "cifar-10-python.tar.gz, or cifar-10-batches-py/"),
        ("cifar100", "cifar-100-python.tar.gz, or cifar-100-python/"),
        ("svhn", "train_32x32.mat and test_32x32.mat, or svhn/ with them"),
    ],
)
def test_a_set_that_is_not_here_is_skipped_and_its_files_are_named(
    name: str, needed: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        unpacked(name)
    assert ended.value.code == 0
    said = f"skipped: {name} is not here; {folder} needs {needed}"
    assert capsys.readouterr().err.startswith(said)


class _Runs:
    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("member", ["train", "test", "meta"])
def test_a_pickle_that_would_run_is_refused_and_not_run(
    packed: bool, member: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    files = _cifar_100(RGB_100) | {f"cifar-100-python/{member}": pickle.dumps(_Runs())}
    _write(folder, {"cifar-100-python.tar.gz": tarred(files, "gz")} if packed else files)
    with pytest.raises(InvalidInput, match="nothing was run") as refused:
        unpacked("cifar100")
    assert refused.value.param == ("cifar-100-python/" if packed else "") + member
    assert {path.name for path in folder.parent.iterdir()} == {"data", "kept"}
    pickle.loads(pickle.dumps(_Runs()))
    assert (folder.parent / "ran").is_dir()


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[:2000],
    "another file": lambda content: b"\x89HDF\r\n\x1a\n" + bytes(600),
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_of_svhn_is_named(case: str, folder: Path) -> None:
    _write_svhn(folder, RGB_10)
    path = folder / "test_32x32.mat"
    path.write_bytes(BROKEN[case](path.read_bytes()))
    with pytest.raises(InvalidInput, match=r"'test_32x32\.mat' is not a file of SVHN"):
        unpacked("svhn")


@pytest.mark.skipif(not is_here("fashion_mnist"), reason="install Debian's dataset-fashion-mnist")
def test_fashion_mnist_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean pixel is the one that its users normalise by, 0.2860."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with np.load(unpacked("fashion_mnist")) as arrays:
        assert arrays["x_train"].shape == (60_000, 28, 28, 1)
        assert arrays["x_train"].mean() / 255 == pytest.approx(0.2860, abs=5e-5)
        assert arrays["y_train"][:5].tolist() == [9, 0, 0, 3, 0]
        for split, count in (("train", 6_000), ("test", 1_000)):
            assert np.bincount(arrays[f"y_{split}"]).tolist() == 10 * [count]
