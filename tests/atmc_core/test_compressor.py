"""The compressor in a loop of one's own: its constraints, state, files, schedulers and errors."""

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_core import (
    PGD,
    Compressor,
    InvalidInput,
    adversarial_loss,
    compact,
    evaluate,
    load,
    register_architecture,
)
from atmc_core.factors.factors import NamedFactors
from atmc_core.factors.splitting import low_rank
from atmc_core.factors.views import dense_weights
from atmc_core.networks.architectures import ARCHITECTURES
from atmc_core.solver.support import Structure

IMAGES = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(32) % 10
STEPS = 12


class Mine(nn.Module):
    """Names that are not ours, a residual sum, a grouped convolution, a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8 * 16, 10)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.norm(self.stem(images)))
        features = F.relu(features + self.body(features))
        return self.scale * self.head(F.avg_pool2d(features, 2).flatten(1))


class Chain(nn.Sequential):
    """One whose channels can go."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 10),
        )


def _mine() -> Mine:
    torch.manual_seed(1)
    return Mine()


def _train(network: nn.Module, compressor: Compressor, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(network(IMAGES), LABELS)
        loss.backward()  # type: ignore[no-untyped-call]
        compressor.step()
        losses.append(float(loss.detach()))
    return losses


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _distinct(compressor: Compressor) -> int:
    tensors = [own.tensors[role] for own in compressor.factors.values() for role in own.used]
    return max(len(torch.unique(tensor[tensor != 0])) for tensor in tensors)


@pytest.mark.parametrize(("kind", "structure"), [(Mine, "element"), (Chain, "channel")])
@pytest.mark.parametrize("bits", [2, 16, 32])
def test_a_file_of_ones_own_network_is_the_network_that_was_trained(
    bits: int, kind: type[nn.Module], structure: Any, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    network = kind()
    compressor = Compressor(network, density=0.3, bits=bits, steps=STEPS, structure=structure)
    _train(network, compressor, STEPS)
    compressor.freeze()
    losses = _train(network, compressor, 10)
    assert losses[-1] < losses[0]
    assert 0 < compressor.nonzeros() <= compressor.k == round(0.3 * compressor.num_weights)
    assert bits > 8 or _distinct(compressor) <= 2**bits
    size = compressor.save(tmp_path / "small.atmc")
    assert size == (tmp_path / "small.atmc").stat().st_size < 4 * compressor.num_weights
    read = load(tmp_path / "small.atmc", network=kind())
    with torch.no_grad():
        torch.testing.assert_close(read(IMAGES), network.eval()(IMAGES), atol=1e-5, rtol=1e-4)
    if structure == "channel":
        assert _size(read) < 0.5 * _size(network)


def test_fewer_steps_than_announced_still_end_within_k() -> None:
    network = _mine()
    compressor = Compressor(network, k=50, bits=4, steps=1000)
    _train(network, compressor, 3)
    assert compressor.nonzeros() > 50
    compressor.freeze()
    assert compressor.nonzeros() <= 50


@pytest.mark.parametrize("when", [5, STEPS + 4])
def test_a_saved_state_goes_on_where_it_was(when: int) -> None:
    def steps(network: nn.Module, compressor: Compressor, first: int, last: int) -> None:
        for step in range(first, last):
            if step == STEPS:
                compressor.freeze()
            _train(network, compressor, 1)

    through, resumed = _mine(), _mine()
    whole = Compressor(through, density=0.2, bits=3, steps=STEPS)
    steps(through, whole, 0, STEPS + 8)
    first = Compressor(resumed, density=0.2, bits=3, steps=STEPS)
    steps(resumed, first, 0, when)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    network = Mine()  # of other weights
    second = Compressor(network, density=0.2, bits=3, steps=STEPS)
    second.load_state_dict(torch.load(file, weights_only=True))
    steps(network, second, when, STEPS + 8)
    for one, other in zip(
        through.state_dict().values(), network.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "optimizer",
    [None, torch.optim.AdamW, lambda tensors: torch.optim.RMSprop(tensors, lr=1e-3)],
)
def test_any_base_optimiser_trains(
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None,
) -> None:
    network = _mine()
    compressor = Compressor(network, density=0.5, bits=32, steps=20, optimizer=optimizer, lr=0.01)
    losses = _train(network, compressor, 20)
    assert losses[-1] < losses[0]


def test_torchs_schedulers_set_the_rate_in_both_phases() -> None:
    network = _mine()
    compressor = Compressor(network, density=0.5, bits=4, steps=4, lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(compressor, step_size=1, gamma=0.5)
    rates = []
    for step in range(6):
        if step == 4:
            compressor.freeze()
        _train(network, compressor, 1)
        schedule.step()
        rates += [group["lr"] for group in compressor.param_groups]
    assert rates == pytest.approx([0.1 * 0.5**step for step in range(1, 7)])
    whole = torch.optim.lr_scheduler.OneCycleLR(
        Compressor(_mine(), density=0.5, bits=4, steps=4), max_lr=0.1, total_steps=10
    )
    assert whole.get_last_lr() == [pytest.approx(0.1 / 25)]


def test_a_rate_of_zero_moves_nothing_and_one_above_does() -> None:
    network = _mine()
    compressor = Compressor(network, k=500, bits=32, steps=0)
    before = copy.deepcopy(network.state_dict())
    compressor.param_groups[0]["lr"] = 0.0
    _train(network.eval(), compressor, 1)
    kept = {name: torch.equal(tensor, before[name]) for name, tensor in network.named_parameters()}
    assert kept["head.bias"]
    compressor.param_groups[0]["lr"] = 0.1
    _train(network, compressor, 1)
    assert not torch.equal(network.head.bias, before["head.bias"])


def test_the_adversarial_loss_is_higher_and_leaves_the_mode_alone() -> None:
    network = _mine().eval()
    generator = torch.Generator().manual_seed(0)
    attack = PGD("linf", 0.2)
    mixed = adversarial_loss(network, IMAGES, LABELS, attack, generator=generator)
    clean = adversarial_loss(network, IMAGES, LABELS, attack, clean_weight=1.0)
    alone = adversarial_loss(network, IMAGES, LABELS, attack, clean_weight=0.0)
    assert not network.training
    clean, mixed, alone = (loss.detach() for loss in (clean, mixed, alone))
    assert float(clean) == pytest.approx(
        float(F.cross_entropy(network(IMAGES), LABELS).detach()), rel=1e-5
    )
    assert float(clean) < float(mixed) < float(alone)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        adversarial_loss(network, 2 * IMAGES, LABELS, attack)


def test_the_adversarial_loss_takes_a_teachers_probabilities_for_labels() -> None:
    network, attack = _mine().eval(), PGD("linf", 0.2)
    with torch.no_grad():
        taught = _mine().eval()(IMAGES).softmax(1)
    seeded = torch.Generator().manual_seed(0)
    found = adversarial_loss(network, IMAGES, taught, attack, clean_weight=0.0, generator=seeded)
    attacked = attack.run(network, IMAGES, taught, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, F.cross_entropy(network(attacked), taught))
    assert float(found) > float(F.cross_entropy(network(IMAGES), taught))


def test_an_evaluation_falls_with_the_radius_and_repeats() -> None:
    network = _mine()
    torch.manual_seed(0)
    compressor = Compressor(network, density=1.0, bits=32, steps=60)
    _train(network, compressor, 60)
    asked: Any = {"attacks": ["fgsm", "pgd"], "epsilons": [0.3, 0.02], "pgd_steps": 5}
    large, small = evaluate(network, IMAGES, LABELS, **asked)
    assert (large.epsilon, small.epsilon) == (0.3, 0.02)
    assert small.clean.value > 0.5
    assert large.robust.value < small.robust.value <= small.clean.value
    assert small.robust.value == small.right.float().mean()
    assert not (large.right & ~small.right).any()
    assert set(small.attacks) == {"fgsm", "pgd"}
    again = evaluate(network, IMAGES, LABELS, **asked)
    assert [torch.equal(a.right, b.right) for a, b in zip(again, (large, small), strict=True)]
    with pytest.raises(InvalidInput) as refused:
        evaluate(network, IMAGES, LABELS, attacks=["magic"], epsilons=[0.1])  # type: ignore[list-item]
    assert refused.value.param == "attacks.0"
    with pytest.raises(InvalidInput):
        evaluate(network, IMAGES, LABELS, epsilons=[0.1], pgd_stepz=5)


def test_where_nothing_stands_there_is_nothing_left_to_attack() -> None:
    network = _mine().eval()
    wrong = (network(IMAGES).argmax(1) + 1) % 10
    asked: Any = {"attacks": ["pgd", "autoattack"], "epsilons": [0.1, 0.2]}
    found = evaluate(network, IMAGES, wrong, **asked)
    assert [each.robust.value for each in found] == [0, 0]


def test_training_takes_a_step_at_least() -> None:
    with pytest.raises(ValueError, match="steps is 0"):
        PGD("linf", 0.1, steps=0)


@pytest.mark.parametrize("factor", [1e5, 1e-5])
def test_a_factor_on_the_logits_hides_nothing_from_the_attacks(factor: float) -> None:
    class Scaled(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor) -> Tensor:
            return factor * self.network(images)

    network = _mine()
    torch.manual_seed(0)
    _train(network, Compressor(network, density=1.0, bits=32, steps=60), 60)
    asked: Any = {"attacks": ["pgd"], "epsilons": [0.1], "pgd_steps": 5}
    (plain,), (scaled,) = (evaluate(n, IMAGES, LABELS, **asked) for n in (network, Scaled(network)))
    assert scaled.clean == plain.clean
    assert plain.robust.value < plain.clean.value - 0.2
    assert scaled.robust.value <= plain.robust.value + 1 / len(IMAGES)


def test_a_file_says_which_network_it_wants(tmp_path: Path) -> None:
    compressor = Compressor(_mine(), density=0.2, bits=4, steps=0)
    compressor.freeze()
    compressor.save(tmp_path / "small.atmc")
    with pytest.raises(InvalidInput, match="network=") as refused:
        load(tmp_path / "small.atmc")
    assert refused.value.param == "network"
    other = Mine()
    other.head = nn.Linear(8 * 16, 11)
    with pytest.raises(InvalidInput, match=r"head.weight is \[11, 128\]") as refused:
        load(tmp_path / "small.atmc", network=other)
    assert (refused.value.code, refused.value.param) == ("tensor_mismatch", "head.weight")


def test_a_name_of_ones_own_needs_no_network_to_read(tmp_path: Path) -> None:
    def named(num_classes: int) -> nn.Module:
        """A small one."""
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, num_classes)
        )

    register_architecture("named", named, (1, 8, 8))
    try:
        with pytest.raises(ValueError, match="taken"):
            register_architecture("named", named, (1, 8, 8))
        network = named(10)
        compressor = Compressor(network, density=0.4, bits=5, steps=0)
        compressor.freeze()
        compressor.save(tmp_path / "named.atmc", architecture="named")
        with torch.no_grad():
            read = load(tmp_path / "named.atmc")
            torch.testing.assert_close(read(IMAGES), network.eval()(IMAGES))
        with pytest.raises(InvalidInput, match="leave network out"):
            load(tmp_path / "named.atmc", network=network)
        with pytest.raises(ValueError, match=r"no lenet|is missing"):
            compressor.save(tmp_path / "other.atmc", architecture="lenet")
    finally:
        del ARCHITECTURES["named"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "one of density and k"),
        ({"density": 0.1, "k": 5}, "one of density and k"),
        ({"density": 0.0}, "density is 0.0"),
        ({"k": 10**9}, "k is 1000000000"),
        ({"k": 5, "bits": 9}, "bits is 9"),
        ({"k": 5, "steps": -1}, "steps is -1"),
        ({"k": 5, "steps": 2.5}, "steps is 2.5"),
        ({"k": 5.5}, "k is 5.5"),
        ({"k": 5, "structure": "chanel"}, "structure is 'chanel': it must be one of element"),
        ({"k": 5, "importance": "lmp"}, "importance is 'lmp'"),
        ({"k": 5, "density_schedule": "cubik"}, "density_schedule is 'cubik'"),
        ({"k": 5, "lr": 0.0}, "lr is 0.0"),
        ({"k": 5, "shrink_fraction": 2.0}, "shrink_fraction is 2.0"),
    ],
)
def test_a_number_out_of_range_is_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Compressor(_mine(), **{"bits": 4, "steps": 1} | arguments)


