"""Each attack finds what foolbox's or its authors' code finds on the same model and images."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import eagerpy as ep
import foolbox
import pytest
import torch
from pyautoattack.autoattack import AutoAttack as PublishedAutoAttack
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

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
from tests.atmc_core.attacks.conftest import EPSILON

ONE_POINT = 0.01
PEER_NORMS = {"linf": "Linf", "l2": "L2"}

Images = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Budget:
    """What both sides may spend; the defaults are AutoAttack's."""

    steps: int = 100
    targets: int = 9
    queries: int = 5000


QUICK = Budget(steps=25, targets=2, queries=150)


def _foolbox(attack: foolbox.attacks.base.Attack) -> Callable[..., Tensor]:
    def run(model: nn.Module, images: Tensor, labels: Tensor, ball: Ball, _: Budget) -> Tensor:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        return attack(wrapped, images, labels, epsilons=ball.epsilon)[1]

    return run


def _authors(name: str) -> Callable[..., Tensor]:
    def run(model: nn.Module, images: Tensor, labels: Tensor, ball: Ball, spent: Budget) -> Tensor:
        common = {"eps": ball.epsilon, "norm": PEER_NORMS[ball.norm], "seed": 0, "device": "cpu"}
        targeted = {"n_target_classes": spent.targets, "n_iter": spent.steps}
        peer = {
            "apgd-ce": lambda: APGDAttack(model, n_iter=spent.steps, **common),
            "apgd-dlr": lambda: APGDAttack(model, n_iter=spent.steps, loss="dlr", **common),
            "apgd-t": lambda: APGDAttack_targeted(model, **targeted, **common),
            "fab-t": lambda: FABAttack_PT(model, targeted=True, **targeted, **common),
            "square": lambda: SquareAttack(
                model, n_queries=spent.queries, resc_schedule=False, **common
            ),
        }[name]()
        adversarial: Tensor = peer.perturb(images, labels)
        return adversarial

    return run


def _foolbox_pgd(norm: str) -> foolbox.attacks.base.Attack:
    kind = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    return kind(abs_stepsize=EPSILON[norm] / 8, steps=40)


def _with_loss(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[str], Callable[..., Tensor]]:
    """foolbox's PGD, climbing another loss than cross-entropy."""

    def make(norm: str) -> Callable[..., Tensor]:
        attack = _foolbox_pgd(norm)

        def get_loss_fn(model: Any, labels: ep.Tensor) -> Callable[[ep.Tensor], ep.Tensor]:
            return lambda inputs: ep.astensor(loss(model(inputs).raw, labels.raw).sum())

        attack.get_loss_fn = get_loss_fn
        return _foolbox(attack)

    return make


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Carlini and Wagner's, written another way than ours."""
    first, second = logits.topk(2).values.unbind(1)
    true = logits[torch.arange(len(labels)), labels]
    return torch.where(true == first, second, first) - true


def _authors_dlr(logits: Tensor, labels: Tensor) -> Tensor:
    return APGDAttack.dlr_loss(None, logits, labels)


def _foolbox_fgsm(norm: str) -> foolbox.attacks.base.Attack:
    return {"linf": foolbox.attacks.FGSM, "l2": foolbox.attacks.FGM}[norm]()


ATTACKS: dict[str, tuple[Callable[[Ball, Budget], Attack], Callable[[str], Callable[..., Tensor]]]]
ATTACKS = {
    "fgsm": (lambda ball, _: FGSM(ball), lambda norm: _foolbox(_foolbox_fgsm(norm))),
    "pgd": (
        lambda ball, _: PGD(ball, 40, ball.epsilon / 8),
        lambda norm: _foolbox(_foolbox_pgd(norm)),
    ),
    "pgd-cw": (lambda ball, _: PGD(ball, 40, ball.epsilon / 8, loss="cw"), _with_loss(_margin)),
    "pgd-dlr": (
        lambda ball, _: PGD(ball, 40, ball.epsilon / 8, loss="dlr"),
        _with_loss(_authors_dlr),
    ),
    "apgd-ce": (lambda ball, b: APGD(ball, steps=b.steps), lambda _: _authors("apgd-ce")),
    "apgd-dlr": (
        lambda ball, b: APGD(ball, steps=b.steps, loss="dlr"),
        lambda _: _authors("apgd-dlr"),
    ),
    "apgd-t": (
        lambda ball, b: APGDT(ball, steps=b.steps, targets=b.targets),
        lambda _: _authors("apgd-t"),
    ),
    "fab-t": (
        lambda ball, b: FABT(ball, steps=b.steps, targets=b.targets),
        lambda _: _authors("fab-t"),
    ),
    "square": (lambda ball, b: Square(ball, queries=b.queries), lambda _: _authors("square")),
}


def _accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def _compare(
    name: str, norm: str, budget: Budget, model: nn.Module, attacked: Images
) -> tuple[float, float]:
    images, labels = attacked
    limits = ball(norm, EPSILON[norm])
    make, make_peer = ATTACKS[name]
    generator = torch.Generator().manual_seed(0)
    ours = make(limits, budget).run(model, images, labels, generator=generator)
    theirs = make_peer(norm)(model, images, labels, limits, budget)
    assert limits.size(ours - images).max() <= limits.epsilon + 1e-5
    return _accuracy(model, ours, labels), _accuracy(model, theirs, labels)


@pytest.mark.parametrize("norm", EPSILON)
@pytest.mark.parametrize("name", ATTACKS)
def test_robust_accuracy_is_the_peers_within_a_point(
    name: str, norm: str, robust_model: nn.Module, attacked: Images
) -> None:
    ours, theirs = _compare(name, norm, QUICK, robust_model, attacked)
    assert 0.4 < ours < _accuracy(robust_model, *attacked) - 0.05
    assert abs(ours - theirs) <= ONE_POINT


def test_wrm_climbs_the_lagrangian_as_it_is_written(
    robust_model: nn.Module, attacked: Images
) -> None:
    images, labels = (part[:64] for part in attacked)
    expected = images.clone()
    for step in range(15):
        expected.requires_grad_()
        loss = nn.functional.cross_entropy(robust_model(expected), labels, reduction="sum")
        lagrangian = 1.3 * loss - 0.5 * (expected - images).square().sum()
        (slope,) = torch.autograd.grad(lagrangian, expected)
        expected = (expected.detach() + slope / math.sqrt(step + 1)).clamp(0, 1)
    ours = WRM(gamma=1.3, steps=15).run(robust_model, images, labels)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("norm", EPSILON)
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", "fab-t", "square"])
def test_so_it_is_with_the_published_budgets(
    name: str, norm: str, robust_model: nn.Module, attacked: Images
) -> None:
    ours, theirs = _compare(name, norm, Budget(), robust_model, attacked)
    assert abs(ours - theirs) <= ONE_POINT


@pytest.mark.slow
@pytest.mark.parametrize("norm", EPSILON)
def test_the_ensemble_is_not_weaker_than_the_authors(
    norm: str, robust_model: nn.Module, attacked: Images
) -> None:
    images, labels = attacked
    limits = ball(norm, EPSILON[norm])
    adversarial = AutoAttack(limits).run(
        robust_model, images, labels, generator=torch.Generator().manual_seed(0)
    )
    peer = PublishedAutoAttack(robust_model, eps=limits.epsilon, norm=PEER_NORMS[norm], seed=0)
    theirs = _accuracy(robust_model, peer.run_standard_evaluation(images, labels)[0], labels)
    half_interval = 1.96 * math.sqrt(theirs * (1 - theirs) / len(labels))
    assert _accuracy(robust_model, adversarial, labels) <= theirs + half_interval
