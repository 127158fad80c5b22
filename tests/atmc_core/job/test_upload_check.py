"""The look at the upload before training: what it finds wrong, and which reading would be right."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from atmc_core.data import DataSet, Split
from atmc_core.errors import InvalidInput
from atmc_core.job.inputs import Inputs
from atmc_core.job.readings import image_readings, label_readings
from atmc_core.job.upload_check import look_at_upload
from atmc_core.networks.blueprint import OWN, Blueprint
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.upload import ModelInput
from atmc_spec.methods import EvaluateSpec

CLASSES = 12
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = Normalization((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))
MNIST = Normalization((0.1307,), (0.3081,))
CENTRED = Normalization((0.5,) * 3, (0.5,) * 3)
BYTES = Normalization((0.0,) * 3, (1 / 255,) * 3)
TIMES_255 = Normalization(*(tuple(255 * n for n in part) for part in (CIFAR.mean, CIFAR.std)))
PLAIN = Normalization()


class Nearest(nn.Module):
    """The class of the nearest of some images, as the normalisation of its training shows them.

    The distance has a unit, so that another scale leads it astray.
    """

    def __init__(self, images: Tensor, trained: Normalization, flipped: bool = False) -> None:
        super().__init__()
        images = images.flip(1) if flipped else images
        channels = images.shape[1]
        mean, std = trained.mean or (0.0,) * channels, trained.std or (1.0,) * channels
        seen = (images - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)
        self.register_buffer("seen", seen.flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        return -torch.cdist(images.flatten(1), self.seen)  # type: ignore[arg-type]


def data_set(
    channels: int = 3, names: tuple[str, ...] = (), green: bool = True
) -> tuple[Tensor, DataSet]:
    """The classes' own images, and noisy ones of each; green may tell nothing."""
    generator = torch.Generator().manual_seed(0)
    own = 0.5 + 0.1 * torch.rand(CLASSES, channels, 4, 4, generator=generator)
    if not green:
        own[:, 1] = 0.5

    def split(count: int) -> Split:
        labels = torch.arange(count) % CLASSES
        noise = 0.02 * torch.randn(count, channels, 4, 4, generator=generator)
        return Split(((own[labels] + noise).clamp(0, 1) * 255).round().byte(), labels)

    return own, DataSet(split(240), split(120), split(24), names)


def inputs(network: nn.Module, data: DataSet, given: Normalization, **accept: float) -> Inputs:
    channels = data.train.images.shape[1]
    spec = EvaluateSpec(
        method="evaluate",
        threat={"norm": "linf", "epsilon": 0.1},  # type: ignore[arg-type]
        accept=accept,  # type: ignore[arg-type]
    )
    return Inputs(
        spec=spec,
        model=ModelInput(Path("model"), OWN, given),
        blueprint=Blueprint(OWN, CLASSES, (channels, 4, 4)),
        notes=(),
        read=data,
        data=data,
        classifier=Classifier(network, given, channels),
        results=Path(),
    )


def look(given: Inputs) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    found = look_at_upload(given, events.append)
    return (found[0] if found else None), events


# What the network was trained with, what the caller gives, and what the message says.
@pytest.mark.parametrize(
    ("trained", "given", "said"),
    [
        (CIFAR, TIMES_255, "With mean 0.4914, 0.4822, 0.4465 and std 0.247, 0.2435, 0.2616 (the"),
        (IMAGENET, PLAIN, "(ImageNet's) it is right on"),
        (CIFAR, PLAIN, "std 0.2"),
        (CENTRED, PLAIN, "(from -1 to 1) it is right on"),
        (PLAIN, BYTES, "With no normalisation it is right on"),
        (BYTES, PLAIN, "(pixels from 0 to 255) it is right on"),
        (BYTES, IMAGENET, "(pixels from 0 to 255) it is right on"),
    ],
)
def test_the_normalisation_that_would_be_right_is_named(
    trained: Normalization, given: Normalization, said: str
) -> None:
    own, data = data_set()
    found, events = look(inputs(Nearest(own, trained), data, given))
    assert found is not None
    assert found["code"] in ("upload_at_chance", "upload_misread")
    assert [event["code"] for event in events] == [found["code"]]
    assert events[0]["message"] == found["message"]
    assert said in found["message"]
    assert found["figures"]["better_accuracy"] > 0.9


class Noise(nn.Module):
    """Says whatever the last digits of the pixels' sum say."""

    def forward(self, images: Tensor) -> Tensor:
        said = (images.double().sum((1, 2, 3)) * 1e4).long() % CLASSES
        return nn.functional.one_hot(said, CLASSES).float()


def test_where_no_reading_is_right_the_usual_causes_are_named() -> None:
    _, data = data_set()
    found, _ = look(inputs(Noise(), data, CIFAR))
    assert found is not None
    assert found["code"] == "upload_at_chance"
    assert "no more than by guessing. The usual causes: a normalisation" in found["message"]
    assert found["figures"].keys() == {"accuracy", "chance", "images"}


def test_a_grey_network_s_normalisation_is_named() -> None:
    own, data = data_set(channels=1)
    found, _ = look(inputs(Nearest(own, MNIST), data, Normalization((33.3,), (78.6,))))
    assert found is not None
    assert "With mean 0.1306 and std 0.3082 (the given numbers divided by 255)" in found["message"]