def test_a_network_that_cannot_be_compressed_is_refused() -> None:
    with pytest.raises(ValueError, match="no convolution"):
        Compressor(nn.Flatten(), k=1, bits=4, steps=1)
    with pytest.raises(ValueError, match="float64"):
        Compressor(_mine().double(), k=1, bits=4, steps=1)
    fixed = _mine()
    fixed.stem.weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"stem\.weight needs no gradient"):
        Compressor(fixed, k=1, bits=4, steps=1)


BARE: dict[str, Callable[[], nn.Module]] = {
    "one layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)),
    "the layer itself": lambda: nn.Sequential(nn.Linear(64, 10, bias=False))[0],
    "two convolutions": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 10, 6, bias=False),
        nn.Flatten(),
    ),
    "a frozen bias": lambda: nn.Sequential(nn.Flatten(), frozen(nn.Linear(64, 10), "bias")),
    "one weight": lambda: nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(1, 1, bias=False)),
    "zeros": lambda: nn.Sequential(nn.Flatten(), zeros(nn.Linear(64, 10, bias=False))),
}


def frozen(layer: nn.Linear, name: str) -> nn.Linear:
    layer.get_parameter(name).requires_grad_(False)
    return layer


def zeros(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    return layer


@pytest.mark.parametrize("kind", BARE)
@pytest.mark.parametrize("structure", ["element", "channel"])
@pytest.mark.parametrize(
    ("bits", "steps", "factorize"), [(32, 0, True), (16, 2, True), (4, 2, False), (1, 2, True)]
)
def test_a_network_without_biases_and_norms_is_compressed(
    kind: str, structure: Any, bits: Any, steps: int, factorize: bool, tmp_path: Path
) -> None:
    network = BARE[kind]()
    images = IMAGES.flatten(1) if isinstance(network, nn.Linear) else IMAGES
    compressor = Compressor(
        network, density=1.0, bits=bits, steps=steps, structure=structure, factorize=factorize
    )

    def step() -> None:
        network(images).square().mean().backward()
        compressor.step()

    for _ in range(steps):
        step()
    compressor.freeze()
    step()
    assert compressor.nonzeros() <= compressor.k
    compressor.load_state_dict(compressor.state_dict())
    compressor.save(tmp_path / "model.atmc")
    again = load(tmp_path / "model.atmc", network=BARE[kind]())
    with torch.no_grad():
        assert torch.allclose(again(images), network(images), atol=1e-5)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (nn.Flatten(), "no convolution"),
        (nn.LayerNorm(64), "no convolution"),
        (nn.Conv1d(1, 1, 1), "no convolution"),
        (nn.Sequential(frozen(nn.Linear(4, 2), "weight")), "0.weight needs no gradient"),
        (nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 0)), r"1.weight is empty, \[0, 2\]"),
    ],
)
def test_a_network_with_nothing_to_compress_is_refused(network: nn.Module, said: str) -> None:
    for structure in ("element", "channel"):
        with pytest.raises(ValueError, match=said):
            Compressor(network, density=1.0, bits=4, steps=1, structure=structure)  # type: ignore[arg-type]


