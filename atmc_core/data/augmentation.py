"""Random changes of training images, made on a whole batch at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from atmc_core.errors import InvalidInput


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images that keep their class; by default there are none.

    Attributes:
        flip: whether each image is mirrored left to right with a probability of one half.
        shift: each image is moved by up to this many pixels in each direction; the pixels that
            become free are black.
    """

    flip: bool = False
    shift: int = 0

    def check(self, height: int, width: int) -> None:
        """Check that a shift leaves something of an image of ``height`` x ``width`` pixels.

        Raises:
            InvalidInput: ``invalid_value`` if it may not.
        """
        if self.shift >= min(height, width):
            raise InvalidInput(
                "invalid_value",
                f"a shift by {self.shift} pixels moves an image of {height} x {width} out of sight",
                "training.shift",
            )

    def draw(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Draw the changes of ``count`` images; nothing is drawn for changes that are off.

        Args:
            count: the number of images.
            generator: on the CPU, so that a seed means the same on every device.

        Returns:
            For each image whether it is mirrored (0 or 1), and where its visible part begins in the
            image padded by ``shift`` pixels (row and column), int64 ``[count, 3]``; None if all
            changes are off.
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
        """Change images as drawn, in a single gather.

        Args:
            images: ``[N, C, H, W]``.
            moves: as ``draw`` returned it, ``[N, 3]``, on the images' device.

        Returns:
            The changed images, ``[N, C, H, W]``.
        """
        count, channels, height, width = images.shape
        mirrored, down, right = moves.unsqueeze(2).unbind(1)
        column = torch.arange(width, device=images.device)
        columns = torch.where(mirrored == 1, width - 1 - column, column) + right
        rows = torch.arange(height, device=images.device) + down
        image = torch.arange(count, device=images.device).view(-1, 1, 1, 1)
        channel = torch.arange(channels, device=images.device).view(1, -1, 1, 1)
        padded = F.pad(images, [self.shift] * 4)
        return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


#: No changes.
UNCHANGED = Augmentation()