def test_blue_before_red_is_named() -> None:
    own, data = data_set(green=False)
    found, _ = look(inputs(Nearest(own, IMAGENET, flipped=True), data, IMAGENET))
    assert found is not None
    assert "With blue first (BGR) it is right on" in found["message"]


TEXT_ORDER = tuple(sorted(str(number) for number in range(CLASSES)))


@pytest.mark.parametrize(
    ("names", "output_of", "said"),
    [
        ((), lambda label: (label + 1) % CLASSES, "With every label one higher it is right on"),
        ((), lambda label: (label - 1) % CLASSES, "With every label one lower it is right on"),
        (TEXT_ORDER, lambda label: int(TEXT_ORDER[label]), "the class names sorted as numbers"),
        (
            ("Ant", "Zebra", *(f"b{n:02}" for n in range(CLASSES - 2))),
            lambda label: {0: 0, 1: CLASSES - 1}.get(label, label - 1),
            "the class names sorted without regard to case",
        ),
        ((), lambda label: 5 * label % CLASSES, "(1 is 5, 2 is 10, 3 is 3"),
    ],
    ids=["one higher", "one lower", "numbers as text", "upper case first", "any other order"],
)
def test_the_order_of_labels_that_would_be_right_is_named(
    names: tuple[str, ...], output_of: Any, said: str
) -> None:
    own, data = data_set(names=names)
    outputs = torch.tensor([output_of(label) for label in range(CLASSES)])
    if "3 is 3" in said:
        said = "(1 is 5, 2 is 10, 4 is 8"
    network = Nearest(own[outputs.argsort()], PLAIN)
    found, _ = look(inputs(network, data, PLAIN))
    assert found is not None
    assert said in found["message"]
    assert found["figures"]["better_accuracy"] > 0.9


def test_a_missing_class_folder_is_found_by_its_number() -> None:
    own, data = data_set(names=tuple(map(str, (0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11))))
    closed = torch.tensor([0, 1, 2, -1, *range(3, CLASSES - 1)])
    train, val, test = (
        Split(split.images[split.labels != 3], closed[split.labels][split.labels != 3])
        for split in (data.train, data.val, data.test)
    )
    data = replace(data, train=train, val=val, test=test)
    found, _ = look(inputs(Nearest(own, PLAIN), data, PLAIN))
    assert found is not None
    assert found["code"] == "upload_misread"
    assert "With the class names taken as the labels it is right on 100.0 %" in found["message"]


def test_nothing_is_said_of_a_good_upload_and_one_pass_is_all_it_costs() -> None:
    own, data = data_set()
    network, passed = Nearest(own, CIFAR), []
    network.register_forward_hook(lambda module, images, output: passed.append(len(output)))
    network.train()
    assert look(inputs(network, data, CIFAR)) == (None, [])
    assert sum(passed) == len(data.train) + len(data.val)
    assert network.training


class Constant(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :CLASSES] * 0 + torch.eye(CLASSES)[2]


def test_a_network_that_always_says_the_most_frequent_class_is_at_chance() -> None:
    _, data = data_set()
    train = Split(data.train.images, torch.where(data.train.labels > 3, 2, data.train.labels))
    found, _ = look(inputs(Constant(), replace(data, train=train, val=train), PLAIN))
    assert found is not None
    assert found["code"] == "upload_at_chance"
    assert found["figures"]["accuracy"] == pytest.approx(found["figures"]["chance"])


def test_validation_images_far_below_the_training_images_are_told() -> None:
    own, data = data_set()
    val = Split(data.val.images, (data.val.labels + 1) % CLASSES)
    found, _ = look(inputs(Nearest(own, PLAIN), replace(data, val=val), PLAIN))
    assert found is not None
    assert found["code"] == "upload_below_training"
    assert "on 0.0 % of 120 validation images and on 100.0 % of 240" in found["message"]


def test_an_upload_below_the_accuracy_that_is_asked_for_ends_the_job_there() -> None:
    own, data = data_set()
    good, bad = Nearest(own, CIFAR), Nearest(own.roll(1, 0), CIFAR)
    assert look(inputs(good, data, CIFAR, upload_accuracy=0.9)) == (None, [])
    with pytest.raises(InvalidInput, match="With every label one higher") as refused:
        look(inputs(bad, data, CIFAR, upload_accuracy=0.9))
    assert refused.value.code == "upload_accuracy_too_low"
    assert refused.value.param == "accept.upload_accuracy"
    assert "asks for 90.0 % at least" in refused.value.message


def test_few_images_raise_no_alarm() -> None:
    own, data = data_set()
    few = replace(
        data, train=data.train.select(torch.arange(12)), val=data.val.select(torch.arange(3))
    )
    assert look(inputs(Nearest(own, CIFAR), few, CIFAR)) == (None, [])
    fewer = replace(
        few, train=data.train.select(torch.arange(2)), val=few.val.select(torch.tensor([0]))
    )
    assert look(inputs(Nearest(own, CIFAR), fewer, CIFAR)) == (None, [])


def test_the_given_reading_comes_first() -> None:
    for channels in (1, 2, 3):
        assert image_readings(PLAIN, channels)[0].words == ""
    assert label_readings(3, ())[0].outputs.tolist() == [0, 1, 2]
