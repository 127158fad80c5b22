"""A training step's gradients, in each precision, and recorded as a graph on a GPU."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from atmc_core.attacks import PGD, ball
from atmc_core.networks.classifier import Classifier, Normalization, frozen_model
from atmc_core.solver.weights import DenseWeights
from atmc_core.training.step import MixedLoss, RecordedStep, Speed, Step, make_step
from atmc_core.training.trades import DivergencePGD, TradesLoss
from atmc_core.training.trainer import adversarial_step

IMAGES = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 4
BALL = ball("linf", 0.1)


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 4),
    )
    return Classifier(network, Normalization((0.5,) * 3, (0.25,) * 3), channels=3)


def _gradients(classifier: Classifier, step: Step) -> list[Tensor]:
    device = next(classifier.parameters()).device
    generator = torch.Generator(device).manual_seed(3)
    step.gradients(IMAGES.to(device), LABELS.to(device), generator)
    found = [p.grad.cpu() for p in classifier.parameters() if p.grad is not None]
    classifier.zero_grad(set_to_none=True)
    return found


def _distance(one: list[Tensor], other: list[Tensor]) -> float:
    pairs = list(zip(one, other, strict=True))
    return float(sum((a - b).square().sum() for a, b in pairs) / sum(a.square().sum() for a in one))


def test_bfloat16_changes_gradients_by_rounding_only(classifier: Classifier) -> None:
    attack = PGD(BALL, 3, 0.04)
    plain = _gradients(classifier, Step(classifier, attack))
    rounded = _gradients(classifier, Step(classifier, attack, speed=Speed(bfloat16=True)))
    assert all(gradient.dtype == torch.float32 for gradient in rounded)
    assert 0 < _distance(plain, rounded) < 0.05


def test_a_frozen_model_shares_the_norms_statistics(classifier: Classifier) -> None:
    frozen = frozen_model(classifier.eval())
    before = frozen(IMAGES)
    classifier.train()(3 * IMAGES)
    assert (frozen(IMAGES) - before).abs().max() > 1e-3
    torch.testing.assert_close(frozen(IMAGES), classifier.eval()(IMAGES))


def test_a_cpu_runs_the_plain_step(classifier: Classifier) -> None:
    assert type(make_step(classifier, None)) is Step


@pytest.fixture
def rounded_products() -> Iterator[None]:
    """Products as a recorded step has them: PGD's steps are signs, which rounding may turn."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("rounded_products")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestRecorded:
    @pytest.mark.parametrize(
        ("attack", "loss"),
        [
            (None, MixedLoss()),
            (PGD(BALL, 3, 0.04), MixedLoss(0.25)),
            (PGD(BALL, 3, 0.04), MixedLoss(0)),
            (PGD(ball("l2", 0.5), 3, 0.2), MixedLoss()),
            (DivergencePGD(BALL, 3, 0.04), TradesLoss(6)),
        ],
    )
    def test_gives_the_plain_steps_gradients_and_statistics(
        self, attack: PGD | None, loss: MixedLoss | TradesLoss, classifier: Classifier
    ) -> None:
        plain, recorded = classifier.cuda(), copy.deepcopy(classifier).cuda()
        step = RecordedStep(recorded, attack, loss)
        expected = Step(plain, attack, loss)
        for _ in range(3):
            assert _distance(_gradients(plain, expected), _gradients(recorded, step)) < 1e-4
        for one, other in zip(plain.buffers(), recorded.buffers(), strict=True):
            torch.testing.assert_close(one, other)

    def test_follows_the_parameters_as_they_are_trained(self, classifier: Classifier) -> None:
        losses = []
        for kind in (Step, RecordedStep):
            own = copy.deepcopy(classifier).cuda()
            net, generator = DenseWeights(own.network), torch.Generator("cuda").manual_seed(1)
            step = kind(own, PGD(BALL, 3, 0.04))
            images, labels = IMAGES.cuda(), LABELS.cuda()
            losses.append(
                [
                    float(adversarial_step(net, step, images, labels, 0.05, generator))
                    for _ in range(10)
                ]
            )
        assert losses[0][-1] < losses[0][0]
        assert losses[1] == pytest.approx(losses[0], rel=1e-2)

    def test_runs_another_batch_size_too(self, classifier: Classifier) -> None:
        step = RecordedStep(classifier.cuda(), PGD(BALL, 2, 0.05))
        generator = torch.Generator("cuda").manual_seed(1)
        for count in (16, 5):
            loss = step.gradients(IMAGES[:count].cuda(), LABELS[:count].cuda(), generator)
            assert torch.isfinite(loss)
