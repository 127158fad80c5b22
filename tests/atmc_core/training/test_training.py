"""The training step's losses, schedules and averages each do what their papers say."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_core.attacks import ball
from atmc_core.factors.pool import used_tensors
from atmc_core.factors.splitting import plain
from atmc_core.factors.views import dense_weights
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.solver.admm import AdmmOptions, AdmmWeights
from atmc_core.solver.optimizer import sgd
from atmc_core.solver.shared import SharedWeights
from atmc_core.solver.weights import DenseWeights
from atmc_core.training.averaging import WeightAverage, equal, exponential
from atmc_core.training.step import PAPERS_MIX, Step
from atmc_core.training.trades import DivergencePGD, TradesLoss, divergence
from atmc_core.training.trainer import adversarial_step, scheduled


@pytest.fixture
def classifier() -> Classifier:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 16, 3),
    )
    return Classifier(network, Normalization(), channels=1)


IMAGES, LABELS = (
    torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)),
    torch.arange(8) % 3,
)


def test_the_mix_is_half_clean_half_adversarial() -> None:
    logits = torch.randn(16, 3)
    clean, adversarial = (F.cross_entropy(part, LABELS) for part in logits.chunk(2))
    torch.testing.assert_close(PAPERS_MIX(logits, LABELS), 0.5 * clean + 0.5 * adversarial)
    torch.testing.assert_close(PAPERS_MIX(logits[:8], LABELS), clean)


def test_trades_is_clean_loss_plus_beta_divergence() -> None:
    logits = torch.randn(16, 3)
    clean, adversarial = logits.chunk(2)
    p, q = clean.softmax(1), adversarial.softmax(1)
    expected = F.cross_entropy(clean, LABELS) + 5 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(TradesLoss(5)(logits, LABELS), expected)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.5)])
def test_the_attack_of_trades_raises_the_divergence_within_the_ball(
    norm: str, epsilon: float, classifier: Classifier
) -> None:
    model = classifier.eval()
    generator = torch.Generator().manual_seed(0)
    threat = ball(norm, epsilon)
    clean = model(IMAGES).log_softmax(1).detach()

    def reached(steps: int) -> Tensor:
        attack = DivergencePGD(threat, steps, 2.5 * epsilon / steps)
        found = attack.run(model, IMAGES, LABELS, generator=generator)
        assert (threat.size(found - IMAGES) <= epsilon * (1 + 1e-5)).all()
        assert found.min() >= 0
        assert found.max() <= 1
        return divergence(model(found), clean).detach()

    random = divergence(model(threat.random(IMAGES, generator)), clean).detach()
    assert (reached(10) > 2 * random).all()


def test_schedules_rise_first_and_fall_as_they_are_called() -> None:
    steps = 100
    for schedule in ("cosine", "step"):
        rates = [scheduled(schedule, step, steps, 1.0) for step in range(steps)]  # type: ignore[arg-type]
        assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
        assert rates[5:] == sorted(rates[5:], reverse=True)
    assert scheduled("cosine", 99, steps, 1.0) < 1e-3
    stepped = [scheduled("step", step, steps, 1.0) for step in (49, 50, 74, 75, 99)]
    assert stepped == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])


def _step(classifier: Classifier, net: DenseWeights | AdmmWeights | SharedWeights) -> None:
    adversarial_step(net, Step(classifier, None), IMAGES, LABELS, 0.1, torch.Generator())


def test_a_gradient_is_no_longer_than_it_may_be(classifier: Classifier) -> None:
    def moved(most: float) -> float:
        own = copy.deepcopy(classifier)
        net = DenseWeights(own.network, sgd(momentum=0, weight_decay=0))
        before = nn.utils.parameters_to_vector(own.parameters()).detach().clone()
        step = Step(own, None)
        adversarial_step(net, step, IMAGES, LABELS, 0.5, torch.Generator(), most)
        after = nn.utils.parameters_to_vector(own.parameters()).detach()
        return float((after - before).norm()) / 0.5

    free = moved(math.inf)
    assert moved(2 * free) == free
    assert moved(free / 10) == pytest.approx(free / 10, rel=1e-3)


def test_an_average_is_of_all_that_training_moves(classifier: Classifier) -> None:
    net = DenseWeights(classifier.network)
    average = WeightAverage(net, exponential(decay=0.5))
    kept = [tensor.detach().clone() for tensor in net.averaged()]
    for _ in range(30):
        _step(classifier, net)
        average.update()
        # From the ninth step on the decay is the one that is asked for.
        weight = 1 - min(0.5, average.steps / (average.steps + 9))
        kept = [a.lerp(t.detach(), weight) for a, t in zip(kept, net.averaged(), strict=True)]
    own = [tensor.detach().clone() for tensor in net.averaged()]
    assert len(own) == 6 + 2
    with average.applied():
        for inside, expected in zip(net.averaged(), kept, strict=True):
            torch.testing.assert_close(inside.detach(), expected)
    assert all(torch.equal(a, b) for a, b in zip(own, net.averaged(), strict=True))


def test_an_equal_average_is_the_mean_of_the_last_steps(classifier: Classifier) -> None:
    net = DenseWeights(classifier.network)
    average = WeightAverage(net, equal(start=2))
    passed = []
    for _ in range(6):
        _step(classifier, net)
        average.update()
        passed.append([tensor.detach().clone() for tensor in net.averaged()])
    with average.applied():
        for inside, *steps in zip(net.averaged(), *passed[2:], strict=True):
            torch.testing.assert_close(inside.detach(), torch.stack(steps).mean(0))


@pytest.mark.parametrize("bits", [2, 16, 32])
def test_an_average_keeps_both_constraints(bits: int, classifier: Classifier) -> None:
    k = 60
    network, options = classifier.network, AdmmOptions(density_schedule="none", dual_interval=2)
    factors = plain(dense_weights(classifier.network))
    moving = AdmmWeights(network, factors, k=k, bits=bits, steps=9, options=options)
    average = WeightAverage(moving, exponential(decay=0.9))
    for _ in range(9):
        _step(classifier, moving)
        average.update()
    with average.applied():
        assert sum(int(t.count_nonzero()) for t in used_tensors(moving.factors)) <= k
        weights = moving.feasible_weights()
        assert bool(weights) == (bits == 2)
        if bits == 2:
            assert all(len(torch.unique(w[w != 0])) <= 4 for w in weights.values())
    shared = SharedWeights(network, moving.factors, bits=bits)
    average = WeightAverage(shared, equal(start=3))
    for _ in range(9):
        _step(classifier, shared)
        average.update()
    with average.applied():
        tensors = used_tensors(shared.factors)
        assert sum(int(t.count_nonzero()) for t in tensors) <= k
        if bits == 2:
            assert all(len(torch.unique(t[t != 0])) <= 4 for t in tensors)
        if bits == 16:
            assert all(torch.equal(t, t.half().float()) for t in tensors)


@pytest.mark.parametrize(
    ("schedule", "budgets"),
    [
        ("cubic", [228, 131, 81, 63, 60, 60]),
        ("linear", [228, 186, 144, 102, 60, 60]),
        ("none", [60] * 6),
    ],
)
def test_the_budget_shrinks_as_its_schedule_says(
    schedule: str, budgets: list[int], classifier: Classifier
) -> None:
    options = AdmmOptions(density_schedule=schedule, shrink_fraction=0.4)  # type: ignore[arg-type]
    factors = plain(dense_weights(classifier.network))
    net = AdmmWeights(classifier.network, factors, k=60, bits=32, steps=10, options=options)
    seen = []
    for step in range(6):
        net.steps_done = step
        seen.append(net.budget())
    assert seen == budgets
