"""A network with its normalisation in front: a classifier of images in [0, 1]."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from atmc_core.attacks import frozen_copy
from atmc_core.attacks.base import Model
from atmc_core.errors import InvalidInput


@dataclass(frozen=True)
class Normalization:
    """The normalisation (x - mean) / std of images in [0, 1]; without numbers, the identity.

    Attributes:
        mean: the mean of each channel.
        std: the standard deviation of each channel, above 0.

    Raises:
        InvalidInput: ``invalid_value`` if the lengths differ, or a std is not above 0.
    """

    mean: tuple[float, ...] = field(default=())
    std: tuple[float, ...] = field(default=())

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise InvalidInput(
                "invalid_value",
                f"{len(self.mean)} means and {len(self.std)} standard deviations",
                "normalization",
            )
        if any(not s > 0 for s in self.std):
            raise InvalidInput("invalid_value", "std must be above 0", "normalization.std")


class Classifier(nn.Module):
    """A network behind its normalisation: it maps images ``[N, C, H, W]`` in [0, 1] to logits.

    Attacks therefore work on images in [0, 1], in whose units epsilon is given.

    Args:
        network: maps normalised images ``[N, C, H, W]`` to logits ``[N, classes]``.
        normalization: the normalisation.
        channels: the number of channels of the images.

    Raises:
        InvalidInput: ``invalid_value`` if the normalisation has another number of channels.
    """

    def __init__(self, network: nn.Module, normalization: Normalization, channels: int) -> None:
        super().__init__()
        if normalization.mean and len(normalization.mean) != channels:
            raise InvalidInput(
                "invalid_value",
                f"{len(normalization.mean)} means for images of {channels} channels",
                "normalization.mean",
            )
        self.network = network
        mean, std = normalization.mean or (0.0,) * channels, normalization.std or (1.0,) * channels
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self._identity = not normalization.mean
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def device(self) -> torch.device:
        """The device on which the classifier lies, be it without parameters."""
        return cast(Tensor, self.mean).device

    def forward(self, images: Tensor) -> Tensor:
        if not self._identity:
            images = (images - self.mean) / self.std  # type: ignore[operator]
        return self.network(images)  # type: ignore[no-any-return]


def frozen_model(classifier: Classifier, weights: Mapping[str, Tensor] | None = None) -> Model:
    """A copy of a classifier in which only the images have gradients; see ``frozen_copy``.

    Args:
        classifier: maps images ``[N, C, H, W]`` in [0, 1] to logits ``[N, classes]``.
        weights: tensors that replace the classifier's own, by their names in its network.
    """
    return frozen_copy(
        classifier, {f"network.{name}": tensor for name, tensor in (weights or {}).items()}
    )


def statistics(network: nn.Module) -> list[Tensor]:
    """The float buffers of a network: the running means and variances of its norms."""
    return [b for b in network.buffers() if b.is_floating_point()]
