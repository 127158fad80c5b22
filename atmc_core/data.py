"""Labelled image sets: read, checked, split, and fed to the device as uint8."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atmc_core.errors import InvalidInput

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Images uint8 ``[N, C, H, W]`` and labels int64 ``[N]`` on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Images as float32 in [0, 1], and labels."""
        return self.images[index].float().div_(255), self.labels[index]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All of it in order, ``size`` images at a time."""
        for start in range(0, len(self), size):
            yield self.batch(slice(start, start + size))

    def shuffled(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in random order; a last batch of a single image is left out (batch norms)."""
        order = torch.randperm(len(self), generator=generator).to(self.labels.device)
        for index in torch.split(order, size):
            if len(index) > 1:
                yield self.batch(index)


@dataclass(frozen=True)
class DataSet:
    """The three splits. Selection looks at ``val`` only; ``test`` is for the report."""

    train: Split
    val: Split
    test: Split

    def to(self, device: torch.device) -> "DataSet":
        return DataSet(self.train.to(device), self.val.to(device), self.test.to(device))


def load_npz(path: Path, *, validation_fraction: float, seed: int) -> DataSet:
    """Read ``x_train, y_train, x_test, y_test`` (and ``x_val, y_val``) from an ``.npz`` file.

    Images are uint8 ``[N, H, W, C]`` or ``[N, H, W]``, labels integers ``[N]``. Without a
    validation split one is cut from train, stratified, by seed. Nothing in the file is executed.

    Raises:
        InvalidInput: ``malformed_dataset``, ``bad_array`` or ``empty_split``, naming the array.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            splits = {
                name: _read_split(_arrays(arrays, name), name)
                for name in SPLITS
                if name != "val" or "x_val" in arrays or "y_val" in arrays
            }
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput("malformed_dataset", f"the .npz cannot be read: {error}") from error
    if len(splits["train"]) < 2:
        raise InvalidInput("empty_split", "train holds 1 image: at least 2 are needed", "x_train")
    if "val" not in splits:
        splits["train"], splits["val"] = hold_out(splits["train"], validation_fraction, seed)
    return DataSet(**splits)


def _arrays(arrays: "np.lib.npyio.NpzFile", name: str) -> tuple[NDArray[np.generic], ...]:
    """The images and the labels of one split."""
    for key in (f"x_{name}", f"y_{name}"):
        if key not in arrays:
            raise InvalidInput("bad_array", f"{key} is missing; found: {', '.join(arrays)}", key)
    return arrays[f"x_{name}"], arrays[f"y_{name}"]


def _read_split(pair: tuple[NDArray[np.generic], ...], name: str) -> Split:
    images, labels = pair
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InvalidInput(
            "bad_array",
            f"x_{name} is {images.dtype} {list(images.shape)}: expected uint8 [N, H, W, C]",
            f"x_{name}",
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise InvalidInput(
            "bad_array",
            f"y_{name} is {labels.dtype} {list(labels.shape)}: expected integers [{len(images)}]",
            f"y_{name}",
        )
    if not len(images):
        raise InvalidInput("empty_split", f"the {name} split holds no images", f"x_{name}")
    nhwc = images.reshape(*images.shape[:3], -1)
    nchw = np.ascontiguousarray(nhwc.transpose(0, 3, 1, 2))
    return Split(torch.from_numpy(nchw), torch.from_numpy(labels.astype(np.int64)))


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Cut a stratified share off a split: at least one image of every class that has two.

    Returns:
        What stays, and what was cut off.

    Raises:
        InvalidInput: ``empty_split`` if no class has two images.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(split), generator=generator)
    held = torch.zeros(len(split), dtype=torch.bool)
    for label in torch.unique(split.labels):
        members = order[split.labels[order] == label]
        if len(members) > 1:
            held[members[: max(1, round(fraction * len(members)))]] = True
    if not held.any():
        raise InvalidInput(
            "empty_split", "train is too small to cut a validation split from", "x_train"
        )
    kept, cut = (~held).nonzero()[:, 0], held.nonzero()[:, 0]
    return (
        Split(split.images[kept], split.labels[kept]),
        Split(split.images[cut], split.labels[cut]),
    )


def check_against(data: DataSet, input_shape: tuple[int, int, int], num_classes: int) -> None:
    """Check that images and labels fit a classifier.

    Raises:
        InvalidInput: ``image_shape_mismatch`` or ``label_out_of_range``, naming the array.
    """
    for name in SPLITS:
        split: Split = getattr(data, name)
        shape = tuple(split.images.shape[1:])
        if shape != input_shape:
            raise InvalidInput(
                "image_shape_mismatch",
                f"images are {list(shape)} (channels, height, width); "
                f"the network takes {list(input_shape)}",
                f"x_{name}",
            )
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= num_classes:
            raise InvalidInput(
                "label_out_of_range",
                f"labels run from {low} to {high}; the network has {num_classes} classes, "
                f"0 to {num_classes - 1}",
                f"y_{name}",
            )
