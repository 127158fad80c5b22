"""Random changes of training images, of a whole batch at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from atmc_core.errors import InvalidInput


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images that leave their class as it is; by default none.

    Attributes:
        flip: every other image, by chance, is mirrored left to right.
        shift: each image is moved by up to so many pixels each way; what comes in is black.
    """

    flip: bool = False
    shift: int = 0

    def check(self, height: int, width: int) -> None:
        """Refuse a shift that could leave nothing of an image of this size.

        Raises:
            InvalidInput: ``invalid_value``.
        """
        if self.shift >= min(height, width):
            raise InvalidInput(
                "invalid_value",
                f"a shift by {self.shift} pixels moves an image of {height} x {width} out of sight",
                "training.shift",
            )

    def draw(self, count: int, generator: torch.Generator) -> Tensor | None:
        """What happens to each of ``count`` images: int64 ``[N, 3]``, mirrored, down and right.

        Nothing is drawn for what is off. The generator is on the CPU, so that a seed means the same
        on every device.
        """
        if self == UNCHANGED:
            return None
        moves = torch.zeros(count, 3, dtype=torch.int64)
        if self.flip:
            moves[:, 0].random_(2, generator=generator)
        if self.shift:
            moves[:, 1:] = torch.randint(2 * self.shift + 1, (count, 2), generator=generator)
        return moves

    def apply(self, images: Tensor, moves: Tensor) -> Tensor:
        """The images ``[N, C, H, W]`` changed as drawn, in one gather."""
        count, channels, height, width = images.shape
        mirrored, down, right = moves.unsqueeze(2).unbind(1)
        column = torch.arange(width, device=images.device)
        columns = torch.where(mirrored == 1, width - 1 - column, column) + right
        rows = torch.arange(height, device=images.device) + down
        image = torch.arange(count, device=images.device).view(-1, 1, 1, 1)
        channel = torch.arange(channels, device=images.device).view(1, -1, 1, 1)
        padded = F.pad(images, [self.shift] * 4)
        return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


UNCHANGED = Augmentation()