def test_what_comes_in_the_wrong_order_is_refused(tmp_path: Path) -> None:
    compressor = Compressor(_mine(), k=50, bits=4, steps=1)
    with pytest.raises(ValueError, match="backward"):
        compressor.step()
    with pytest.raises(ValueError, match="freeze"):
        compressor.save(tmp_path / "early.atmc")
    compressor.freeze()
    with pytest.raises(ValueError, match="before freeze"):
        compressor.aim_at(40)


def test_the_end_game_begins_once_and_at_once_where_no_steps_come_before_it() -> None:
    network = _mine()
    compressor = Compressor(network, k=50, bits=4, steps=0)
    assert compressor.frozen
    assert compressor.nonzeros() <= 50
    _train(network, compressor, 2)
    optimizer = compressor.weights.optimizer
    compressor.freeze()
    assert compressor.weights.optimizer is optimizer


def test_k_can_change_on_the_way() -> None:
    network = _mine()
    compressor = Compressor(network, k=50, bits=32, steps=4, density_schedule="none")
    _train(network, compressor, 1)
    assert 40 < compressor.nonzeros() <= 50
    compressor.aim_at(40)
    assert 30 < compressor.nonzeros() <= 40
    with pytest.raises(ValueError, match="k is 0"):
        compressor.aim_at(0)


