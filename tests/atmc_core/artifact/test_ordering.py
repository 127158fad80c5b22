"""The order of hidden units: the same function in fewer bytes."""

import pytest
import torch
from torch import Tensor, nn

from atmc_core import artifact
from atmc_core.artifact import CompressedModel, float_state
from atmc_core.artifact.ordering import ordered, ordered_others
from atmc_core.factors.factors import Factors
from atmc_core.factors.views import compressible_weights
from atmc_core.networks.architectures import build
from atmc_core.networks.classifier import Normalization
from atmc_core.solver.rounding import rounded
from atmc_spec.names import SmallTensorBits


class Residual(nn.Module):
    """A residual sum, a depthwise and a grouped convolution, and a linear layer behind maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 24, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.inner = nn.Conv2d(24, 20, 1)
        self.depth = nn.Conv2d(20, 20, 3, padding=1, groups=20)
        self.outer = nn.Conv2d(20, 24, 1)
        self.last = nn.Conv2d(24, 6, 3)
        self.grouped = nn.Conv2d(6, 18, 1, groups=2)
        self.hidden = nn.Linear(18 * 4, 40)
        self.head = nn.Linear(40, 3)
        for tensor in self.norm.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.stem(images)).relu()
        x = x + self.outer(self.depth(self.inner(x).relu()))
        x = self.grouped(self.last(x.relu())).relu()
        return self.head(self.hidden(x.flatten(1)).relu())


def _sparse(network: nn.Module, **fields: object) -> CompressedModel:
    """The network with random sparse factors of eight values, and biases as they are."""
    generator = torch.Generator().manual_seed(0)
    views = compressible_weights(network)
    factors = {}
    for name, view in views.items():
        parts = []
        for shape in view.factor_shapes:
            values = (torch.randint(-4, 4, shape, generator=generator) + 0.5) / 8
            parts.append(values * (torch.rand(shape, generator=generator) < 0.2))
        factors[name] = Factors(view, *parts)
    others = float_state(network, views)
    return CompressedModel(
        normalization=Normalization(), factors=factors, others=others, bits=3, k=10**6, **fields
    )  # type: ignore[arg-type]


def _own() -> CompressedModel:
    torch.manual_seed(0)
    network = Residual().eval()
    return _sparse(network, architecture="own", num_classes=0, module=network)


def test_the_network_computes_the_same_and_its_biases_rise() -> None:
    model = _own()
    sorted_ = ordered(model)
    images = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = model.network()(images), sorted_.network()(images)
    assert before.abs().max() > 0.5
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-4)
    steps = {name: tensor.diff() for name, tensor in sorted_.others.items()}
    rising = {name for name, each in steps.items() if bool((each >= 0).all() & each.any())}
    # The channels around a grouped convolution, and the logits, stay where they are.
    assert rising == {"norm.weight", "inner.bias", "hidden.bias"}
    for name in ("last.bias", "grouped.bias", "head.bias"):
        assert torch.equal(sorted_.others[name], model.others[name])
    assert sorted_.nonzeros() == model.nonzeros()
    for name, tensor in ordered_others(model).items():
        assert torch.equal(tensor, sorted_.others[name])
    again = ordered(sorted_)
    for name, own in again.factors.items():
        for one, other in zip(own.tensors, sorted_.factors[name].tensors, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(("bits", "saved"), [(32, 420), (16, 380), (8, 250)])
def test_the_order_of_lenet_s_units_is_worth_its_bits(bits: SmallTensorBits, saved: int) -> None:
    torch.manual_seed(0)
    model = _sparse(build("lenet", 10), architecture="lenet", num_classes=10)
    biases = {
        name: rounded(name, torch.randn_like(tensor), bits) for name, tensor in model.others.items()
    }
    model = CompressedModel(**{**vars(model), "others": biases})
    sorted_ = ordered(model)
    content = artifact.encode(sorted_)
    # log2 n! of 20, 50 and 500 units are 506 bytes, of which equal numbers have none.
    assert len(artifact.encode(model)) - len(content) > saved
    loaded = artifact.decode(content)
    for name, tensor in sorted_.others.items():
        assert torch.equal(loaded.others[name], tensor)
    for name, own in sorted_.factors.items():
        for one, other in zip(own.tensors, loaded.factors[name].tensors, strict=True):
            assert torch.equal(one, other)


def test_a_network_that_cannot_be_traced_stays_as_it_is() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).relu() if x.sum() > 0 else self.first(x))

    network = Branching()
    model = _sparse(network, architecture="own", num_classes=0, module=network)
    assert ordered(model) is model
