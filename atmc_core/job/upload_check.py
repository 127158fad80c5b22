"""Looks at the upload on some images before hours of training: is it read as its maker meant it?

An upload that is right no more often than a guess was most often given a wrong normalisation, or
labels in another order. The look takes one forward pass of up to 1,000 images. Only where it finds
something wrong are the usual mistakes tried, on a part of them.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atmc_core.data import Split
from atmc_core.errors import InvalidInput
from atmc_core.evaluation.plan import stratified
from atmc_core.events import Emit
from atmc_core.job.inputs import Inputs
from atmc_core.job.readings import (
    ImageReading,
    LabelReading,
    image_readings,
    label_readings,
    renumbered,
)
from atmc_core.job.streams import UPLOAD_CHECK
from atmc_core.report.checks import Check, raised_check

# How many images of train and of val are looked at, and how many of those of train other readings
# are tried on.
_IMAGES, _TRIED_IMAGES = 500, 200
# A figure differs from another one if it is so many standard deviations away.
_DEVIATIONS = 3.0
# Accuracy above chance, as a share of what there is above chance (Cohen's kappa): below the first
# number the upload is at chance; below the second the usual mistakes are tried.
_AT_CHANCE, _DOUBTFUL = 0.05, 0.5
# Another reading is named if it is beyond doubt itself, and adds so much to that share.
_BETTER = 0.2
# Validation images are far below training images if they reach less than this part of their share.
_FAR_BELOW = 0.5
# A new order of classes is read off one half of the images and tried on the other; it needs so many
# images of each class.
_IMAGES_A_CLASS = 8
# Of readings that are right equally often, up to this difference, the first is named.
_SAME = 0.01

_CAUSES = (
    " The usual causes: a normalisation other than in training, labels in another order, pixels on "
    "another scale (from 0 to 1 is meant), channels in another order."
)


@dataclass(frozen=True)
class Share:
    """How many of some images are right, and what guessing would give.

    Attributes:
        right: the share of images that are right.
        chance: the share that would be if the same predictions were dealt out at random.
        count: the number of images.
    """

    right: float
    chance: float
    count: int

    @classmethod
    def of(cls, right: Tensor, predicted: Tensor, meant: Tensor, num_classes: int) -> "Share":
        """The share of predictions int64 ``[N]`` that are as is ``meant``, int64 ``[N]``."""
        both = [torch.bincount(each, minlength=num_classes) for each in (predicted, meant)]
        chance = float((both[0].double() @ both[1].double()) / len(right) ** 2)
        return cls(float(right.double().mean()), chance, len(right))

    @property
    def above(self) -> float:
        """The share above chance of what there is above chance: 0 for a guess, 1 for no error."""
        return (self.right - self.chance) / max(1 - self.chance, 1e-9)

    def exceeds(self, other: float) -> bool:
        """Whether the share is above another one by more than chance explains."""
        spread = math.sqrt(max(other * (1 - other), 1 / self.count) / self.count)
        return self.right - other > _DEVIATIONS * spread

    @property
    def at_chance(self) -> bool:
        """Whether the images are right no more often than by guessing."""
        # Of a handful of images even all that are right may be luck: that is no reason for alarm.
        if self.above >= _DOUBTFUL:
            return False
        return self.above < _AT_CHANCE or not self.exceeds(self.chance)


def look_at_upload(inputs: Inputs, emit: Emit) -> list[Check]:
    """Look whether the upload is right on training and validation images, as often as it should.

    A warning is emitted of what is found.

    Returns:
        The checks that are raised, for the report: one at most.

    Raises:
        InvalidInput: ``upload_accuracy_too_low`` if it is right less often than the spec's
            ``accept.upload_accuracy``.
    """
    looked = _Look(inputs)
    raised = looked.raised()
    least = inputs.spec.accept.upload_accuracy
    if least is not None and looked.share.right < least:
        why = raised["message"] if raised else f"{_found(looked.share)}."
        raise InvalidInput(
            "upload_accuracy_too_low",
            f"{why} The spec asks for {_percent(least)} at least.",
            "accept.upload_accuracy",
        )
    if raised is None:
        return []
    emit({"type": "warning", "code": raised["code"], "message": raised["message"]})
    return [raised]


class _Look:
    """The upload's predictions for some training and validation images."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs, self.classes = inputs, inputs.num_classes
        seed = inputs.spec.seed
        self.parts = [
            (split, stratified(split.labels, _IMAGES, seed, UPLOAD_CHECK))
            for split in (inputs.data.train, inputs.data.val)
        ]
        given = ImageReading("", inputs.model.normalization)
        self.predicted = [self._predict(given, *part) for part in self.parts]
        self.labels = [split.labels.cpu()[at] for split, at in self.parts]
        self.train, self.val = (
            self._share(*part) for part in zip(self.predicted, self.labels, strict=True)
        )
        self.share = self._share(torch.cat(self.predicted), torch.cat(self.labels))

    def raised(self) -> Check | None:
        """What is wrong with the upload, or None."""
        better = self._better() if self.share.above < _DOUBTFUL else None
        figures: dict[str, Any] = {
            "accuracy": self.share.right,
            "chance": self.share.chance,
            "images": self.share.count,
        }
        would = ""
        if better is not None:
            words, share = better
            figures |= {"better_accuracy": share.right, "better_images": share.count}
            would = (
                f" With {words} it is right on {_percent(share.right)} of {share.count}; what "
                "was given was not changed."
            )
        if self.share.at_chance:
            text = f"{_found(self.share)}, which is no more than by guessing.{would or _CAUSES}"
            return raised_check("upload_at_chance", text, **figures)
        if better is not None:
            return raised_check("upload_misread", f"{_found(self.share)}.{would}", **figures)
        return self._below_training()

    def _below_training(self) -> Check | None:
        """What is wrong if the training images are right far more often than the others."""
        train, val = self.train, self.val
        pooled = (train.right * train.count + val.right * val.count) / (train.count + val.count)
        spread = math.sqrt(pooled * (1 - pooled) * (1 / train.count + 1 / val.count))
        if val.above >= _FAR_BELOW * train.above or train.right - val.right <= _DEVIATIONS * spread:
            return None
        return raised_check(
            "upload_below_training",
            f"The upload is right on {_percent(val.right)} of {val.count} validation images and on "
            f"{_percent(train.right)} of {train.count} training images: it has learnt those by "
            "heart, or the two splits differ, in the order of their labels or in their images.",
            accuracy=val.right,
            images=val.count,
            training_accuracy=train.right,
            training_images=train.count,
        )

    def _better(self) -> tuple[str, Share] | None:
        """The reading that is right most often, in words, if it is clearly better."""
        split, positions = self.parts[0]
        tried = positions[stratified(self.labels[0], _TRIED_IMAGES, 0, UPLOAD_CHECK)]
        labels = split.labels.cpu()[tried]
        found: list[tuple[str, Share]] = []
        readings = label_readings(self.classes, self.inputs.read.class_names[: self.classes])
        channels = self.inputs.blueprint.input_shape[0]
        for image in image_readings(self.inputs.model.normalization, channels):
            predicted = self._predict(image, split, tried)
            for label in readings:
                words = " and ".join(filter(None, [image.words, label.words]))
                found.append((words, self._share(predicted, labels, label)))
        found += self._renumbered()
        (_, before), *others = found
        clearly = [
            each
            for each in others
            if each[1].above >= max(_DOUBTFUL, before.above + _BETTER)
            and each[1].exceeds(before.right)
        ]
        best = max((share.right for _, share in clearly), default=0.0)
        return next((each for each in clearly if each[1].right >= best - _SAME), None)

    def _renumbered(self) -> list[tuple[str, Share]]:
        """The share with the classes in the order that half of the images show, on the others."""
        predicted, labels = (torch.cat(each) for each in (self.predicted, self.labels))
        if len(labels) < _IMAGES_A_CLASS * self.classes:
            return []
        order = labels.argsort(stable=True)
        fitted, tried = order[::2], order[1::2]
        reading = renumbered(predicted[fitted], labels[fitted], self.classes)
        if reading is None:
            return []
        return [(reading.words, self._share(predicted[tried], labels[tried], reading))]

    def _share(
        self, predicted: Tensor, labels: Tensor, reading: LabelReading | None = None
    ) -> Share:
        meant = labels if reading is None else reading.outputs[labels]
        return Share.of(predicted == meant, predicted, meant, self.classes)

    @torch.no_grad()
    def _predict(self, reading: ImageReading, split: Split, positions: Tensor) -> Tensor:
        """The network's predictions for some images, int64 on the CPU; its mode stays as it is."""
        network = self.inputs.classifier.network
        training = network.training
        network.eval()
        found = [
            reading.logits(network, split.batch(part)[0]).argmax(1).cpu()
            for part in torch.split(positions, self.inputs.spec.evaluation.batch_size)
        ]
        network.train(training)
        return torch.cat(found)


def _found(share: Share) -> str:
    return (
        f"The upload is right on {_percent(share.right)} of {share.count} training and validation "
        "images"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
