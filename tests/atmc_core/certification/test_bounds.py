"""Bounds hold at every point of a box, for each operation that has a rule."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_core.certification import Certifier, NotProvable, Program
from atmc_core.certification.bounds import intervals, least, optimised, refined
from atmc_core.certification.steps import Box

SHAPE = (2, 6, 6)
# Bounds are computed in float64, and so are the points they are compared with.
ROUNDING = 1e-9


class Does(nn.Module):
    """A network of a convolution, an operation and a linear layer."""

    def __init__(self, operation: Callable[[Tensor], Tensor] | nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3)
        self.operation = operation
        with torch.no_grad():
            width = operation(torch.zeros(2, 4, 4, 4)).flatten(1).shape[1]
        self.last = nn.Linear(width, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.operation(3 * self.first(images))
        return self.last(F.leaky_relu(maps, 0.2).flatten(1))  # type: ignore[no-any-return]


def _norm() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            assert tensor is not None
            tensor.normal_()
        assert norm.running_var is not None
        norm.running_var.uniform_(0.5, 2)
    return norm


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        inner = F.relu(self.inner(maps), inplace=True)
        inner += maps
        return F.relu(inner, inplace=True)


OPERATIONS: dict[str, Callable[[], Any]] = {
    **{
        each.__name__: each
        for each in (
            nn.ReLU,
            nn.ReLU6,
            nn.LeakyReLU,
            nn.ELU,
            nn.CELU,
            nn.SELU,
            nn.GELU,
            nn.SiLU,
            nn.Mish,
            nn.Sigmoid,
            nn.Tanh,
            nn.Softplus,
            nn.Hardswish,
            nn.Hardsigmoid,
            nn.Hardtanh,
            nn.Identity,
            nn.Dropout,
            Residual,
        )
    },
    "GELU of tanh": lambda: nn.GELU("tanh"),
    "ELU with alpha": lambda: nn.ELU(0.3),
    "softplus with beta": lambda: nn.Softplus(4, 2),
    "PReLU": lambda: nn.PReLU(4, 0.3),
    "negative slope": lambda: nn.LeakyReLU(-0.5),
    "batch norm": _norm,
    "grouped": lambda: nn.Conv2d(4, 8, 3, groups=2, padding=1),
    "dilated": lambda: nn.Conv2d(4, 3, 2, dilation=2),
    "strided": lambda: nn.Conv2d(4, 3, 3, stride=2, padding=1, bias=False),
    "transposed": lambda: nn.ConvTranspose2d(4, 3, 3, stride=2),
    "max pooling": lambda: nn.MaxPool2d(2),
    "overlapping max pooling": lambda: nn.MaxPool2d(3, 2, 1),
    "average pooling": lambda: nn.AvgPool2d(2, padding=1),
    "adaptive average": lambda: nn.AdaptiveAvgPool2d((3, 1)),
    "adaptive max": lambda: nn.AdaptiveMaxPool2d(3),
    "mean": lambda: lambda x: x.mean((2, 3)),
    "sum": lambda: lambda x: x.sum(1, keepdim=True),
    "amax": lambda: lambda x: x.amax((1, 3)),
    "max over an axis": lambda: lambda x: x.max(2).values,
    "maximum": lambda: lambda x: torch.maximum(x, 1 - 2 * x),
    "abs": lambda: torch.abs,
    "clamp": lambda: lambda x: x.clamp(-0.5, 0.25),
    "concatenation": lambda: lambda x: torch.cat([x, F.relu(x), x], 1),
    "slices": lambda: lambda x: x[:, 1:3, ::2, 1] - x[:, :2, 1::2, 0],
    "chunks": lambda: lambda x: x.chunk(2, 1)[0] - 2 * x.chunk(2, 1)[1],
    "permutation": lambda: lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 8),
    "arithmetic": lambda: lambda x: (1 - x) * 2 - (x + 0.5) / -3 + (-x),
    "padding": lambda: lambda x: F.pad(x, (1, 0, 2, 1), value=0.5),
    "reflection": lambda: lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "nearest": lambda: nn.Upsample(scale_factor=2),
    "bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
}


def _box(count: int, radius: float, seed: int = 0) -> Box:
    images = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed)).double()
    return (images - radius).clamp_min(0), (images + radius).clamp_max(1)


def _points(box: Box, count: int = 40) -> list[Tensor]:
    """Points of a box, its corners among them."""
    low, high = box
    generator = torch.Generator().manual_seed(1)
    shares = [torch.rand(low.shape, generator=generator) for _ in range(count)]
    shares += [share.round() for share in shares]
    return [low + (high - low) * share.double() for share in shares]


def _check(network: nn.Module, box: Box) -> None:
    """Check every kind of bound at points of the box."""
    program = Program.of(network, SHAPE)
    network = network.double()
    count = len(box[0])
    wanted = torch.eye(3).double()[:, None].expand(3, count, 3)
    wanted = torch.cat([wanted, -wanted, wanted.roll(1, 0) - wanted])
    plain, fine = intervals(program, box), refined(program, box)
    bounds = {
        "last": least(program, plain, wanted, to_images=False),
        "lines on intervals": least(program, plain, wanted),
        "lines": least(program, fine, wanted),
        "optimised": optimised(program, fine, wanted, 5),
    }
    assert (bounds["optimised"] >= bounds["lines"]).all()
    for points in _points(box):
        with torch.no_grad():
            logits = network(points)
        torch.testing.assert_close(program.run(points), logits)
        values = [points]
        for placed in program.steps:
            values.append(placed.step.run(*(values[i] for i in placed.inputs)))
        for value, coarse, tight in zip(values, plain, fine, strict=True):
            for low, high in (coarse, tight):
                assert (value >= low - ROUNDING).all()
                assert (value <= high + ROUNDING).all()
        found = (wanted * logits).sum(2)
        for name, bound in bounds.items():
            assert (found >= bound - ROUNDING).all(), name


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("radius", [0.02, 0.3])
def test_bounds_hold_at_every_point(name: str, radius: float) -> None:
    torch.manual_seed(0)
    _check(Does(OPERATIONS[name]()).eval(), _box(4, radius))


@given(
    seed=st.integers(0, 10_000),
    radius=st.floats(0.001, 0.5),
    depth=st.integers(1, 4),
    scale=st.floats(0.1, 5),
)
@settings(max_examples=25, deadline=None)
def test_bounds_of_random_networks_hold(seed: int, radius: float, depth: int, scale: float) -> None:
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(72, 8)]
    for _ in range(depth):
        layers += [nn.ReLU(), nn.Linear(8, 8)]
    network = nn.Sequential(*layers, nn.LeakyReLU(0.1), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= scale
    _check(network, _box(3, radius, seed))


def test_bounds_of_a_linear_network_are_exact() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 3)
    ).eval()
    box = _box(4, 0.1)
    program = Program.of(network, SHAPE)
    wanted = torch.eye(3).double()[:, None].expand(3, 4, 3)
    found = least(program, intervals(program, box), wanted)
    images = ((box[0] + box[1]) / 2).requires_grad_()
    for row in range(3):
        (gradient,) = torch.autograd.grad(network.double()(images)[:, row].sum(), images)
        corner = torch.where(gradient > 0, box[0], box[1])
        torch.testing.assert_close(found[row], network(corner)[:, row].detach())


def test_lines_are_tighter_than_intervals_and_slopes_help() -> None:
    torch.manual_seed(0)
    network = Does(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())).eval()
    box, program = _box(8, 0.05), Program.of(network, SHAPE)
    wanted = torch.eye(3).double()[:, None].expand(3, 8, 3)
    plain, fine = intervals(program, box), refined(program, box)
    last = least(program, plain, wanted, to_images=False)
    lines = least(program, fine, wanted)
    slopes = optimised(program, fine, wanted - 0.5, 20)
    assert lines.mean() > last.mean()
    assert slopes.mean() > least(program, fine, wanted - 0.5).mean()


class Mixes(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return (images - images.mean(0)).flatten(1)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Does(nn.Softmax(1)), "_softmax"),
        (Does(lambda x: x * x.sigmoid()), "mul"),
        (Does(nn.GroupNorm(2, 4)), "native_group_norm"),
        (Mixes(), "mean"),
        (nn.Sequential(nn.Flatten(), nn.Linear(5, 3)), "cannot be traced"),
    ],
)
def test_what_has_no_bound_is_named(network: nn.Module, message: str) -> None:
    with pytest.raises(NotProvable, match=message):
        Program.of(network.eval(), SHAPE)


@pytest.mark.parametrize(
    ("function", "curvature"),
    [
        (torch.sigmoid, 0.0963),
        (torch.tanh, 0.7699),
        (F.softplus, 0.25),
        (F.gelu, 0.81),
        (lambda x: F.gelu(x, approximate="tanh"), 0.81),
        (F.silu, 0.5),
        (F.mish, 0.65),
    ],
)
def test_no_function_is_more_curved_than_its_bound(
    function: Callable[[Tensor], Tensor], curvature: float
) -> None:
    x = torch.linspace(-12, 12, 100_001, dtype=torch.float64)
    step = float(x[1] - x[0])
    y = function(x)
    second = (y[2:] - 2 * y[1:-1] + y[:-2]) / step**2
    assert second.abs().max() <= curvature + 1e-5


def test_what_in_a_networks_form_is_in_the_way_of_proofs() -> None:
    def loose(*layers: nn.Module) -> tuple[str, ...]:
        network = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3))
        network(torch.zeros(1, *SHAPE))
        return Certifier(network, SHAPE).loose

    assert loose(nn.MaxPool2d(2)) == ("max pooling",)
    assert loose(nn.Conv2d(2, 4, 3, stride=2), nn.ReLU(), nn.AvgPool2d(2)) == ()
