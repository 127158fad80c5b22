"""AutoAttack takes the worst of four, can be interrupted anywhere, and says what it cost."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from atmc_core.attacks import APGDT, AutoAttack, AutoAttackState, CountingModel, ball
from atmc_core.attacks.losses import dlr, margin, targeted_dlr
from tests.atmc_core.attacks.conftest import EPSILON

SMALL: dict[str, Any] = {"targets": 2, "steps": 6, "queries": 40, "batch_size": 40}


@pytest.fixture(params=["linf", "l2"])
def attack(request: pytest.FixtureRequest) -> AutoAttack:
    return AutoAttack(ball(request.param, EPSILON[request.param]), **SMALL)


@pytest.fixture
def few(attacked: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    images, labels = attacked
    return images[:90], labels[:90]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def _saved(state: AutoAttackState) -> bytes:
    file = io.BytesIO()
    torch.save(vars(state), file)
    return file.getvalue()


def _read(saved: bytes) -> AutoAttackState:
    return AutoAttackState(**torch.load(io.BytesIO(saved), weights_only=True))


def test_killed_between_batches_it_ends_with_the_same_images(
    attack: AutoAttack, robust_model: nn.Module, few: tuple[Tensor, Tensor]
) -> None:
    undisturbed = attack.begin(robust_model, *few, generator=_generator())
    saved = [_saved(undisturbed)]
    for state in attack.run_batches(robust_model, *few, undisturbed):
        saved.append(_saved(state))  # noqa: PERF401 (a state goes on changing)
    assert len(saved) > 7
    for snapshot in saved[::3]:
        resumed = _read(snapshot)
        for _ in attack.run_batches(robust_model, *few, resumed):
            pass
        assert torch.equal(resumed.adversarial, undisturbed.adversarial)
        assert resumed.survivors == undisturbed.survivors
        assert resumed.forward_images == undisturbed.forward_images
    assert torch.equal(
        attack.run(robust_model, *few, generator=_generator()), undisturbed.adversarial
    )


def test_survivors_fall_from_attack_to_attack_and_are_those_the_model_gets_right(
    attack: AutoAttack, robust_model: nn.Module, few: tuple[Tensor, Tensor]
) -> None:
    images, labels = few
    state = attack.begin(robust_model, images, labels, generator=_generator())
    for _ in attack.run_batches(robust_model, images, labels, state):
        pass
    assert list(state.survivors) == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]
    counts = list(state.survivors.values())
    assert counts == sorted(counts, reverse=True)
    right = robust_model(state.adversarial).argmax(1) == labels
    assert torch.equal(right, state.standing)
    assert int(right.sum()) == counts[-1]
    unmoved = (state.adversarial == images).flatten(1).all(1)
    assert torch.equal(unmoved[right], torch.ones(counts[-1], dtype=torch.bool))


def test_work_is_counted_and_falls_with_the_images(
    attack: AutoAttack, robust_model: nn.Module, few: tuple[Tensor, Tensor]
) -> None:
    images, labels = few
    counting = CountingModel(robust_model)
    state = attack.begin(counting, images, labels, generator=_generator())
    for _ in attack.run_batches(counting, images, labels, state):
        pass
    assert counting.forward_images == sum(state.forward_images.values())
    assert counting.backward_images == sum(state.backward_images.values())
    clean, standing = state.survivors["clean"], state.survivors["apgd-ce"]
    assert standing * 6 <= state.backward_images["apgd-ce"] < clean * 6
    assert state.backward_images["apgd-t"] <= standing * 6 * 2
    assert state.backward_images["square"] == 0
    assert 0 < state.forward_images["square"] <= state.survivors["fab-t"] * 41 + len(images)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_few_classes_are_attacked_with_the_losses_that_are_defined(classes: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, classes))
    images = torch.rand(80, 1, 8, 8)
    labels = model(images).argmax(1)
    adversarial = AutoAttack(ball("linf", 0.1), **SMALL).run(model, images, labels)
    targeted = APGDT(ball("linf", 0.1), steps=6).run(model, images, labels)
    assert (model(adversarial).argmax(1) == labels).float().mean() < 0.6
    assert (model(targeted).argmax(1) == labels).float().mean() < 0.8


def test_a_model_of_one_class_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    limits = ball("linf", 0.1)
    for attack in (AutoAttack(limits), *AutoAttack(limits).attacks().values()):
        with pytest.raises(ValueError, match="1 classes: it needs at least 2"):
            attack.run(model, torch.rand(2, 1, 8, 8), torch.zeros(2, dtype=torch.long))


def test_losses_are_those_of_the_papers() -> None:
    logits = torch.tensor([[4.0, 1.0, 3.0, 0.0], [1.0, 5.0, 2.0, 4.0]])
    labels, targets = torch.tensor([0, 2]), torch.tensor([2, 0])
    assert margin(logits, labels).tolist() == [-1, 3]
    assert dlr(logits, labels).tolist() == pytest.approx([-1 / 3, 3 / 3])
    assert targeted_dlr(logits, labels, targets).tolist() == pytest.approx([-1 / 3.5, -1 / 3.5])
    with pytest.raises(ValueError, match="2 classes: the dlr loss needs at least 3"):
        dlr(logits[:, :2], labels)
    with pytest.raises(ValueError, match="3 classes: the targeted dlr loss needs at least 4"):
        targeted_dlr(logits[:, :3], labels, targets)
