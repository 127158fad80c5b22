"""Windows that PyTorch's own pools do not have."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MeanOfUnevenWindows(nn.Module):
    """An average pool whose padding differs from side to side and counts in no mean.

    Args:
        kernel: height and width of a window.
        stride: of the rows and the columns.
        padding: above, left, below, right; less than the window's size on each side.
    """

    def __init__(
        self, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
    ) -> None:
        super().__init__()
        self.kernel, self.stride = tuple(kernel), tuple(stride)
        self.top, self.left, self.bottom, self.right = padding

    def forward(self, maps: Tensor) -> Tensor:
        """The means ``[N, C, h, w]`` of the windows of maps ``[N, C, H, W]``."""
        pixels = torch.ones_like(maps[:1, :1])
        return self._sums(maps) / self._sums(pixels)

    def _sums(self, maps: Tensor) -> Tensor:
        padded = F.pad(maps, [self.left, self.right, self.top, self.bottom])
        return F.avg_pool2d(padded, self.kernel, self.stride, divisor_override=1)
