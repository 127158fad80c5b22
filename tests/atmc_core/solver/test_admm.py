"""ADMM and the end game make both constraints hold exactly, on every kind of layer."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from atmc_core.attacks import PGD, ball
from atmc_core.factors.factors import Factors
from atmc_core.factors.pool import used_tensors
from atmc_core.factors.splitting import interpolative
from atmc_core.factors.views import dense_weights
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.solver import admm as compression
from atmc_core.solver.admm import AdmmOptions, AdmmWeights
from atmc_core.solver.optimizer import adam, sgd
from atmc_core.solver.projection import Quantized
from atmc_core.solver.rounding import rounded
from atmc_core.solver.shared import SharedWeights
from atmc_core.solver.support import Structure
from atmc_core.solver.weights import FactorizedWeights
from atmc_core.training.step import Step
from atmc_core.training.trainer import adversarial_step
from atmc_reader.values import Kind, kind_of
from atmc_spec.names import Importance, SmallTensorBits

OPTIONS = AdmmOptions(shrink_fraction=0.5, dual_interval=2)
PLAIN_SGD = sgd(momentum=0, weight_decay=0)


def _factors(classifier: Classifier, rank_fraction: float) -> dict[str, Factors]:
    return interpolative(dense_weights(classifier.network), rank_fraction)


def _mixed_network() -> nn.Module:
    """Plain, grouped, depthwise and pointwise convolutions, wide and tall linears, batch norms."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.Conv2d(8, 16, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 80),
        nn.ReLU(),
        nn.Linear(80, 10),
    )


def _train(classifier: Classifier, net: AdmmWeights | SharedWeights, steps: int) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(16, 1, 8, 8), torch.arange(16) % 10
    step = Step(classifier, PGD(ball("linf", 0.05), 2, 0.03))
    return [
        float(adversarial_step(net, step, images, labels, 0.02, generator)) for _ in range(steps)
    ]


def _nonzeros(net: FactorizedWeights) -> int:
    return sum(int(tensor.count_nonzero()) for tensor in used_tensors(net.factors))


def _most_distinct(net: FactorizedWeights) -> int:
    return max(len(torch.unique(tensor[tensor != 0])) for tensor in used_tensors(net.factors))


@pytest.fixture
def classifier() -> Classifier:
    return Classifier(_mixed_network(), Normalization(), channels=1)


def test_factorising_changes_no_output(classifier: Classifier) -> None:
    images = torch.rand(4, 1, 8, 8)
    classifier.eval()
    with torch.no_grad():
        before = classifier(images)
        factors = _factors(classifier, 0.25)
        for weight, _ in dense_weights(classifier.network).values():
            weight.zero_()  # so that only the factors can bring the outputs back
        FactorizedWeights(classifier.network, factors)
        after = classifier(images)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bits", [1, 4, 8, 16, 32])
def test_both_constraints_hold_to_the_end(classifier: Classifier, bits: int) -> None:
    factors = _factors(classifier, 0.25)
    k, steps = 300, 12
    network = classifier.network
    admm = AdmmWeights(network, factors, k=k, bits=bits, steps=steps, options=OPTIONS)
    dense = _nonzeros(admm)
    _train(classifier, admm, 3)
    assert k < _nonzeros(admm) < dense
    _train(classifier, admm, steps - 3)
    assert admm.at_target
    assert 0.9 * k < _nonzeros(admm) <= k

    shared = SharedWeights(network, admm.factors, bits=bits)
    values = shared.values.clone()
    losses = _train(classifier, shared, 20)
    assert losses[-1] < losses[0]
    assert (values != shared.values).any()
    assert _nonzeros(shared) <= k
    if bits <= 8:
        assert _most_distinct(shared) <= 2**bits
    if bits == 16:
        assert all(torch.equal(t, t.half().float()) for t in used_tensors(shared.factors))


@pytest.mark.parametrize("small_tensor_bits", [16, 8])
@pytest.mark.parametrize("bits", [2, 32])
def test_small_tensors_are_trained_as_they_are_stored(
    bits: int, small_tensor_bits: SmallTensorBits, classifier: Classifier
) -> None:
    factors = _factors(classifier, 0.25)
    shared = SharedWeights(
        classifier.network, factors, bits=bits, small_tensor_bits=small_tensor_bits
    )
    before = [tensor.clone() for tensor in shared.free]
    losses = _train(classifier, shared, 20)
    assert losses[-1] < losses[0]
    for name, shown, free, old in zip(
        shared.other_names, shared.others, shared.free, before, strict=True
    ):
        assert torch.equal(shown, rounded(name, free, small_tensor_bits)), name
        assert (free != old).any()
        assert (shown != free).any()
    if bits == 2:
        assert all(torch.equal(t, t.half().float()) for t in used_tensors(shared.factors))
        assert _most_distinct(shared) <= 4
    state = copy.deepcopy(shared.state_dict())
    shown = [tensor.clone() for tensor in shared.others]
    _train(classifier, shared, 2)
    shared.load_state_dict(state)
    shared.refresh()
    assert all(map(torch.equal, shown, shared.others))


