"""Which data sets are read and which are refused, and how the validation split is cut."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from atmc_core.data import (
    FEWER_CLASSES,
    Reading,
    Split,
    check_against,
    hold_out,
    load_dataset,
    load_npz,
    note_missing_classes,
)
from atmc_core.data.collector import Collector
from atmc_core.errors import InvalidInput
from atmc_core.report.checks import data_checks
from atmc_spec import Threat


def _arrays(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8),
        "y_train": np.arange(40) % 4,
        "x_test": rng.integers(0, 256, (8, 6, 5, 3), dtype=np.uint8),
        "y_test": np.arange(8) % 4,
    } | changes
    return {name: array for name, array in arrays.items() if array is not None}


def _load(path: Path, seed: int = 0, **changes: Any) -> Any:
    np.savez(path / "data.npz", **_arrays(**changes))
    return load_npz(path / "data.npz", validation_fraction=0.3, seed=seed)


def test_images_come_as_channels_first_and_the_order_is_kept(tmp_path: Path) -> None:
    data = _load(tmp_path)
    assert data.test.images.shape == (8, 3, 6, 5)
    expected = torch.from_numpy(_arrays()["x_test"]).permute(0, 3, 1, 2)
    assert torch.equal(data.test.images, expected)
    images, labels = data.test.batch(slice(0, 2))
    assert images.dtype == torch.float32
    assert torch.equal(images, expected[:2].float() / 255)
    assert labels.tolist() == [0, 1]


def test_validation_is_cut_from_train_stratified_and_by_seed(tmp_path: Path) -> None:
    data = _load(tmp_path)
    assert (len(data.train), len(data.val)) == (28, 12)
    assert torch.bincount(data.val.labels).tolist() == [3, 3, 3, 3]
    again, other = _load(tmp_path), _load(tmp_path, seed=1)
    assert torch.equal(data.val.images, again.val.images)
    assert not torch.equal(data.val.images, other.val.images)
    together = torch.cat([data.train.images, data.val.images]).flatten(1)
    assert len(torch.unique(together, dim=0)) == 40


def test_a_validation_split_that_is_there_is_used(tmp_path: Path) -> None:
    data = _load(tmp_path, x_val=_arrays()["x_test"][:3], y_val=np.array([3, 2, 1]))
    assert (len(data.train), data.val.labels.tolist()) == (40, [3, 2, 1])


def test_grey_images_may_leave_out_the_channel(tmp_path: Path) -> None:
    flat = {name: _arrays()[name][..., 0] for name in ("x_train", "x_test")}
    assert _load(tmp_path, **flat).train.images.shape[1:] == (1, 6, 5)


REFUSED = {
    "a missing array": ({"y_test": None}, "bad_array", "y_test"),
    "float images": ({"x_test": np.zeros((8, 6, 5, 3))}, "bad_array", "x_test"),
    "float labels": ({"y_train": np.zeros(40)}, "bad_array", "y_train"),
    "too few labels": ({"y_test": np.arange(7)}, "bad_array", "y_test"),
    "no test images": (
        {"x_test": np.zeros((0, 6, 5, 3), np.uint8), "y_test": np.zeros(0, int)},
        "empty_split",
        "x_test",
    ),
    "objects": ({"y_test": np.array([object()] * 8)}, "malformed_dataset", None),
    "a single training image": (
        {
            "x_train": np.zeros((1, 6, 5, 3), np.uint8),
            "y_train": np.array([0]),
            "x_val": np.zeros((1, 6, 5, 3), np.uint8),
            "y_val": np.array([0]),
        },
        "empty_split",
        "x_train",
    ),
    "one image a class": (
        {"x_train": np.zeros((2, 6, 5, 3), np.uint8), "y_train": np.array([0, 1])},
        "empty_split",
        "x_train",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str, tmp_path: Path) -> None:
    changes, code, param = REFUSED[name]
    with pytest.raises(InvalidInput) as refused:
        _load(tmp_path, **changes)
    assert (refused.value.code, refused.value.param) == (code, param)


def test_refuses_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(b"no archive")
    with pytest.raises(InvalidInput) as refused:
        load_npz(tmp_path / "data.npz", validation_fraction=0.1, seed=0)
    assert refused.value.code == "malformed_dataset"


def test_images_and_labels_must_fit_the_network(tmp_path: Path) -> None:
    data = _load(tmp_path)
    check_against(data, (3, 6, 5), 4)
    with pytest.raises(InvalidInput, match="takes") as refused:
        check_against(data, (1, 8, 8), 4)
    assert refused.value.code == "image_shape_mismatch"
    with pytest.raises(InvalidInput, match="0 to 2") as refused:
        check_against(data, (3, 6, 5), 3)
    assert refused.value.code == "label_out_of_range"


def test_hold_out_leaves_single_images_in_train() -> None:
    split = Split(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1, 1, 1]))
    kept, cut = hold_out(split, 0.1, seed=0)
    assert (len(kept), cut.labels.tolist()) == (4, [1])


def test_a_train_of_one_image_is_refused_also_after_the_cuts(tmp_path: Path) -> None:
    few = {"x_train": np.zeros((2, 6, 5, 3), np.uint8), "y_train": np.zeros(2, np.int64)}
    with pytest.raises(InvalidInput, match="at least 2") as refused:
        _load(tmp_path, **few)
    assert refused.value.code == "empty_split"


@pytest.mark.filterwarnings("error")
def test_arrays_of_any_order_and_sign_are_read_without_a_warning(tmp_path: Path) -> None:
    """Neither numpy's columns-first order nor a read-only buffer leaves a trace."""
    images = _arrays()["x_train"]
    expected = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    data = _load(tmp_path, x_test=np.asfortranarray(images), y_test=np.arange(40, dtype="u1") % 4)
    assert torch.equal(data.test.images, expected)
    flat = {n: array[..., 0].copy() for n, array in _arrays().items() if n[0] == "x"}
    safetensors.numpy.save_file(_arrays() | flat, tmp_path / "data.safetensors")
    data = load_dataset(tmp_path / "data.safetensors", 0.3, seed=0)
    assert torch.equal(data.test.images[:, 0], torch.from_numpy(flat["x_test"]))


