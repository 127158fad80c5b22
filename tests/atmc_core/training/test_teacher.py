"""The compressed network learns what its teacher, the dense one, says of the clean images."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_core.attacks import PGD, ball
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.solver.weights import DenseWeights
from atmc_core.training.step import MixedLoss, Step, StepLoss
from atmc_core.training.teacher import Teacher
from atmc_core.training.trades import TradesLoss
from atmc_core.training.trainer import adversarial_step

IMAGES = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 3
TAUGHT = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
ATTACK = PGD(ball("linf", 0.1), 2, 0.1)


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    return Classifier(network, Normalization(), channels=1)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_label_is_part_truth_and_part_what_the_teacher_says(weight: float) -> None:
    found = Teacher(lambda images: TAUGHT, weight).labels(IMAGES, LABELS)
    truth = torch.eye(3)[LABELS]
    torch.testing.assert_close(found, (1 - weight) * truth + weight * TAUGHT.softmax(1))


@pytest.mark.parametrize("loss", [MixedLoss(), MixedLoss(0), MixedLoss(0.9), TradesLoss(6)])
def test_without_weight_a_teacher_changes_no_gradient(
    loss: StepLoss, classifier: Classifier
) -> None:
    def gradients(teacher: Teacher | None) -> list[Tensor]:
        own = copy.deepcopy(classifier)
        step = Step(own, ATTACK, loss, teacher=teacher)
        step.gradients(IMAGES, LABELS, torch.Generator().manual_seed(0))
        return [p.grad for p in own.parameters() if p.grad is not None]

    plain, silent = gradients(None), gradients(Teacher(lambda images: TAUGHT, 0.0))
    for one, other in zip(plain, silent, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    heard = gradients(Teacher(lambda images: TAUGHT, 0.5))
    assert not torch.allclose(plain[0], heard[0], rtol=1e-2)


def test_the_attack_climbs_what_the_step_learns(classifier: Classifier) -> None:
    attacked: list[Tensor] = []

    class Watched(PGD):
        def run_from(self, points: Tensor, model: object, images: Tensor, labels: Tensor) -> Tensor:
            attacked.append(labels)
            return super().run_from(points, model, images, labels)  # type: ignore[arg-type]

    attack = Watched(ATTACK.ball, ATTACK.steps, ATTACK.step_size)
    step = Step(classifier, attack, MixedLoss(0), teacher=Teacher(lambda images: TAUGHT))
    loss = step.gradients(IMAGES, LABELS, torch.Generator().manual_seed(0))
    assert torch.equal(attacked[0], TAUGHT.softmax(1))
    # No labels can be learned better than by their own entropy.
    wanted = TAUGHT.softmax(1)
    assert loss >= F.cross_entropy(TAUGHT, wanted)


def test_a_teacher_stays_as_it_is_while_its_pupil_is_trained(classifier: Classifier) -> None:
    dense = copy.deepcopy(classifier.network.state_dict())
    with torch.no_grad():
        classifier.network[1].weight.zero_()  # type: ignore[index]
    teacher = Teacher.copied(classifier, dense, 1.0)
    before = teacher.model(IMAGES)
    assert (classifier.eval()(IMAGES) - before).abs().max() > 0.01
    step = Step(classifier, ATTACK, MixedLoss(0), teacher=teacher)
    net, generator = DenseWeights(classifier.network), torch.Generator().manual_seed(0)
    least = F.cross_entropy(before, before.softmax(1))
    losses = [
        float(adversarial_step(net, step, IMAGES, LABELS, 0.1, generator) - least)
        for _ in range(100)
    ]
    assert losses[-1] < losses[0] / 2
    assert torch.equal(teacher.model(IMAGES), before)
