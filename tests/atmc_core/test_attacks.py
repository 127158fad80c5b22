"""Attacks stay in their ball and in [0, 1], start at random, and find what there is to find."""

import pytest
import torch
from torch import Tensor

from atmc_core.attacks import FGSM, PGD, Attack, Repeated, ball
from atmc_core.attacks.gradient import input_gradient
from atmc_core.data import DataSet
from atmc_core.model import Classifier

ATTACKS = {
    "fgsm linf": (FGSM(ball("linf", 0.1)), "linf", 0.1),
    "fgsm l2": (FGSM(ball("l2", 0.8)), "l2", 0.8),
    "pgd linf": (PGD(ball("linf", 0.1), 5, 0.03), "linf", 0.1),
    "pgd l2": (PGD(ball("l2", 0.8), 5, 0.3), "l2", 0.8),
    "pgd restarts": (PGD(ball("linf", 0.1), 3, 0.05).repeat(3), "linf", 0.1),
}


@pytest.fixture
def batch(digits: DataSet) -> tuple[Tensor, Tensor]:
    return digits.test.batch(slice(0, 200))


def _accuracy(model: Classifier, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


@pytest.mark.parametrize("name", ATTACKS)
def test_stays_in_the_ball_and_lowers_accuracy(
    name: str, digits_classifier: Classifier, batch: tuple[Tensor, Tensor]
) -> None:
    attack, norm, epsilon = ATTACKS[name]
    images, labels = batch
    before = images.clone()
    adversarial = attack.run(
        digits_classifier, images, labels, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(images, before)
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert ball(norm, epsilon).size(adversarial - images).max() <= epsilon + 1e-5
    clean = _accuracy(digits_classifier, images, labels)
    assert clean > 0.94
    assert _accuracy(digits_classifier, adversarial, labels) < clean - 0.2


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


def test_no_gradient_of_a_weight_is_left_behind(digits_classifier: Classifier) -> None:
    PGD(ball("linf", 0.1), 2, 0.1).run(
        digits_classifier, torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    )
    assert all(parameter.grad is None for parameter in digits_classifier.parameters())


def test_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="steps is 0"):
        PGD(ball("linf", 0.1), 0, 0.1)
    with pytest.raises(ValueError, match="step_size"):
        PGD(ball("linf", 0.1), 1, 0.0)
    with pytest.raises(ValueError, match="norm is 'l1'"):
        ball("l1", 0.1)
    with pytest.raises(ValueError, match="times is 0"):
        Repeated(FGSM(ball("linf", 0.1)), 0)