# Prints the MiB that reading holds at most, and those of the images.
_PEAK = """
import pathlib, sys
from atmc_core.data import Reading, load_dataset

def held():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) >> 10

seen = [held()]
path, folder = map(pathlib.Path, sys.argv[1:])
reading = Reading(folder=folder, told=lambda done, of: seen.append(held()))
data = load_dataset(path, 0.5, 0, reading)
images = data.train.images.nbytes + data.val.images.nbytes
print(max(*seen, held()) - seen[0], images >> 20)
"""


def test_a_large_data_set_is_on_disk_and_not_in_memory(tmp_path: Path) -> None:
    images = np.zeros((1600, 256, 256, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(1600) % 251
    np.savez_compressed(
        tmp_path / "data.npz",
        x_train=images,
        y_train=np.arange(1600) % 2,
        x_test=images[:2],
        y_test=np.arange(2),
    )
    command = [sys.executable, "-c", _PEAK, tmp_path / "data.npz", tmp_path]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    held, size = map(int, said.split())
    assert size == 100
    assert held < 40
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    """As the child finds it: a file may not grow past a limit there."""
    _load(tmp_path, x_train=np.zeros((400, 64, 64, 3), np.uint8), y_train=np.arange(400) % 4,
          x_test=np.zeros((8, 64, 64, 3), np.uint8))  # fmt: skip
    code = (
        "import pathlib, resource, sys\n"
        "from atmc_core.data import load_dataset\n"
        "from atmc_core.errors import InvalidInput\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
        "try:\n    load_dataset(pathlib.Path(sys.argv[1]), 0.3, 0)\n"
        "except InvalidInput as error:\n    print(error.code)\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "data.npz"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said == "dataset_too_large\n"


@pytest.mark.parametrize(
    ("names", "raised"),
    [((), False), (("a", "b", "c", "d"), False), (("a", "b", "c"), True)],
    ids=["no names", "as many as outputs", "fewer"],
)
def test_fewer_class_names_than_outputs_are_a_note_and_a_warning_of_the_report(
    names: tuple[str, ...], raised: bool, tmp_path: Path
) -> None:
    few = {"y_train": np.arange(40) % 3, "y_test": np.arange(8) % 3}
    data = replace(_load(tmp_path, **few), class_names=names)
    check_against(data, (3, 6, 5), 4)
    noted = note_missing_classes(data, 4)
    assert (FEWER_CLASSES in dict(noted.notes)) == raised
    checks = data_checks(noted, noted.test.images, Threat(norm="linf", epsilon=0.1))
    found = {check["code"]: check for check in checks}
    assert (FEWER_CLASSES in found) == raised
    if raised:
        assert found[FEWER_CLASSES]["status"] == "raised"
        assert "3 classes (a, b, c), the network has 4 outputs" in found[FEWER_CLASSES]["message"]


def test_more_class_names_than_outputs_are_refused_with_the_list(tmp_path: Path) -> None:
    data = replace(_load(tmp_path), class_names=("ant", "bee", "cat", "dog", "images"))
    with pytest.raises(
        InvalidInput, match=r"5 classes.*has 4.*ant, bee, cat, dog, images"
    ) as error:
        check_against(data, (3, 6, 5), 4)
    assert error.value.code == "label_out_of_range"
    with pytest.raises(InvalidInput, match="0 to 2; the data's are ant, bee, cat, dog"):
        check_against(data, (3, 6, 5), 3)


@pytest.mark.parametrize(
    ("shift", "words"),
    [(1, "subtract 1"), (-1, "leave that split out")],
)
def test_labels_that_do_not_count_from_zero_are_told_of(
    shift: int, words: str, tmp_path: Path
) -> None:
    data = _load(tmp_path, y_train=np.arange(40) % 4 + shift, y_test=np.arange(8) % 4 + shift)
    with pytest.raises(InvalidInput, match=words):
        check_against(data, (3, 6, 5), 4)


def test_images_of_another_order_are_told_of(tmp_path: Path) -> None:
    turned = {n: _arrays()[n].transpose(0, 3, 1, 2).copy() for n in ("x_train", "x_test")}
    with pytest.raises(InvalidInput, match=r"seems to be \[N, C, H, W\]"):
        check_against(_load(tmp_path, **turned), (3, 6, 5), 4)


def test_a_label_past_64_bits_is_refused(tmp_path: Path) -> None:
    collector = Collector(Reading(folder=tmp_path))
    with pytest.raises(InvalidInput, match="64 bits"):
        collector.extend("train", np.zeros((1, 3, 2, 2), np.uint8), [2**63], "rows")
