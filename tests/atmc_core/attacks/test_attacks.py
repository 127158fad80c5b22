"""Attacks stay in their ball and in [0, 1], start at random, and find what there is to find."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from atmc_core.attacks import (
    APGD,
    APGDT,
    FABT,
    FGSM,
    PGD,
    WRM,
    Attack,
    AutoAttack,
    Ball,
    Square,
    ball,
)
from atmc_core.attacks.gradient import input_gradient
from atmc_core.data import DataSet
from atmc_core.networks.classifier import Classifier

EPSILON = {"linf": 0.1, "l2": 0.8}
MAKERS: dict[str, Callable[[Ball], Attack]] = {
    "fgsm": FGSM,
    "pgd": lambda ball: PGD(ball, 5, ball.epsilon / 3),
    "pgd cw": lambda ball: PGD(ball, 5, ball.epsilon / 3, loss="cw"),
    "pgd dlr": lambda ball: PGD(ball, 5, ball.epsilon / 3, loss="dlr"),
    "pgd restarts": lambda ball: PGD(ball, 3, ball.epsilon / 2).repeat(3),
    "apgd-ce": lambda ball: APGD(ball, steps=10),
    "apgd-dlr": lambda ball: APGD(ball, loss="dlr", steps=10),
    "apgd-t": lambda ball: APGDT(ball, targets=2, steps=10, batch_size=100),
    "fab-t": lambda ball: FABT(ball, targets=2, steps=10, batch_size=100),
    "square": lambda ball: Square(ball, queries=300),
    "autoattack": lambda ball: AutoAttack(ball, targets=2, steps=5, queries=20, batch_size=90),
}
CASES = [(name, norm) for name in MAKERS for norm in EPSILON]


@pytest.fixture
def batch(digits: DataSet) -> tuple[Tensor, Tensor]:
    return digits.test.batch(slice(0, 200))


def _accuracy(model: Classifier, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_stays_in_the_ball_and_lowers_accuracy(
    name: str, norm: str, digits_classifier: Classifier, batch: tuple[Tensor, Tensor]
) -> None:
    limits = ball(norm, EPSILON[norm])
    images, labels = batch
    before = images.clone()
    adversarial = MAKERS[name](limits).run(
        digits_classifier, images, labels, generator=_generator()
    )
    assert torch.equal(images, before)
    assert adversarial.shape == images.shape
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert limits.size(adversarial - images).max() <= limits.epsilon + 1e-5
    clean = _accuracy(digits_classifier, images, labels)
    assert clean > 0.94
    assert _accuracy(digits_classifier, adversarial, labels) < clean - 0.15


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_a_generator_decides_all_that_is_random_and_no_weight_gets_a_gradient(
    name: str, norm: str, digits_classifier: Classifier, batch: tuple[Tensor, Tensor]
) -> None:
    images, labels = (tensor[:60] for tensor in batch)
    attack = MAKERS[name](ball(norm, EPSILON[norm]))
    runs = []
    for seed in (0, 7):
        torch.manual_seed(seed)
        runs.append(attack.run(digits_classifier, images, labels, generator=_generator()))
    assert torch.equal(*runs)
    assert all(parameter.grad is None for parameter in digits_classifier.parameters())
    assert all(parameter.requires_grad for parameter in digits_classifier.parameters())


def test_wrm_pays_for_the_length_of_its_perturbation(
    digits_classifier: Classifier, batch: tuple[Tensor, Tensor]
) -> None:
    images, labels = batch
    clean, lengths, accuracies = _accuracy(digits_classifier, images, labels), [], []
    for gamma in (0.2, 1.3, 4.0):
        adversarial = WRM(gamma=gamma).run(digits_classifier, images, labels)
        assert adversarial.min() >= 0
        assert adversarial.max() <= 1
        lengths.append(float(ball("l2", 1).size(adversarial - images).mean()))
        accuracies.append(_accuracy(digits_classifier, adversarial, labels))
    assert lengths[0] < lengths[1] < lengths[2]
    assert clean > accuracies[0] > accuracies[2]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_random_start_is_random_and_fills_the_ball(norm: str) -> None:
    images = torch.full((500, 1, 4, 4), 0.5)
    limits = ball(norm, 0.3)
    first = limits.random(images, torch.Generator().manual_seed(0))
    again = limits.random(images, torch.Generator().manual_seed(0))
    other = limits.random(images, torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    size = limits.size(first - images)
    assert 0.27 < size.max() <= 0.3 + 1e-6
    assert (first - images).mean().abs() < 0.02


def test_more_steps_and_restarts_never_help_the_model(
    digits_classifier: Classifier, batch: tuple[Tensor, Tensor]
) -> None:
    images, labels = batch
    limits = ball("linf", 0.1)
    attacks: list[Attack] = [FGSM(limits), PGD(limits, 20, 0.02), PGD(limits, 20, 0.02).repeat(5)]
    accuracies = []
    for attack in attacks:
        generator = torch.Generator().manual_seed(0)
        adversarial = attack.run(digits_classifier, images, labels, generator=generator)
        accuracies.append(_accuracy(digits_classifier, adversarial, labels))
    assert accuracies[0] > accuracies[1] >= accuracies[2]


def test_the_input_gradient_is_that_of_the_cross_entropy(digits_classifier: Classifier) -> None:
    images, labels = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2])
    gradient = input_gradient(digits_classifier, images, labels)
    shifted = images.clone()
    shifted[1, 0, 4, 4] += 1e-3
    with torch.no_grad():
        losses = [
            torch.nn.functional.cross_entropy(digits_classifier(x), labels, reduction="sum")
            for x in (images, shifted)
        ]
    slope = (losses[1] - losses[0]).item() / 1e-3
    assert gradient[1, 0, 4, 4].item() == pytest.approx(slope, rel=0.05, abs=0.01)


def test_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="steps is 0"):
        PGD(ball("linf", 0.1), 0, 0.1)
    with pytest.raises(ValueError, match="step_size"):
        PGD(ball("linf", 0.1), 1, 0.0)
    with pytest.raises(ValueError, match="norm is 'l1'"):
        ball("l1", 0.1)
    with pytest.raises(ValueError, match="times is 0"):
        FGSM(ball("linf", 0.1)).repeat(0)
    with pytest.raises(ValueError, match="loss is 'hinge'"):
        PGD(ball("linf", 0.1), 1, 0.1, loss="hinge")
    with pytest.raises(ValueError, match="loss is 'l3'"):
        APGD(ball("linf", 0.1), loss="l3")
    with pytest.raises(ValueError, match="targets is 0"):
        APGDT(ball("linf", 0.1), targets=0)
    with pytest.raises(ValueError, match="steps is -1"):
        FABT(ball("linf", 0.1), steps=-1)
    with pytest.raises(ValueError, match=r"initial_share is 1\.5"):
        Square(ball("linf", 0.1), initial_share=1.5)
    with pytest.raises(ValueError, match="queries is 0"):
        AutoAttack(ball("linf", 0.1), queries=0)
    with pytest.raises(ValueError, match="gamma is 0"):
        WRM(gamma=0)
    with pytest.raises(ValueError, match=r"epsilon is 0: it must be above 0"):
        ball("linf", 0)
    with pytest.raises(ValueError, match=r"epsilon is 8: it must be at most 1.* write 8/255"):
        ball("linf", 8)
    with pytest.raises(ValueError, match="epsilon is nan"):
        ball("l2", float("nan"))


@pytest.mark.parametrize("name", MAKERS)
def test_refuses_no_images_and_outputs_that_are_no_numbers(
    name: str, digits_classifier: Classifier
) -> None:
    attack = MAKERS[name](ball("linf", 0.1))
    none, labels = torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.long)
    with pytest.raises(ValueError, match="no images to attack"):
        attack.run(digits_classifier, none, labels)
    images, labels = torch.rand(3, 1, 8, 8), torch.zeros(3, dtype=torch.long)
    with pytest.raises(FloatingPointError, match="NaN or infinite outputs"):
        attack.run(lambda images: digits_classifier(images) * torch.nan, images, labels)
