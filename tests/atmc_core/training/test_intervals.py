"""Training for proof: the worst logits are bounds, the radius grows, and proofs come of it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from atmc_core.attacks import PGD, ball
from atmc_core.certification import certify
from atmc_core.data import Split
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.solver.optimizer import adam
from atmc_core.solver.weights import DenseWeights
from atmc_core.training.intervals import IntervalSchedule, IntervalStep, proven_share
from atmc_core.training.trainer import Trainer, TrainerOptions

SHAPE = (1, 6, 6)


@pytest.fixture
def split() -> Split:
    """Images whose class is the brightest third."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 3
    images = torch.randint(0, 60, (240, *SHAPE), generator=generator, dtype=torch.uint8)
    for label in range(3):
        images[labels == label, :, 2 * label : 2 * label + 2] += 150
    return Split(images, labels)


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )
    return Classifier(network, Normalization((0.4,), (0.5,)), channels=1)


def test_the_radius_grows_between_its_two_ends() -> None:
    full, growing = IntervalSchedule(0.3, 0.25), IntervalSchedule(0.3, 0.25).growing()
    assert full.share(0.0) == 1.0
    shares = [growing.share(progress / 20) for progress in range(21)]
    assert shares[0] == shares[1] == 0.0
    assert shares[10:] == [1.0] * 11
    assert shares == sorted(shares)
    assert 0 < growing.share(0.25) < 0.5


def test_without_a_radius_the_loss_is_that_of_the_clean_images(
    classifier: Classifier, split: Split
) -> None:
    images, labels = split.batch(torch.arange(64))
    own = copy.deepcopy(classifier)
    step = IntervalStep(classifier, IntervalSchedule(0.2, 0.25).growing(), SHAPE)
    step.at(0.0)
    loss = step.gradients(images, labels, None)
    torch.testing.assert_close(loss, F.cross_entropy(own.train()(images), labels).detach())


def test_the_loss_bounds_that_of_every_attack(classifier: Classifier, split: Split) -> None:
    images, labels = split.batch(torch.arange(64))
    attack = PGD(ball("linf", 0.05), 20, 0.01)
    (norm,) = (each for each in classifier.modules() if isinstance(each, nn.BatchNorm2d))
    norm.momentum = 1.0  # the running statistics are those of the batch then, but for its variance
    step = IntervalStep(classifier, IntervalSchedule(0.05, 0.0), SHAPE)
    bound = step.gradients(images, labels, None)
    assert norm.running_var is not None
    norm.running_var *= 1 - 1 / (64 * 4 * 4)
    model = classifier.eval()
    found = attack.run(model, images, labels, generator=torch.Generator().manual_seed(0))
    assert bound >= F.cross_entropy(model(found), labels).detach()


def test_bounds_see_the_normalisation_of_the_clean_images(
    classifier: Classifier, split: Split
) -> None:
    images, labels = split.batch(torch.arange(64))
    own = copy.deepcopy(classifier)
    # A ball without width has the clean images' loss, and the same gradients, in which the
    # statistics of the batch have a part.
    loss = IntervalStep(classifier, IntervalSchedule(0.0, 0.0), SHAPE).gradients(
        images, labels, None
    )
    clean = F.cross_entropy(own.train()(images), labels)
    clean.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, clean.detach())
    for ours, theirs in zip(classifier.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert not any(module._forward_hooks for module in classifier.modules())


@pytest.mark.parametrize("normed", [True, False])
def test_a_trained_network_is_proven(normed: bool, classifier: Classifier, split: Split) -> None:
    if not normed:
        classifier.network[1] = nn.Identity()  # type: ignore[index]
    epsilon = 0.1
    before = proven_share(classifier, {}, split, epsilon, 100)
    options = TrainerOptions(
        attack=None,
        loss=None,  # type: ignore[arg-type]
        schedule="cosine",
        batch_size=40,
        epochs=12,
        peak_rate=0.02,
        stream=(0, 1),
        intervals=IntervalSchedule(epsilon, 0.25).growing(),
    )
    trainer = Trainer(classifier, DenseWeights(classifier.network, adam(0.02)), split, options)
    for epoch in range(12):
        trainer.run_epoch(epoch)
    after = proven_share(classifier, {}, split, epsilon, 100)
    assert before < 0.2
    assert after > 0.8
    # Selection is in float32, certificates in float64.
    images, labels = split.batch(torch.arange(len(split)))
    found = certify(classifier.eval(), images, labels, epsilon, method="ibp")
    assert float(found.proven.float().mean()) == pytest.approx(after, abs=0.02)
    blank = {name: torch.zeros_like(t) for name, t in classifier.network.named_parameters()}
    assert proven_share(classifier, blank, split, epsilon, 100) < 0.4