@given(
    st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=1),
    st.sampled_from([8, 16, 32]),
    st.sampled_from(["fc.bias", "bn.weight", "bn.running_var"]),
)
def test_what_is_rounded_stays_and_is_near(
    numbers: list[float], bits: SmallTensorBits, name: str
) -> None:
    tensor = torch.tensor(numbers)
    found = rounded(name, tensor, bits)
    assert torch.equal(rounded(name, found, bits), found)
    if bits == 8 and name == "fc.bias":
        # The step is at most 1/63 of the largest, so half a step is what is lost.
        limit = tensor.abs().max() / 127 + 2.0**-100
        assert (found - tensor).abs().max() <= limit
        assert kind_of(found.numpy(), [len(numbers)]) is Kind.GRID


def test_the_codebook_penalty_pulls_towards_few_values(classifier: Classifier) -> None:
    def distance(rho: float) -> float:
        torch.manual_seed(0)
        classifier = Classifier(_mixed_network(), Normalization(), channels=1)
        network, factors = classifier.network, _factors(classifier, 0.25)
        options = AdmmOptions(shrink_fraction=0, dual_interval=2, rho=rho)
        net = AdmmWeights(network, factors, k=800, bits=2, steps=60, options=options)
        _train(classifier, net, 60)
        shared = SharedWeights(network, _copied(net), bits=2)
        pairs = zip(used_tensors(net.factors), used_tensors(shared.factors), strict=True)
        return sum(float((a - b).detach().square().sum()) for a, b in pairs)

    assert distance(rho=1.0) < 0.8 * distance(rho=1e-6)


def test_adam_leaves_the_penalty_as_small_as_it_is(classifier: Classifier) -> None:
    options = AdmmOptions(shrink_fraction=0, rho=0.5)
    net = AdmmWeights(
        classifier.network,
        _factors(classifier, 0.25),
        k=10**6,
        bits=4,
        steps=10,
        options=options,
        optimizer=adam(),
    )
    for parameter in classifier.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before, anchor = net.pool.flat.detach().clone(), net.anchor.clone()
    net.update(0.01)
    torch.testing.assert_close(net.pool.flat.detach(), before.lerp(anchor, 0.01 * 0.5))


def _copied(net: AdmmWeights) -> dict[str, Factors]:
    return {
        name: dataclasses.replace(f, u=f.u.clone(), v=f.v.clone(), c=f.c.clone())
        for name, f in net.factors.items()
    }


def test_a_shared_value_moves_by_the_mean_gradient_of_its_entries() -> None:
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), Normalization(), 1)
    factors = {name: own.whole() for name, own in _factors(classifier, 1.0).items()}
    (only,) = factors.values()
    only.u.zero_()
    only.c.zero_()
    only.v.copy_(torch.tensor([[[1.0, 1.0, 2.0, 0.0], [2.0, 0.0, 0.0, 1.0]]]))
    net = SharedWeights(classifier.network, factors, bits=1, optimizer=PLAIN_SGD)
    (weight,) = net.composed.values()
    weight.grad = torch.tensor([[3.0, 6.0, 1.0, 9.0], [2.0, 9.0, 9.0, 0.0]])
    net.update(0.1)
    expected: Tensor = torch.tensor([1 - 0.1 * (3 + 6 + 0) / 3, 2 - 0.1 * (1 + 2) / 2])
    torch.testing.assert_close(net.values, expected)
    torch.testing.assert_close(
        only.v.detach()[0, 0], torch.tensor([expected[0], expected[0], expected[1], 0.0])
    )


@pytest.mark.parametrize("rank_fraction", [0.05, 0.25])
def test_a_step_of_the_factors_gains_what_one_of_w_itself_would(rank_fraction: float) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(30, 20)
    classifier = Classifier(nn.Sequential(nn.Flatten(), linear), Normalization(), 1)
    factors = _factors(classifier, rank_fraction)
    net = AdmmWeights(classifier.network, factors, k=10**6, bits=32, steps=100, optimizer=PLAIN_SGD)
    (weight,) = net.composed.values()
    before, gradient = weight.detach().clone(), torch.randn_like(weight)
    weight.grad = gradient.clone()
    rate = 1e-4
    net.update(rate)
    gained = float(((before - weight.detach()) * gradient).sum())
    assert gained == pytest.approx(rate * float(gradient.square().sum()), rel=0.1)


@pytest.mark.parametrize("importance", ["lamp", "magnitude"])
def test_an_update_waits_for_no_device(
    classifier: Classifier, importance: Importance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands on the meta device has no values, so whatever asks for one fails."""
    classifier.to("meta")
    factors = _factors(classifier, 0.25)
    # Values are asked for once, at the start; and the fused optimiser does not know this device.
    monkeypatch.setattr(Tensor, "count_nonzero", lambda tensor: tensor.numel())
    monkeypatch.setattr(
        compression, "quantize", lambda tensor, bits: Quantized(tensor, tensor.new_zeros(2**bits))
    )
    net = AdmmWeights(
        classifier.network,
        factors,
        k=300,
        bits=3,
        steps=20,
        options=OPTIONS,
        optimizer=torch.optim.SGD,
        structure=Structure(importance),
    )
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="meta"):
        net.pool.flat.sum().item()
    for _ in range(2 * OPTIONS.dual_interval):
        for parameter in classifier.parameters():
            parameter.grad = torch.empty_like(parameter)
        net.update(0.1)
