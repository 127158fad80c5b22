"""What a network in int8 loses, measured by attacks that need no gradients of it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atmc_core.attacks import Square, ball
from atmc_core.attacks.base import Model
from atmc_core.data import Split
from atmc_core.evaluation.attacks import pgd, smooth_pgd
from atmc_spec import Evaluation, Threat

# At most so many images are attacked, with so many queries of Square for each, because the attack
# calls onnxruntime for every query.
_IMAGES, _QUERIES = 500, 500
_BATCH = 100


@dataclass(frozen=True)
class Losses:
    """Which images each network gets right, bool ``[N]`` each.

    Attributes:
        clean: the network in int8 on the images themselves.
        transferred: it on images that PGD made against the float network.
        square: it after Square, on those that it gets right.
        float_clean, float_robust: the float network, on the images and after all of these attacks.
        queries: those of Square for each image.
    """

    clean: Tensor
    transferred: Tensor
    square: Tensor
    float_clean: Tensor
    float_robust: Tensor
    queries: int

    @property
    def robust(self) -> Tensor:
        """Whether the network in int8 is right on an image and under both attacks."""
        return self.clean & self.transferred & self.square

    @property
    def fallen(self) -> Tensor:
        """Whether the float network stands under all attacks and the one in int8 does not."""
        return self.float_robust & ~self.robust


def compare(
    network: Model,
    quantized: Model,
    split: Split,
    threat: Threat,
    evaluation: Evaluation,
    seed: int,
) -> Losses:
    """Attack a float network, and the same in int8 by what is found and by Square.

    An attack on the float network's gradients is weaker against the other one, so what this finds
    is an upper bound of its robust accuracy.

    Args:
        network: the float network, differentiable in its input, on the images' device.
        quantized: the network in int8; takes images on the CPU.
        split: the images; the first ones are used.
        threat: the ball.
        evaluation: the steps of PGD and the queries of Square, up to 500.
        seed: of everything that is random.
    """
    limits, steps = ball(threat.norm, threat.epsilon), evaluation.pgd_steps
    square = Square(limits, queries=min(evaluation.square_queries, _QUERIES))
    device = split.labels.device
    found: dict[str, list[Tensor]] = {}
    for start in range(0, min(len(split), _IMAGES), _BATCH):
        images, labels = split.batch(slice(start, min(start + _BATCH, _IMAGES)))
        generator = torch.Generator(device).manual_seed(seed + start)
        on_cpu, labels_there = images.cpu(), labels.cpu()
        made = pgd(limits, steps).run(network, images, labels, generator=generator)
        smooth = smooth_pgd(limits, steps, evaluation.smooth_restarts).run(
            network, images, labels, generator=generator
        )
        searched = square.run(network, images, labels, generator=generator)
        own = square.run(
            quantized, on_cpu, labels_there, generator=torch.Generator().manual_seed(seed + start)
        )
        with torch.no_grad():
            parts: dict[str, Any] = {
                "clean": _right(quantized, on_cpu, labels_there),
                "transferred": _right(quantized, made.cpu(), labels_there)
                & _right(quantized, smooth.cpu(), labels_there),
                "square": _right(quantized, own, labels_there),
                "float_clean": _right(network, images, labels),
            }
            robust = [_right(network, each, labels) for each in (images, made, smooth, searched)]
            parts["float_robust"] = torch.stack(robust).all(0)
        for name, part in parts.items():
            found.setdefault(name, []).append(part.cpu())
    return Losses(**{name: torch.cat(each) for name, each in found.items()}, queries=square.queries)


def _right(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    return model(images).argmax(1) == labels
