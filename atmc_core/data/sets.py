"""Labelled images as tensors, and splitting them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from atmc_core.data.room import room_for_images
from atmc_core.data.spool import PART_BYTES, Spool
from atmc_core.errors import InvalidInput
from atmc_spec.datasets.layout import listed
from atmc_spec.names import EvaluatedSplit

#: The names of the splits.
SPLITS = ("train", "val", "test")
#: The largest value of a pixel.
WHITE = 255
#: The code of a note on data that names fewer classes than the network has outputs.
FEWER_CLASSES = "fewer_classes_than_outputs"
_TURNED = (
    ". The array seems to be [N, C, H, W]: write it as [N, H, W, C], by .transpose(0, 2, 3, 1)"
)


@dataclass(frozen=True)
class Split:
    """Labelled images.

    Attributes:
        images: uint8 ``[N, C, H, W]``, 0 to 255.
        labels: the classes, int64 ``[N]``. Their device is the one on which batches are used.
        mapped: whether the images are in a memory map instead of that device's memory.
    """

    images: Tensor
    labels: Tensor
    mapped: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        """The split with all images and labels in the device's memory."""
        images = self.images.to(device, copy=self.mapped)
        return Split(images, self.labels.to(device))

    def select(self, index: Tensor) -> "Split":
        """The images and labels at ``index`` (int64 ``[M]``), on the labels' device."""
        images = self.images[index.to(self.images.device)]
        device = self.labels.device
        return Split(images.to(device), self.labels[index.to(device)])

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Some of the images and labels, in the form in which networks take them.

        Args:
            index: the positions, int64 ``[M]`` or a slice.

        Returns:
            Images, float32 ``[M, C, H, W]`` in [0, 1], and labels, int64 ``[M]``, both on the
            labels' device.
        """
        place = index.to(self.images.device) if isinstance(index, Tensor) else index
        images = self.images[place].to(self.labels.device)
        return images.float().div_(WHITE), self.labels[index]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images and labels in order, ``size`` at a time, in the form of ``batch``."""
        for start in range(0, len(self), size):
            yield self.batch(slice(start, start + size))


@dataclass(frozen=True)
class DataSet:
    """The three splits of a data set.

    Attributes:
        train: the images to train on.
        val: the images by which the best epoch is selected; those of a report that asks for them.
        test: the images of any other report; nothing else uses them.
        class_names: the names of the classes by label, for the report; empty if not known.
        notes: what was changed in reading the file, as pairs of a code and a sentence.
    """

    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()

    def evaluated(self, split: EvaluatedSplit) -> Split:
        """The split whose images a report evaluates."""
        return self.val if split == "validation" else self.test

    def to(self, device: torch.device) -> "DataSet":
        """The data set with all labels on the device, and the images of as many splits as fit.

        The smallest splits are moved first; the images of the others stay in their memory maps.
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
        split: the split to cut.
        fraction: the share of each class that is cut off, in (0, 1).
        seed: seeds the choice of images.
        folder: the folder for new memory maps, if the split's images are in one; see ``Spool``.

    Returns:
        The rest of the split, and the part that was cut off.

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

    Args:
        data: the data set.
        input_shape: channels, height and width of the classifier's images.
        num_classes: the classifier's number of classes.

    Raises:
        InvalidInput: ``image_shape_mismatch`` or ``label_out_of_range``, with the array's name.
    """
    for name in SPLITS:
        split: Split = getattr(data, name)
        shape = tuple(split.images.shape[1:])
        if shape != input_shape:
            turned = (*shape[1:], shape[0]) == input_shape
            raise InvalidInput(
                "image_shape_mismatch",
                f"images are {list(shape)} (channels, height, width); "
                f"the network takes {list(input_shape)}{_TURNED if turned else ''}",
                f"x_{name}",
            )
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= num_classes:
            raise InvalidInput(
                "label_out_of_range",
                f"labels run from {low} to {high}; the network has {num_classes} classes, 0 to "
                f"{num_classes - 1}{_named(data.class_names)}{_remedy(low, high, num_classes)}",
                f"y_{name}",
            )
    if len(data.class_names) > num_classes:
        raise InvalidInput(
            "label_out_of_range",
            f"the data has {len(data.class_names)} classes; the network has {num_classes}"
            f"{_named(data.class_names)}. Leave out what is no class, or send the network that was "
            "trained on these",
            "dataset",
        )


def _remedy(low: int, high: int, num_classes: int) -> str:
    if low < 0:
        return ". Where -1 means that an image has no label, leave that split out"
    if low == 1 and high == num_classes:
        return ". Labels count from 0: where these count from 1, subtract 1"
    return ""


def _named(class_names: tuple[str, ...]) -> str:
    return f"; the data's are {listed(class_names)}" if class_names else ""


def note_missing_classes(data: DataSet, num_classes: int) -> DataSet:
    """Add a note to a data set that names fewer classes than a classifier has."""
    message = missing_classes(data.class_names, num_classes)
    if message is None:
        return data
    return replace(data, notes=(*data.notes, (FEWER_CLASSES, message)))


def missing_classes(class_names: tuple[str, ...], num_classes: int) -> str | None:
    """What to say of a data set that names fewer classes than a classifier has; else None."""
    if not 0 < len(class_names) < num_classes:
        return None
    return (
        f"The data names {len(class_names)} classes ({listed(class_names)}), the network has "
        f"{num_classes} outputs. Labels number the names in this order: where a class is missing "
        "in between, all labels behind it are wrong. Add it, be it as an empty folder."
    )
