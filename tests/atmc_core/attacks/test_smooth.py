"""Smooth backward passes: the same outputs to the bit, gradients of a smoother function."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_core.attacks import PGD, ball, frozen_copy, has_edges, smoothed
from atmc_core.networks.graph import Graph, Node, build_module
from atmc_core.training.recordable import Waits

# Each takes maxima of maps [N, 4, 9, 7] in its own way.
MAXIMA: dict[str, Callable[[Tensor], Tensor]] = {
    "halves": lambda x: F.max_pool2d(x, 2),
    "tiles": lambda x: F.max_pool2d(x, (3, 2)),
    "overlapping": lambda x: F.max_pool2d(x, 3, 2, 1),
    "gaps": lambda x: F.max_pool2d(x, 2, 3),
    "dilated": lambda x: F.max_pool2d(x, (2, 3), 1, (1, 0), (3, 2)),
    "ceil": lambda x: F.max_pool2d(x, 2, ceil_mode=True),
    "ceil and padding": lambda x: F.max_pool2d(x, 3, (2, 3), 1, ceil_mode=True),
    "indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "torch's own": lambda x: torch.max_pool2d(x, [2, 2]),
    "by keyword": lambda x: torch.max_pool2d(input=x, kernel_size=2),
    "one axis": lambda x: F.max_pool1d(x.flatten(2), 4, 3),
    "three axes": lambda x: F.max_pool3d(x[:, None], (2, 3, 2)),
    "adaptive": lambda x: F.adaptive_max_pool2d(x, (4, None)),
    "adaptive, one axis": lambda x: F.adaptive_max_pool1d(x.flatten(2), 5),
    "adaptive, three axes": lambda x: F.adaptive_max_pool3d(x[:, None], (2, 3, 2)),
    "adaptive, indices": lambda x: F.adaptive_max_pool2d(x, 3, return_indices=True)[0],
    "global": lambda x: F.adaptive_max_pool2d(x, 1),
    "amax": lambda x: x.amax((2, 3)),
    "amin": lambda x: torch.amin(x, 1, keepdim=True),
    "max over channels": lambda x: x.max(1).values,
    "min over channels": lambda x: torch.min(x, dim=1, keepdim=True)[0],
    "max over an axis": lambda x: torch.max(x, axis=1)[0],
    "larger of two": lambda x: torch.maximum(x[:, :2], x[:, 2:]),
    "smaller of two": lambda x: torch.min(x[:, :2], x[:, 2:]),
    "maxout": lambda x: x[:, :2].max(x[:, 2:]),
}


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 4, 9, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()


def _gradient(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    outputs = model(images)
    weights = torch.rand(outputs.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(outputs, images, weights)
    return gradient


@pytest.mark.parametrize("maxima", MAXIMA.values(), ids=MAXIMA)
def test_what_comes_next_may_work_in_place(
    maxima: Callable[[Tensor], Tensor], images: Tensor
) -> None:
    beside = smoothed(lambda x: F.relu(maxima(x)), 0.1)
    in_place = smoothed(lambda x: F.relu(maxima(x), inplace=True), 0.1)
    assert torch.equal(_gradient(in_place, images), _gradient(beside, images))


def test_a_relu_in_place_before_a_pooling_is_attacked_as_one_beside_it(images: Tensor) -> None:
    # As AlexNet, VGG and SqueezeNet of torchvision have it; a frozen copy pools first.
    def network(*, inplace: bool) -> nn.Module:
        torch.manual_seed(0)
        relu = nn.ReLU(inplace=inplace)
        return nn.Sequential(nn.Conv2d(4, 6, 3), relu, nn.MaxPool2d(2), nn.Flatten())

    models = [smoothed(frozen_copy(network(inplace=each)), 0.1) for each in (True, False)]
    assert has_edges(frozen_copy(network(inplace=True)), images)
    assert torch.equal(*[_gradient(model, images) for model in models])


@pytest.mark.parametrize("maxima", MAXIMA.values(), ids=MAXIMA)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_are_the_same_to_the_bit_and_gradients_are_shared(
    maxima: Callable[[Tensor], Tensor], layout: torch.memory_format, images: Tensor
) -> None:
    images = images.detach().to(memory_format=layout).requires_grad_()
    plain, smooth = _gradient(maxima, images), _gradient(smoothed(maxima, 0.3), images)
    assert torch.equal(smoothed(maxima, 0.3)(images), maxima(images))
    assert (smooth != 0).sum() > 1.3 * (plain != 0).sum()
    # A share is a share: what flows back is what came, image by image.
    torch.testing.assert_close(smooth.sum((1, 2, 3)), plain.sum((1, 2, 3)))
    assert has_edges(maxima, images)


@pytest.mark.parametrize("maxima", MAXIMA.values(), ids=MAXIMA)
def test_a_cold_softmax_is_the_maximum_itself(
    maxima: Callable[[Tensor], Tensor], images: Tensor
) -> None:
    cold = _gradient(smoothed(maxima, 1e-6), images)
    torch.testing.assert_close(cold, _gradient(maxima, images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "kernel", [2, 3, (2, 3)], ids=["over halves", "over odd sizes", "over oblongs"]
)
@pytest.mark.parametrize("stride", [None, 1, 2])
def test_the_gradient_is_that_of_the_logarithm_of_a_sum_of_exponentials(
    kernel: int | tuple[int, int], stride: int | None, images: Tensor
) -> None:
    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, kernel, stride)

    temperature = 0.5 * images.detach().std((1, 2, 3), correction=0).view(-1, 1, 1, 1)

    def soft(x: Tensor) -> Tensor:
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        step = size if stride is None else (stride, stride)
        windows = x.unfold(2, size[0], step[0]).unfold(3, size[1], step[1])
        return temperature * (windows / temperature[..., None, None]).logsumexp((-2, -1))

    smooth = _gradient(smoothed(pool, 0.5), images)
    torch.testing.assert_close(smooth, _gradient(soft, images), atol=1e-6, rtol=1e-4)


def test_an_image_has_the_same_gradient_in_any_batch(images: Tensor) -> None:
    model = smoothed(MAXIMA["overlapping"], 0.1)

    def one_by_one(x: Tensor) -> Tensor:
        return torch.cat([model(each) for each in x.split(1)])

    torch.testing.assert_close(_gradient(model, images), _gradient(one_by_one, images))


def test_a_factor_on_the_maps_changes_no_share(images: Tensor) -> None:
    model = smoothed(MAXIMA["halves"], 0.1)
    scaled = _gradient(lambda x: model(1024 * x), images) / 1024
    torch.testing.assert_close(scaled, _gradient(model, images), atol=1e-6, rtol=1e-4)


def test_equal_values_have_equal_shares_and_no_nan() -> None:
    flat = torch.ones(2, 3, 4, 4, requires_grad=True)
    model = smoothed(MAXIMA["halves"], 0.1)
    (gradient,) = torch.autograd.grad(model(flat).sum(), flat)
    assert torch.equal(gradient, torch.full_like(flat, 0.25))


@pytest.mark.parametrize("rounding", [torch.round, torch.floor, torch.ceil, torch.trunc])
def test_a_gradient_passes_through_rounding(
    rounding: Callable[[Tensor], Tensor], images: Tensor
) -> None:
    def model(x: Tensor) -> Tensor:
        return rounding(8 * x) / 8

    assert not _gradient(model, images).any()
    assert torch.equal(smoothed(model, 0.1)(images), model(images))
    assert _gradient(smoothed(model, 0.1), images).abs().min() > 0
    assert has_edges(model, images)


@pytest.mark.parametrize(
    "clip",
    [
        nn.Hardtanh(0, 0.5),
        nn.Hardtanh(0, 0.5, inplace=True),
        lambda x: F.hardtanh(x, min_val=0, max_val=0.5),
        lambda x: torch.clamp(x, 0, 0.5),
        lambda x: x.clip(min=0, max=0.5),
    ],
    ids=["module", "in place", "by keyword", "clamp", "clip"],
)
def test_clipping_passes_less_and_less_of_a_gradient_on(
    clip: Callable[[Tensor], Tensor], images: Tensor
) -> None:
    def model(x: Tensor) -> Tensor:
        return clip(1 * x)

    assert torch.equal(smoothed(model, 0.3)(images), model(images))
    plain, smooth = _gradient(model, images), _gradient(smoothed(model, 0.3), images)
    deviation = images.std((1, 2, 3), correction=0, keepdim=True)
    beyond = (images - images.clamp(0, 0.5)).abs()
    whole = torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(smooth, whole * torch.exp(-beyond / (0.3 * deviation)))
    inside = beyond == 0
    assert torch.equal(smooth[inside], plain[inside])
    assert not plain[~inside].any()
    assert has_edges(model, images)


def test_what_is_clipped_to_one_side_or_by_tensors_keeps_its_gradient(images: Tensor) -> None:
    bound = torch.zeros(1)
    for model in (
        nn.ReLU6(),
        lambda x: x.clamp(min=0),
        lambda x: x.clamp(bound, bound + 1),
        lambda x: torch.clamp(x, max=0.5),
        lambda x: x.clamp(1, 0),
    ):
        assert not has_edges(model, images)


def test_nothing_else_is_touched(images: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 3, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())
    assert not has_edges(model, images)
    smooth = _gradient(smoothed(model, 0.1), images)
    torch.testing.assert_close(smooth, _gradient(model, images), atol=0, rtol=0)
    with torch.no_grad():
        assert torch.equal(smoothed(MAXIMA["halves"], 0.1)(images), MAXIMA["halves"](images))


def test_networks_from_onnx_files_are_covered() -> None:
    conv = {"inputs": 1, "outputs": 3, "kernel": [3, 3], "stride": [1, 1], "padding": [1, 1]}
    pool = {"kernel": [3, 3], "stride": [2, 2], "padding": [1, 1], "dilation": [1, 1], "ceil": 0}
    graph = Graph(
        (
            Node("conv", (-1,), conv | {"dilation": [1, 1], "groups": 1, "bias": 1}, "conv"),
            Node("max_pool", (0,), pool),
            Node("max", (1,), {"dims": [2, 3], "keepdim": 0}),
        ),
        (1, 8, 8),
        "images",
        "logits",
    )
    model = frozen_copy(build_module(graph).eval())
    images = torch.rand(4, 1, 8, 8, requires_grad=True)
    assert torch.equal(smoothed(model, 0.1)(images), model(images))
    plain, smooth = _gradient(model, images), _gradient(smoothed(model, 0.1), images)
    assert (smooth != 0).sum() > 2 * (plain != 0).sum()


def test_padding_with_minus_infinity_is_no_value(images: Tensor) -> None:
    def padded(x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-torch.inf), 3, 2)

    torch.testing.assert_close(
        _gradient(smoothed(padded, 0.2), images),
        _gradient(smoothed(MAXIMA["overlapping"], 0.2), images),
        atol=0.05,  # the temperature's unit is another
        rtol=0.3,
    )


def test_what_a_network_hides_behind_its_maxima_is_found() -> None:
    """A decoy just above each pixel wins its window, so hardly a pixel has a gradient."""

    def model(images: Tensor) -> Tensor:
        pixels = images.flatten(1)
        higher = torch.stack([pixels, torch.full_like(pixels, 0.58)], -1).amax(-1)
        score = higher.sum(1) - (64 * 0.58 + 0.5)
        return torch.stack([-score, score], 1)

    images, labels = torch.full((1, 1, 8, 8), 0.5), torch.tensor([0])
    found = {
        temperature: PGD(ball("linf", 0.1), 10, 0.025, temperature=temperature).run(
            model, images, labels, generator=torch.Generator().manual_seed(0)
        )
        for temperature in (None, 0.3)
    }
    classes = {temperature: model(points).argmax(1).item() for temperature, points in found.items()}
    assert classes == {None: 0, 0.3: 1}


def test_no_operation_waits_for_a_device(images: Tensor) -> None:
    with Waits() as waits:
        for flat in (*MAXIMA.values(), nn.Hardtanh(0, 0.5)):
            _gradient(smoothed(flat, 0.1), images)
    assert waits.found == []


def test_a_compiled_network_stays_whole(images: Tensor) -> None:
    """As recorded steps are compiled on a GPU; here without a compiler for a device."""
    torch.manual_seed(0)
    layers = nn.Conv2d(4, 3, 3), nn.Hardtanh(0, 0.5), nn.MaxPool2d(2), nn.ReLU(), nn.MaxPool2d(2, 1)
    model = nn.Sequential(*layers)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(
        _gradient(smoothed(compiled, 0.1), images), _gradient(smoothed(model, 0.1), images)
    )


def test_a_temperature_is_above_zero() -> None:
    with pytest.raises(ValueError, match="temperature is 0"):
        PGD(ball("linf", 0.1), 1, 0.1, temperature=0)
