"""Other ways to read the same upload and data: what a caller most often gives wrongly.

A reading has two sides: how images enter the network (normalisation, channel order), and which of
the network's outputs a label means.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atmc_core.networks.classifier import Normalization

#: Means and deviations in common use, with their names; those of colour have three numbers.
_COLOUR: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...] = (
    ("ImageNet's", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ("CIFAR's", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
)
_CAFFE = ("Caffe's", (0.485, 0.456, 0.406), (1 / 255,) * 3)
_GREY: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...] = (
    ("MNIST's", (0.1307,), (0.3081,)),
)
# Means above this, or deviations, are on the scale of 0 to 255.
_LARGEST = 2.0
_WHITE = 255.0
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class ImageReading:
    """How images enter the network.

    Attributes:
        words: the reading in words, as the end of the sentence "it would be right with ...".
        normalization: the normalisation.
        reversed: whether the channels come in the reverse order, blue first.
    """

    words: str
    normalization: Normalization
    reversed: bool = False

    def logits(self, network: nn.Module, images: Tensor) -> Tensor:
        """What the network makes of images so read.

        Args:
            network: maps normalised images to logits ``[N, classes]``.
            images: float32 ``[N, C, H, W]`` in [0, 1].
        """
        if self.reversed:
            images = images.flip(1)
        if self.normalization.mean:
            mean, std = (
                torch.tensor(numbers, device=images.device).view(1, -1, 1, 1)
                for numbers in (self.normalization.mean, self.normalization.std)
            )
            images = (images - mean) / std
        logits: Tensor = network(images)
        return logits


@dataclass(frozen=True)
class LabelReading:
    """Which of the network's outputs a label means.

    Attributes:
        words: as in ``ImageReading``.
        outputs: the output that each label means, int64 ``[classes]``.
    """

    words: str
    outputs: Tensor

    def right(self, predicted: Tensor, labels: Tensor) -> Tensor:
        """Whether each prediction is right, bool ``[N]``, of int64 ``[N]`` on the CPU."""
        return predicted == self.outputs[labels]


def image_readings(given: Normalization, channels: int) -> list[ImageReading]:
    """The readings of images: the given one first, and the usual others.

    Args:
        given: the normalisation that came with the network.
        channels: how many channels images have.
    """
    numbers = list(_COLOUR if channels == 3 else _GREY if channels == 1 else ())
    numbers.append(("from -1 to 1", (0.5,) * channels, (0.5,) * channels))
    numbers.append(("pixels from 0 to 255", (0.0,) * channels, (1 / _WHITE,) * channels))
    if channels == 3:
        numbers.append(_CAFFE)
    found = [ImageReading("", given)]
    if given.mean and max(map(abs, (*given.mean, *given.std))) > _LARGEST:
        mean, std = (tuple(n / _WHITE for n in part) for part in (given.mean, given.std))
        found.append(_normalised("the given numbers divided by 255", mean, std))
    if given.mean:
        found.append(ImageReading("no normalisation", Normalization()))
    found += [_normalised(*each) for each in numbers if each[1:] != (given.mean, given.std)]
    if channels == 3:
        found += [
            ImageReading(
                f"{each.words} and blue first (BGR)".removeprefix(" and "), each.normalization, True
            )
            for each in found
        ]
    return found


def _normalised(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> ImageReading:
    shown = [", ".join(f"{number:.4g}" for number in numbers) for numbers in (mean, std)]
    return ImageReading(f"mean {shown[0]} and std {shown[1]} ({name})", Normalization(mean, std))


def label_readings(num_classes: int, class_names: Sequence[str]) -> list[LabelReading]:
    """The readings of labels: as they are first, and the usual others.

    Args:
        num_classes: how many outputs the network has.
        class_names: the names of the classes by label, as far as they are known; no more.
    """
    as_is = torch.arange(num_classes)
    found = [
        LabelReading("", as_is),
        LabelReading("every label one higher", (as_is + 1) % num_classes),
        LabelReading("every label one lower", (as_is - 1) % num_classes),
    ]
    orders = (
        ("the class names sorted as numbers", _as_numbers),
        ("the class names sorted without regard to case", str.casefold),
    )
    for words, key in orders:
        order = sorted(range(len(class_names)), key=lambda label: key(class_names[label]))
        if order != sorted(order):
            outputs = as_is.clone()
            outputs[torch.tensor(order)] = torch.arange(len(order))
            found.append(LabelReading(words, outputs))
    if class_names and all(name.isdecimal() and len(name) < 9 for name in class_names):
        named = torch.tensor([int(name) for name in class_names])
        outputs = as_is.clone()
        outputs[: len(named)] = named
        if int(named.max()) < num_classes and not torch.equal(outputs, as_is):
            found.append(LabelReading("the class names taken as the labels", outputs))
    return found


def _as_numbers(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts the numbers in names by their values."""
    return [
        (0, int(part), "") if part.isdecimal() and len(part) < 99 else (1, 0, part)
        for part in _DIGITS.split(name)
        if part
    ]


def renumbered(predicted: Tensor, labels: Tensor, num_classes: int) -> LabelReading | None:
    """The reading in which each label means the output that its images most often get.

    Args:
        predicted: the predictions, int64 ``[N]`` on the CPU.
        labels: the true labels, int64 ``[N]``.

    Returns:
        None if two labels would mean the same output.
    """
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    counts.index_put_((labels, predicted), torch.ones(len(labels), dtype=torch.int64), True)
    present = counts.sum(1) > 0
    outputs = counts.argmax(1)
    if len(torch.unique(outputs[present])) < int(present.sum()):
        return None
    pairs = [f"{label} is {int(outputs[label])}" for label in present.nonzero()[:, 0].tolist()]
    moved = [pair for pair in pairs if pair.split(" is ")[0] != pair.split(" is ")[1]]
    more = f" and {len(moved) - 6} more" if len(moved) > 6 else ""
    return LabelReading(
        f"the classes in another order ({', '.join(moved[:6])}{more} in the network)", outputs
    )
