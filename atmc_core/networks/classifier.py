"""A classifier of images in [0, 1], with its normalisation inside."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from atmc_core.attacks import frozen_copy
from atmc_core.attacks.base import Model
from atmc_core.errors import InvalidInput


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation a channel, applied to images in [0, 1]; empty means identity."""

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
    """A network behind its normalisation: images ``[N, C, H, W]`` in [0, 1] to logits.

    So every attack works in [0, 1], the space in which epsilon is stated.

    Raises:
        InvalidInput: if the normalisation has another number of channels than the images.
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

    def forward(self, images: Tensor) -> Tensor:
        if not self._identity:
            images = (images - self.mean) / self.std  # type: ignore[operator]
        return self.network(images)  # type: ignore[no-any-return]


def frozen_model(classifier: Classifier, weights: Mapping[str, Tensor] | None = None) -> Model:
    """The network with all its tensors detached: gradients reach the images only.

    Args:
        weights: stand in for the classifier's own, by name in its network.
    """
    return frozen_copy(
        classifier, {f"network.{name}": tensor for name, tensor in (weights or {}).items()}
    )


def statistics(network: nn.Module) -> list[Tensor]:
    """The norms' running means and variances."""
    return [b for b in network.buffers() if b.is_floating_point()]
