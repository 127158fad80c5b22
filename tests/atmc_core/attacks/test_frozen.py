"""A frozen copy is the same function with the same input gradients, and leaves the model alone."""

import pytest
import torch
from torch import nn

from atmc_core.attacks import frozen_copy


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [2, 3, 4, (5, 3)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_outputs_and_input_gradients_are_the_models(
    channels: int, kernel: int | tuple[int, int], stride: int, padding: int
) -> None:
    conv = nn.Conv2d(channels, 6, kernel, stride, padding)
    images = torch.rand(3, channels, 15, 18, requires_grad=True)
    frozen = frozen_copy(conv)
    expected, outputs = conv(images), frozen(images)
    torch.testing.assert_close(outputs, expected)
    weights = torch.rand_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(outputs, images, weights),
        torch.autograd.grad(expected, images, weights),
    )


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).train()
    images = torch.rand(5, 1, 8, 8)
    frozen = frozen_copy(model)
    frozen(images)
    assert model[1].num_batches_tracked == 0
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model[0].forward.__func__ is nn.Conv2d.forward


def test_hooks_still_run() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3))
    model[0].register_forward_hook(lambda module, inputs, outputs: outputs + 1)
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(frozen_copy(model)(images), model(images))


def test_what_is_no_module_is_returned_as_it_is() -> None:
    def model(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)

    assert frozen_copy(model) is model


@pytest.mark.parametrize("size", [8, 11])
@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, ceil_mode=True)]
)
def test_pooling_is_the_models_with_and_without_a_gradient(pool: nn.MaxPool2d, size: int) -> None:
    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), pool, nn.Conv2d(5, 2, 1), pool)
    images = torch.rand(4, 1, size, size, requires_grad=True)
    frozen = frozen_copy(model)
    expected = model(images)
    with torch.no_grad():
        torch.testing.assert_close(frozen(images), expected)
    outputs = frozen(images)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(
        torch.autograd.grad(outputs.sum(), images), torch.autograd.grad(expected.sum(), images)
    )


def test_relu_waits_for_the_pooling_only_where_nobody_can_tell() -> None:
    relu = nn.ReLU()
    model = nn.Sequential(relu, nn.MaxPool2d(2))
    images = torch.randn(2, 3, 6, 6)
    seen = []
    relu.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs))
    torch.testing.assert_close(frozen_copy(model)(images), model(images))
    torch.testing.assert_close(*seen)
    # Its parts can still be called one by one.
    frozen = frozen_copy(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))
    torch.testing.assert_close(frozen[0](images), images.relu())