def test_the_feasible_weights_are_known_once_k_is_reached() -> None:
    network = _mine()
    compressor = Compressor(network, k=100, bits=2, steps=4, shrink_fraction=0.5)
    assert compressor.feasible_weights() is None
    _train(network, compressor, 4)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    feasible = compressor.feasible_weights()
    assert feasible is not None
    assert set(feasible) == set(compressor.factors)
    assert any(not torch.equal(weight, before[name]) for name, weight in feasible.items())
    compressor.freeze()
    assert compressor.feasible_weights() == {}


def test_factors_of_another_split_are_the_start() -> None:
    network = _mine()
    start = low_rank(dense_weights(network), 400)
    expected = {name: own.compose().clone() for name, own in start.items()}
    compressor = Compressor(network, k=400, bits=32, steps=1, factors=start)
    for name, weight in expected.items():
        assert torch.equal(network.get_parameter(name), weight)
    _train(network, compressor, 1)
    compressor.freeze()
    assert compressor.nonzeros() <= 400


def test_a_structure_of_ones_own_says_what_stays() -> None:
    class Early(Structure):
        """Keeps the first k entries."""

        def shrink(self, factors: NamedFactors, k: int, scratch: Tensor | None = None) -> None:
            for own in factors.values():
                for role in own.used:
                    flat = own.tensors[role].view(-1)
                    flat[k:] = 0
                    k = max(0, k - len(flat))

    network = _mine()
    compressor = Compressor(
        network, k=20, bits=32, steps=2, structure=Early(), factorize=False, shrink_fraction=0
    )
    _train(network, compressor, 2)
    first = next(iter(compressor.factors.values()))
    assert first.carried.view(-1)[:20].all()
    assert compressor.nonzeros() == 20


def test_a_compact_copy_gives_the_same_outputs() -> None:
    network = Chain()
    compressor = Compressor(network, density=0.2, bits=8, steps=STEPS, structure="channel")
    _train(network, compressor, STEPS)
    small = compact(network)
    assert _size(small) < 0.5 * _size(network)
    with torch.no_grad():
        torch.testing.assert_close(small(IMAGES), network.eval()(IMAGES), atol=1e-5, rtol=1e-4)
