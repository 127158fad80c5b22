"""Channels keep to the budget, and a stored network has fewer of them and the same outputs."""

import pytest
import torch

from atmc_core import artifact
from atmc_core.artifact import CompressedModel, float_state
from atmc_core.artifact.budget import stored
from atmc_core.factors.factors import NamedFactors
from atmc_core.factors.splitting import interpolative, plain
from atmc_core.factors.views import dense_weights
from atmc_core.networks.architectures import build, get_architecture
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.solver.support import Channels
from atmc_core.solver.weights import FactorizedWeights


def _nonzeros(factors: NamedFactors) -> int:
    return sum(int(t.count_nonzero()) for f in factors.values() for t in f.tensors)


@pytest.mark.parametrize(
    ("architecture", "density", "kind"),
    [
        ("digits_cnn", 0.1, "plain"),
        ("digits_cnn", 0.1, "factorised"),
        ("lenet", 0.02, "factorised"),
        ("resnet18", 0.05, "plain"),
    ],
)
def test_a_stored_network_has_fewer_channels_and_the_same_outputs(
    architecture: str, density: float, kind: str
) -> None:
    torch.manual_seed(0)
    shape = get_architecture(architecture).input_shape
    classifier = Classifier(build(architecture, 10), Normalization(), shape[0]).eval()
    network = classifier.network
    weights = dense_weights(network)
    factors = plain(weights) if kind == "plain" else interpolative(weights, 0.25)
    dense = sum(weight.numel() for weight, _ in weights.values())
    k = round(density * dense)
    structure = Channels(network)
    structure.shrink(factors, k)
    structure.silence(network)
    FactorizedWeights(classifier.network, factors)  # composes
    assert 0.5 * k < _nonzeros(factors) <= k
    model = CompressedModel(
        architecture=architecture,
        num_classes=10,
        normalization=Normalization(),
        factors=factors,
        others=float_state(network, factors),
        bits=32,
        k=k,
    )
    small = stored(model, structure)
    assert small.kept is not None
    assert _nonzeros(small.factors) == _nonzeros(factors)
    decoded = artifact.decode(artifact.encode(small))
    assert torch.equal(decoded.kept, small.kept)  # type: ignore[arg-type]
    assert decoded.nominal_ratio() == pytest.approx(_nonzeros(factors) / dense)
    compact = decoded.classifier()
    assert sum(p.numel() for p in compact.parameters()) < 3 * density * dense
    images = torch.rand(4, *shape)
    with torch.no_grad():
        expected = classifier(images)
        assert (compact(images) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_what_is_dropped_stays_away_and_choosing_again_changes_nothing() -> None:
    torch.manual_seed(0)
    network = build("digits_cnn", 10)
    factors = plain(dense_weights(network))
    structure = Channels(network)
    structure.shrink(factors, 8_000)
    first = structure.state_dict().clone()
    kept = {name: f.carried.clone() for name, f in factors.items()}
    structure.shrink(factors, 8_000)
    assert all(torch.equal(kept[name], f.carried) for name, f in factors.items())
    structure.shrink(factors, 38_160)
    assert torch.equal(structure.state_dict(), first)
    again = Channels(network)
    again.adopt(factors)
    assert torch.equal(again.state_dict(), first)


def test_each_layer_keeps_a_channel_and_no_class_is_lost() -> None:
    network = build("digits_cnn", 10)
    structure = Channels(network)
    # One channel a layer: 9 + 9 weights, 16 columns of fc1, one of fc2 for each of 10 classes.
    assert structure.least() == 9 + 9 + 16 + 10
    factors = plain(dense_weights(network))
    structure.shrink(factors, structure.least())
    assert _nonzeros(factors) == structure.least()
    assert (factors["fc2.weight"].compose() != 0).any(1).all()
