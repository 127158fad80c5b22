"""Small networks for small images."""

from collections import OrderedDict
from typing import cast

from torch import Tensor, nn


def digits_cnn(num_classes: int) -> nn.Module:
    """Two convolutions and two linear layers for 8x8 grey images; 38,160 weights at 10 classes."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, 3, padding=1),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, 3, padding=1),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(32 * 4 * 4, 64),
            relu3=nn.ReLU(),
            fc2=nn.Linear(64, num_classes),
        )
    )


def lenet(num_classes: int) -> nn.Module:
    """The LeNet of the ATMC paper: no ReLU between conv and pool; 430,500 weights at 10 classes."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 20, 5),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(20, 50, 5),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(50 * 4 * 4, 500),
            relu=nn.ReLU(),
            fc2=nn.Linear(500, num_classes),
        )
    )


def small_cnn(num_classes: int) -> nn.Module:
    """The SmallCNN of TRADES for 28x28 grey images, no dropout; 311,600 weights at 10 classes.

    Source: Zhang et al., "Theoretically principled trade-off between robustness and accuracy"
    (2019). The tensors have the names of the authors' code, so their checkpoints fit.
    """
    features = OrderedDict(
        conv1=nn.Conv2d(1, 32, 3),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(32, 32, 3),
        relu2=nn.ReLU(),
        maxpool1=nn.MaxPool2d(2),
        conv3=nn.Conv2d(32, 64, 3),
        relu3=nn.ReLU(),
        conv4=nn.Conv2d(64, 64, 3),
        relu4=nn.ReLU(),
        maxpool2=nn.MaxPool2d(2),
    )
    classifier = OrderedDict(
        fc1=nn.Linear(64 * 4 * 4, 200),
        relu1=nn.ReLU(),
        fc2=nn.Linear(200, 200),
        relu2=nn.ReLU(),
        fc3=nn.Linear(200, num_classes),
    )
    return nn.Sequential(
        OrderedDict(
            feature_extractor=nn.Sequential(features),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(classifier),
        )
    )


def strided_cnn(num_classes: int) -> nn.Module:
    """A network for proofs on 28x28 grey images; 329,448 weights at 10 classes.

    It has strides and no max pooling, over which interval bounds are loose (docs/proofs.md).
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, 4, stride=2),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, 4),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(32 * 10 * 10, 100),
            relu3=nn.ReLU(),
            fc2=nn.Linear(100, num_classes),
        )
    )


def wide_strided_cnn(num_classes: int) -> nn.Module:
    """As ``strided_cnn`` with more and wider kernels; 316,704 weights at 10 classes.

    An epoch of training for proof costs about as much, and leaves more proven.
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 32, 5, stride=2),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 64, 5, stride=2),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(64 * 4 * 4, 256),
            relu3=nn.ReLU(),
            fc2=nn.Linear(256, num_classes),
        )
    )


def clipped_cnn(num_classes: int) -> nn.Module:
    """As ``wide_strided_cnn`` behind a threshold, and clipped to [0, 1]; 316,705 weights.

    A threshold of the pixels comes first, whose slope and place are trained: near black and near
    white it leaves an interval of no width. So do all activations, since each is clipped on both
    sides. More is proven after as much training, a short one above all (docs/proofs.md).
    """
    return _clipped(256, num_classes)


def wide_clipped_cnn(num_classes: int) -> nn.Module:
    """As ``clipped_cnn`` with twice the hidden units; 581,409 weights at 10 classes.

    An epoch costs little more, and the same share of its weights is nearly twice as many.
    """
    return _clipped(512, num_classes)


def normed_clipped_cnn(num_classes: int) -> nn.Module:
    """As ``wide_clipped_cnn`` with batch norms; 581,409 weights at 10 classes.

    More is proven after as many epochs of training for proof (docs/proofs.md), but each unit has a
    gain beside its bias in the file.
    """
    return _clipped(512, num_classes, normed=True)


def _clipped(hidden: int, num_classes: int, normed: bool = False) -> nn.Module:
    threshold = nn.Conv2d(1, 1, 1)
    # A slope of one would leave nothing flat, and training moves it only slowly.
    nn.init.constant_(threshold.weight, 10.0)
    nn.init.constant_(cast(Tensor, threshold.bias), -4.5)
    layers = OrderedDict[str, nn.Module](
        threshold=threshold,
        clip0=nn.Hardtanh(0, 1),
        conv1=nn.Conv2d(1, 32, 5, stride=2, bias=not normed),
        norm1=nn.BatchNorm2d(32),
        clip1=nn.Hardtanh(0, 1),
        conv2=nn.Conv2d(32, 64, 5, stride=2, bias=not normed),
        norm2=nn.BatchNorm2d(64),
        clip2=nn.Hardtanh(0, 1),
        flatten=nn.Flatten(),
        fc1=nn.Linear(64 * 4 * 4, hidden, bias=not normed),
        norm3=nn.BatchNorm1d(hidden),
        clip3=nn.Hardtanh(0, 1),
        fc2=nn.Linear(hidden, num_classes),
    )
    if not normed:
        for name in ("norm1", "norm2", "norm3"):
            del layers[name]
    return nn.Sequential(layers)
