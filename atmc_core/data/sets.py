"""Labelled images as tensors, and how they are split."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from atmc_core.data.room import room_for_images
from atmc_core.data.spool import PART_BYTES, Spool
from atmc_core.errors import InvalidInput

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Images uint8 ``[N, C, H, W]`` and labels int64 ``[N]``.

    Attributes:
        mapped: the images are not in the memory of the labels' device but in a memory map.
    """

    images: Tensor
    labels: Tensor
    mapped: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        """All of it in the device's memory."""
        images = self.images.to(device, copy=self.mapped)
        return Split(images, self.labels.to(device))

    def select(self, index: Tensor) -> "Split":
        """The images at ``index``, on the labels' device."""
        images = self.images[index.to(self.images.device)]
        device = self.labels.device
        return Split(images.to(device), self.labels[index.to(device)])

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Images as float32 in [0, 1], and labels, on the labels' device."""
        place = index.to(self.images.device) if isinstance(index, Tensor) else index
        images = self.images[place].to(self.labels.device)
        return images.float().div_(255), self.labels[index]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All of it in order, ``size`` images at a time."""
        for start in range(0, len(self), size):
            yield self.batch(slice(start, start + size))


@dataclass(frozen=True)
class DataSet:
    """The three splits. Selection looks at ``val`` only; ``test`` is for the report.

    Attributes:
        class_names: by label, if the file says them; for the report.
        notes: what was changed or cut on the way in, ``(code, sentence)``.
    """

    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()

    def to(self, device: torch.device) -> "DataSet":
        """The labels on the device, and the images of all splits that fit there, small ones first.

        The others stay in their maps.
        """
        room, moved = room_for_images(device), {}
        splits = {"train": self.train, "val": self.val, "test": self.test}
        for name, split in sorted(splits.items(), key=lambda item: len(item[1])):
            room -= split.images.nbytes
            stays = split.mapped and room < 0
            moved[name] = (
                replace(split, labels=split.labels.to(device)) if stays else split.to(device)
            )
        return DataSet(moved["train"], moved["val"], moved["test"], self.class_names, self.notes)


def hold_out(
    split: Split, fraction: float, seed: int, folder: Path | None = None
) -> tuple[Split, Split]:
    """Cut a stratified share off a split: at least one image of every class that has two.

    Args:
        folder: where images go that were in a memory map, as in ``Spool``.

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
        raise InvalidInput("empty_split", "train is too small to cut another split from", "x_train")
    kept, cut = (~held).nonzero()[:, 0], held.nonzero()[:, 0]
    return _part(split, kept, folder), _part(split, cut, folder)


def _part(split: Split, index: Tensor, folder: Path | None) -> Split:
    if not split.mapped:
        return split.select(index)
    spool = Spool(folder)
    for part in torch.split(index, max(1, PART_BYTES // split.images[0].nbytes)):
        spool.add(split.images[part].numpy())
    return Split(spool.images(), split.labels[index], mapped=True)


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
