"""The training feed gives the same batches from memory and from a memory map, and augments them."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from atmc_core.data import Augmentation, Split, feed, training_batches
from atmc_core.errors import InvalidInput

BOTH = Augmentation(flip=True, shift=2)


def _split(count: int = 23) -> Split:
    """Images of random pixels, none black; the label says which."""
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (count, 3, 6, 5), dtype=np.uint8)
    return Split(torch.from_numpy(images), torch.arange(count))


def _mapped(split: Split, path: Path) -> Split:
    np.save(path, split.images.numpy())
    images = torch.from_numpy(np.load(path, mmap_mode="r+"))
    return Split(images, split.labels, mapped=True)


def _epoch(split: Split, augmentation: Augmentation, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return list(training_batches(split, 5, generator, augmentation))


def test_an_epoch_sees_every_image_once_and_leaves_out_a_single_one() -> None:
    batches = _epoch(_split(23), Augmentation())
    assert [len(labels) for _, labels in batches] == [5, 5, 5, 5, 3]
    assert torch.cat([y for _, y in batches]).sort().values.tolist() == list(range(23))
    assert [len(labels) for _, labels in _epoch(_split(21), Augmentation())] == [5, 5, 5, 5]


@pytest.mark.parametrize("part_bytes", [1, 1000, 2**20])
@pytest.mark.parametrize("augmentation", [Augmentation(), BOTH])
def test_a_memory_map_gives_the_batches_that_memory_gives(
    augmentation: Augmentation, part_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_PART_BYTES", part_bytes)
    split = _split(68)
    streamed = _epoch(_mapped(split, tmp_path / "images.npy"), augmentation)
    for (images, labels), (expected, expected_labels) in zip(
        streamed, _epoch(split, augmentation), strict=True
    ):
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


def test_a_stream_that_is_left_early_ends_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_PART_BYTES", 1)
    batches = training_batches(
        _mapped(_split(), tmp_path / "images.npy"), 5, torch.Generator().manual_seed(0)
    )
    next(batches)
    assert _feeding()
    batches.close()  # type: ignore[attr-defined]
    assert not _feeding()


def _feeding() -> list[str]:
    """The names of the threads that gather images."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("feed")]


def test_augmentation_is_the_same_image_moved_and_mirrored() -> None:
    split = _split()
    flips, moves = set(), set()
    for seed in range(8):
        for images, labels in _epoch(split, BOTH, seed):
            for image, label in zip(images, labels, strict=True):
                flipped, down, right = _found(split.images[label], (image * 255).round().byte())
                flips.add(flipped)
                moves.add((down, right))
    assert flips == {False, True}
    assert moves == {(down, right) for down in range(5) for right in range(5)}


def _found(original: Tensor, image: Tensor) -> tuple[bool, int, int]:
    """Which change of the original the image is, tried one by one."""
    height, width = original.shape[1:]
    for flipped in (False, True):
        mirrored = original.flip(2) if flipped else original
        canvas = torch.zeros(3, height + 4, width + 4, dtype=torch.uint8)
        canvas[:, 2 : 2 + height, 2 : 2 + width] = mirrored
        for down in range(5):
            for right in range(5):
                if torch.equal(canvas[:, down : down + height, right : right + width], image):
                    return flipped, down, right
    raise AssertionError("no change of the original")


def test_each_augmentation_is_off_unless_asked_for() -> None:
    split = _split()
    for flip, shift in ((True, 0), (False, 1)):
        seen = {
            _found(split.images[y], (x * 255).round().byte())
            for images, labels in _epoch(split, Augmentation(flip, shift))
            for x, y in zip(images, labels, strict=True)
        }
        # In the frame of a shift by 2, an image that was not moved lies at (2, 2).
        assert {flipped for flipped, _, _ in seen} == ({False, True} if flip else {False})
        assert ({(down, right) for _, down, right in seen} == {(2, 2)}) is (shift == 0)


def test_a_shift_as_large_as_the_image_is_refused() -> None:
    Augmentation(shift=4).check(5, 6)
    with pytest.raises(InvalidInput, match="out of sight") as refused:
        Augmentation(shift=5).check(6, 5)
    assert refused.value.param == "training.shift"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_same_batches_from_a_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_PART_BYTES", 1)
    split = _split(68)
    mapped = _mapped(split, tmp_path / "images.npy")
    on_gpu = Split(mapped.images, mapped.labels.cuda(), mapped=True)
    for (images, labels), (expected, _) in zip(
        _epoch(on_gpu, BOTH), _epoch(split, BOTH), strict=True
    ):
        assert images.is_cuda
        assert labels.is_cuda
        assert torch.equal(images.cpu(), expected)
