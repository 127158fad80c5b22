"""Networks without their dead channels are smaller and have the same outputs."""

import pytest
import torch
from torch import Tensor, nn

from atmc_core.networks.architectures import build, get_architecture
from atmc_core.networks.channels import Norm, channel_graph
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.removal import compact


def _lively(network: nn.Module) -> None:
    """Give norms and biases values that tell mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Norm):
                for tensor in (module.weight, module.bias, module.running_mean):
                    assert tensor is not None
                    tensor.copy_(0.3 + 0.3 * torch.randn(tensor.shape, generator=generator))
            elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                module.bias.copy_(0.1 * torch.randn(module.bias.shape, generator=generator))


def _classifier(architecture: str) -> Classifier:
    torch.manual_seed(0)
    network = build(architecture, 10)
    _lively(network)
    channels = get_architecture(architecture).input_shape[0]
    return Classifier(network, Normalization(), channels).eval()


def _kill_rows(network: nn.Module, share: float) -> None:
    """Zero rows of every weight but the last, each with its bias left as it is."""
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in layers[:-1]:
            layer.weight[torch.rand(len(layer.weight), generator=generator) < share] = 0


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _compared(classifier: Classifier, shape: tuple[int, ...]) -> tuple[Classifier, Tensor]:
    """The compact classifier, and the largest difference of its outputs, relative."""
    small = compact(classifier)
    images = torch.rand(4, *shape)
    with torch.no_grad():
        before, after = classifier(images), small(images)
    return small, (before - after).abs().max() / before.abs().max()


@pytest.mark.parametrize(
    "architecture",
    [
        "lenet",
        "digits_cnn",
        "small_cnn",
        "clipped_cnn",
        "normed_clipped_cnn",
        "resnet18",
        "wide_resnet_16_8",
    ],
)
def test_dead_rows_go_and_outputs_stay(architecture: str) -> None:
    classifier = _classifier(architecture)
    _kill_rows(classifier.network, 0.6)
    before = _size(classifier.network)
    small, difference = _compared(classifier, get_architecture(architecture).input_shape)
    assert difference < 1e-5
    assert _size(small.network) < 0.85 * before
    assert _size(classifier.network) == before


def test_a_dense_network_keeps_all() -> None:
    classifier = _classifier("digits_cnn")
    small, difference = _compared(classifier, (1, 8, 8))
    assert difference == 0
    assert _size(small.network) == _size(classifier.network)


def _convs(padding: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, padding=padding),
        nn.Flatten(),
        nn.Linear(5 * (4 + 2 * padding) ** 2, 3),
    )


def _first(small: Classifier) -> int:
    return len(next(small.network.parameters()))


@pytest.mark.parametrize(("padding", "bias", "left"), [(0, 1.0, 3), (1, 1.0, 4), (1, -1.0, 3)])
def test_a_constant_folds_unless_a_border_would_show(padding: int, bias: float, left: int) -> None:
    network = _convs(padding)
    with torch.no_grad():
        network[0].weight[2] = 0
        network[0].bias[2] = bias
    small, difference = _compared(Classifier(network, Normalization(), 1).eval(), (1, 8, 8))
    assert difference < 1e-5
    assert _first(small) == left


def test_a_channel_that_nobody_reads_goes_with_what_it_alone_reads() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )
    with torch.no_grad():
        network[5].weight.view(3, 4, 16)[:, 1] = 0
        network[2].weight[:, 3] = 0
        network[2].weight[1, 3] = 1
    small, difference = _compared(Classifier(network, Normalization(), 1).eval(), (1, 8, 8))
    assert difference < 1e-5
    assert [len(p) for p in small.network.parameters() if p.ndim > 1] == [3, 3, 3]


def test_a_layer_that_is_all_dead_keeps_one_channel() -> None:
    network = _convs(0)
    with torch.no_grad():
        network[0].weight.zero_()
    small, difference = _compared(Classifier(network, Normalization(), 1).eval(), (1, 8, 8))
    assert difference < 1e-5
    assert _first(small) == 1


class _Separable(nn.Module):
    """A depthwise convolution in a residual block, with a grouped one after it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        y = self.pointwise(self.depthwise(x))
        x = torch.cat([self.grouped(torch.relu(y)), x], 1)[:, :8] + y
        return self.head(torch.flatten(x.mean((2, 3)), 1))


def test_depthwise_channels_go_with_their_inputs_and_the_unknown_stays() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
        nn.Conv2d(6, 4, 1),
        nn.Flatten(),
        nn.Linear(4 * 64, 3),
    )
    with torch.no_grad():
        network[3].weight[[1, 4]] = 0
    small, difference = _compared(Classifier(network, Normalization(), 1).eval(), (1, 8, 8))
    assert difference < 1e-5
    assert [tuple(m.weight.shape) for m in small.network if isinstance(m, nn.Conv2d)] == [
        (4, 1, 3, 3),
        (4, 1, 3, 3),
        (4, 4, 1, 1),
    ]
    torch.manual_seed(0)
    strange = _Separable()
    _lively(strange)
    with torch.no_grad():
        strange.stem.weight[:4] = 0
        strange.pointwise.weight[2:6] = 0
    _, difference = _compared(Classifier(strange, Normalization(), 1).eval(), (1, 8, 8))
    assert difference < 1e-5


class _Rows(nn.Module):
    """A norm after a linear layer normalises its channels, or the rows if there are three axes."""

    def __init__(self, flat: bool) -> None:
        super().__init__()
        self.flat = flat
        self.first, self.norm = nn.Linear(16 if flat else 4, 4), nn.BatchNorm1d(4)
        self.second, self.last = nn.Linear(4, 4), nn.Linear(4 if flat else 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1) if self.flat else x[:, 0]
        return self.last(self.second(torch.relu(self.norm(self.first(x)))).flatten(1))


@pytest.mark.parametrize(("flat", "left"), [(True, 3), (False, 4)])
def test_a_norm_of_features_is_cut_with_them(flat: bool, left: int) -> None:
    torch.manual_seed(0)
    network = _Rows(flat)
    _lively(network)
    with torch.no_grad():
        network.first.weight[1] = 0
    small, difference = _compared(Classifier(network, Normalization(), 1).eval(), (1, 4, 4))
    assert difference < 1e-5
    assert _first(small) == left


class _Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)) if x.sum() > 0 else self.linear(-x.flatten(1))


def test_a_network_that_cannot_be_traced_comes_back_as_it_is() -> None:
    classifier = Classifier(_Branching(), Normalization(), 1).eval()
    assert channel_graph(classifier.network) is None
    _, difference = _compared(classifier, (1, 2, 2))
    assert difference == 0
