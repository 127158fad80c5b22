"""The way back without zeros is the way back."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from atmc_core.certification import Program, certify, sparse
from atmc_core.certification.bounds import intervals, least

SHAPE = (4, 7, 6)
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Conv2d(4, 6, 3),
    "padded and strided": lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2)),
    "dilated": lambda: nn.Conv2d(4, 6, 2, dilation=(3, 2), padding=1),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2, padding=2),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, groups=4),
    "kernel that reads nothing but padding": lambda: nn.Conv2d(4, 6, 1, padding=2, stride=9),
}


def _sparse(module: nn.Module, share: float) -> None:
    with torch.no_grad():
        for weight in module.parameters():
            if weight.ndim > 1:
                weight.mul_(torch.rand_like(weight) < share)


def _network(layer: nn.Module, share: float) -> nn.Module:
    width = layer(torch.zeros(1, *SHAPE)).numel()
    network = nn.Sequential(layer, nn.ReLU(), nn.Flatten(), nn.Linear(width, 3))
    _sparse(network, share)
    return network


def _bound(network: nn.Module) -> Tensor:
    program = Program.of(network, SHAPE)
    images = torch.rand(2, *SHAPE, dtype=torch.float64)
    boxes = intervals(program, (images, images + 0.1))
    wanted = torch.randn(5, 2, 3, dtype=torch.float64)
    return least(program, boxes, wanted)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_gives_the_same_bounds_as_dense_weights(
    layer: Callable[[], nn.Module], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = _network(layer(), share)
    found = []
    for limit in (2.0, -1.0):  # always, never
        monkeypatch.setattr(sparse, "_CONVOLUTION", limit)
        monkeypatch.setattr(sparse, "_PRODUCT", limit)
        torch.manual_seed(1)
        found.append(_bound(network))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)


def test_zeros_are_left_out_where_there_are_enough() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 4, 3, 3)
    geometry = (SHAPE, (6, 5, 4), (1, 1), (0, 0), (1, 1), 1)
    assert sparse.convolution(weight, *geometry) is None
    assert sparse.product(weight.flatten(1)) is None
    weight = weight * (torch.rand_like(weight) < 0.1)
    assert sparse.convolution(weight, *geometry) is not None
    assert sparse.product(weight.flatten(1)) is not None
    assert sparse.product(weight.flatten(1).requires_grad_()) is None, "it is being trained"


def test_a_network_without_weights_is_proven_by_its_biases() -> None:
    network = _network(nn.Conv2d(4, 6, 3), 0.0)
    with torch.no_grad():
        network[3].bias.copy_(torch.tensor([0.0, 1.0, 0.5]))  # type: ignore[operator, union-attr]
    images = torch.rand(3, *SHAPE)
    assert certify(network, images, torch.tensor([1, 1, 0]), 0.5).proven.tolist() == [
        True,
        True,
        False,
    ]
