"""The compressed network learns what its teacher, the dense one, says of the clean images."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_core.attacks import PGD, ball
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.solver.weights import DenseWeights
from atmc_core.training.distillation import DistilledLoss, as_teacher
from atmc_core.training.step import MixedLoss, Step, StepLoss
from atmc_core.training.trades import TradesLoss
from atmc_core.training.trainer import adversarial_step

IMAGES = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 3
TEACHES = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))


def _teacher(images: Tensor) -> Tensor:
    assert images is IMAGES
    return TEACHES


def _classifier() -> Classifier:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    return Classifier(network, Normalization(), channels=1)


@pytest.mark.parametrize("loss", [MixedLoss(), MixedLoss(0), TradesLoss(6)])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_divergence_has_its_share_of_the_loss(loss: StepLoss, weight: float) -> None:
    clean, attacked = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(2))
    logits = torch.cat([clean, attacked]) if loss.on_clean else attacked
    wanted, found = TEACHES.softmax(1), attacked.softmax(1)
    distance = (wanted * (wanted / found).log()).sum(1).mean()
    own = loss(logits, LABELS, IMAGES)
    distilled = DistilledLoss(loss, _teacher, weight)
    torch.testing.assert_close(
        distilled(logits, LABELS, IMAGES), (1 - weight) * own + weight * distance
    )


def test_clean_training_learns_the_teachers_clean_outputs() -> None:
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(2))
    distilled = DistilledLoss(MixedLoss(), _teacher, 1.0)
    expected = F.kl_div(logits.log_softmax(1), TEACHES.softmax(1), reduction="batchmean")
    torch.testing.assert_close(distilled(logits, LABELS, IMAGES), expected)


def test_a_teacher_stays_as_it_is_while_its_pupil_is_trained() -> None:
    torch.manual_seed(0)
    classifier = _classifier()
    dense = copy.deepcopy(classifier.network.state_dict())
    with torch.no_grad():
        classifier.network[1].weight.zero_()  # type: ignore[index]
    teacher = as_teacher(classifier, dense)
    before = teacher(IMAGES)
    assert (classifier.eval()(IMAGES) - before).abs().max() > 0.01
    step = Step(
        classifier, PGD(ball("linf", 0.1), 2, 0.1), DistilledLoss(MixedLoss(0), teacher, 1.0)
    )
    net, generator = DenseWeights(classifier.network), torch.Generator().manual_seed(0)
    losses = [float(adversarial_step(net, step, IMAGES, LABELS, 0.1, generator)) for _ in range(30)]
    assert losses[-1] < losses[0] / 2
    assert torch.equal(teacher(IMAGES), before)
