"""Residual networks for 32x32 images.

Sources: He et al., "Deep residual learning for image recognition" (2015); Zagoruyko and Komodakis,
"Wide residual networks" (2016).
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with norms, plus a shortcut.

    It maps ``[N, C, H, W]`` to ``[N, width, H/stride, W/stride]``.
    """

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1 with norms, plus a shortcut.

    It maps ``[N, C, H, W]`` to ``[N, 4 * width, H/stride, W/stride]``.
    """

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != 4 * width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """A ResNet with a stem of stride 1; ``[N, 3, 32, 32] -> [N, classes]``.

    Args:
        depths: the number of blocks in each stage.
        num_classes: the number of classes.
        block_type: the kind of block.
    """

    def __init__(
        self,
        depths: Sequence[int],
        num_classes: int,
        block_type: type[BasicBlock | Bottleneck] = BasicBlock,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        blocks: list[nn.Module] = []
        channels = 64
        for stage, depth in enumerate(depths):
            width = 64 * 2**stage
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(block_type(channels, width, stride))
                channels = width * block_type.expansion
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.linear(out.mean((2, 3)))  # type: ignore[no-any-return]


class WideBlock(nn.Module):
    """Norm, ReLU and 3x3 convolution, twice, plus a shortcut: the pre-activation form.

    It maps ``[N, C, H, W]`` to ``[N, width, H/stride, W/stride]``.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        same = stride == 1 and channels == width
        self.shortcut = None if same else nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return shortcut + out  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """A WideResNet (WRN-depth-widen) for 32x32 images; ``[N, 3, 32, 32] -> [N, classes]``."""

    def __init__(self, depth: int, widen: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        blocks: list[nn.Module] = []
        channels = 16
        for stage in range(3):
            width = 16 * widen * 2**stage
            for block in range((depth - 4) // 6):
                blocks.append(WideBlock(channels, width, 2 if stage > 0 and block == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn(self.blocks(self.conv1(x))))
        return self.linear(out.mean((2, 3)))  # type: ignore[no-any-return]


def resnet18(num_classes: int) -> nn.Module:
    """ResNet-18 for 32x32 images; 11.2 M weights."""
    return ResNet((2, 2, 2, 2), num_classes)


def resnet34(num_classes: int) -> nn.Module:
    """ResNet-34 for 32x32 images; 21.3 M weights."""
    return ResNet((3, 4, 6, 3), num_classes)


def resnet50(num_classes: int) -> nn.Module:
    """ResNet-50 for 32x32 images; 23.5 M weights."""
    return ResNet((3, 4, 6, 3), num_classes, Bottleneck)


def wide_resnet_16_8(num_classes: int) -> nn.Module:
    """WideResNet-16-8 for 32x32 images; 11.0 M weights."""
    return WideResNet(16, 8, num_classes)


def wide_resnet_28_10(num_classes: int) -> nn.Module:
    """WideResNet-28-10 for 32x32 images; 36.5 M weights."""
    return WideResNet(28, 10, num_classes)
