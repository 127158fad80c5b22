"""Convolutional networks for 32x32 images: VGG and MobileNetV2."""

from torch import Tensor, nn
from torch.nn import functional as F

# The widths of VGG-16's convolutions; 0 is a 2x2 max pool (Simonyan and Zisserman, 2015).
_VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
# Expansion, width, number of blocks and first stride of each stage of MobileNetV2 (Sandler et al.,
# 2018). The first two strides and the stem's are 1, as is usual for small images.
_MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class VGG(nn.Module):
    """VGG-16 with batch norms and one linear layer; ``[N, 3, 32, 32] -> [N, classes]``."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in _VGG16:
            if width == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """Pointwise expansion, depthwise convolution and pointwise projection, with norms.

    It maps ``[N, C, H, W]`` to ``[N, width, H/stride, W/stride]``.
    """

    def __init__(self, channels: int, width: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden)]
            layers.append(nn.ReLU6())
        layers += [
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, width, 1, bias=False),
            nn.BatchNorm2d(width),
        ]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(x)
        return x + out if self.residual else out  # type: ignore[no-any-return]


class MobileNetV2(nn.Module):
    """MobileNetV2 with a stem of stride 1; ``[N, 3, 32, 32] -> [N, classes]``."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        blocks: list[nn.Module] = []
        channels = 32
        for expansion, width, depth, first_stride in _MOBILENET_V2:
            for block in range(depth):
                stride = first_stride if block == 0 else 1
                blocks.append(InvertedResidual(channels, width, expansion, stride))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(channels, 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280)
        self.linear = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.blocks(F.relu6(self.bn1(self.conv1(x))))
        out = F.relu6(self.bn2(self.conv2(out)))
        return self.linear(out.mean((2, 3)))  # type: ignore[no-any-return]


def vgg16_bn(num_classes: int) -> nn.Module:
    """VGG-16 with batch norms for 32x32 images; 14.7 M weights."""
    return VGG(num_classes)


def mobilenet_v2(num_classes: int) -> nn.Module:
    """MobileNetV2 for 32x32 images; 2.2 M weights."""
    return MobileNetV2(num_classes)
