"""What `evaluate` and `certify` cannot judge is refused, and never gets a figure."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_core import InvalidInput, certify, evaluate
from atmc_core.certification import NotProvable

IMAGES = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.8
LABELS = torch.arange(6)
JUDGES = (partial(certify, epsilon=0.1), partial(evaluate, epsilons=[0.1], attacks=["fgsm"]))


class Calls(nn.Module):
    """A network that is a function of an image's pixels and of ten logits that they are mapped to.

    The logits are those of a linear layer that this module does not know of as its own.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Any:
        return self.function(images.flatten(1), LINEAR(images.flatten(1)))


with torch.random.fork_rng():
    torch.manual_seed(0)
    LINEAR = nn.Linear(16, 10).requires_grad_(False)
NETWORK = Calls(lambda _, logits: logits)


@pytest.mark.parametrize("judge", JUDGES, ids=["certify", "evaluate"])
@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (IMAGES * 255, LABELS, r"\[0, 1\]"),
        (IMAGES - 0.5, LABELS, r"\[0, 1\]"),
        (IMAGES.clone().fill_(torch.nan), LABELS, r"\[0, 1\]"),
        ((IMAGES * 255).byte(), LABELS, "uint8"),
        (IMAGES[0], LABELS[:1], r"give float \[N, C, H, W\]"),
        (IMAGES[:0], LABELS[:0], r"give float \[N, C, H, W\]"),
        (IMAGES, LABELS[:3], r"\[3\] labels for 6 images"),
        (IMAGES, LABELS + 5, "from 5 to 10: the network has 10 classes"),
        (IMAGES, LABELS - 1, "from -1 to 4"),
        (IMAGES, LABELS.float(), "labels are torch.float32"),
        (IMAGES, LABELS.int(), "labels are torch.int32"),
    ],
)
def test_images_and_labels_that_are_none(
    judge: Callable[..., Any], images: Tensor, labels: Tensor, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        judge(NETWORK, images, labels)


@pytest.mark.parametrize("judge", JUDGES, ids=["certify", "evaluate"])
@pytest.mark.parametrize(
    "returns",
    [
        lambda pixels, logits: (logits, pixels),
        lambda pixels, logits: {"logits": logits},
        lambda pixels, logits: logits[:, :1],
        lambda pixels, logits: logits.unflatten(1, (10, 1, 1)),
    ],
    ids=["tuple", "dict", "one-class", "maps"],
)
def test_networks_that_return_no_logits(
    judge: Callable[..., Any], returns: Callable[[Tensor, Tensor], Any]
) -> None:
    with pytest.raises((ValueError, NotProvable), match="logits"):
        judge(Calls(returns), IMAGES, LABELS % 2)


@pytest.mark.parametrize(
    "draws",
    [
        lambda pixels, logits: logits + 0.1 * torch.randn(10, dtype=logits.dtype),
        lambda pixels, logits: logits + 0.1 * torch.randn_like(logits),
        lambda pixels, logits: F.dropout(logits, 0.5, training=True),
    ],
    ids=["added", "like", "dropout"],
)
def test_a_network_that_draws_at_random_has_no_proof(
    draws: Callable[[Tensor, Tensor], Tensor],
) -> None:
    with pytest.raises(NotProvable, match="at random"):
        certify(Calls(draws), IMAGES, LABELS, 0.001)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epsilon": -0.1}, "epsilon is -0.1"),
        ({"epsilon": torch.nan}, "epsilon is nan"),
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"epsilon": 0.1, "method": "none"}, "choose from ibp, crown"),
        ({"epsilon": 0.1, "alpha_steps": -1}, "alpha_steps is -1"),
        ({"epsilon": 0.1, "batch_size": 0}, "batch_size is 0"),
    ],
)
def test_options_of_a_proof_out_of_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        certify(NETWORK, IMAGES, LABELS, **options)


def _above(limit: float) -> Calls:
    """Logits that are not numbers where a pixel is above the limit."""
    return Calls(lambda pixels, logits: logits + 0 * (limit - pixels.amax(1, keepdim=True)).sqrt())


class TestOutputsThatAreNotFinite:
    def test_of_images_are_refused(self) -> None:
        with pytest.raises(InvalidInput, match="6 of 6 test images") as refused:
            evaluate(_above(0.01), IMAGES, LABELS, epsilons=[0.1], attacks=["fgsm"])
        assert refused.value.code == "non_finite_outputs"

    def test_on_an_attack_s_way_are_refused(self) -> None:
        with pytest.raises(InvalidInput, match="near the images") as refused:
            evaluate(_above(0.82), IMAGES, LABELS, epsilons=[0.2], attacks=["pgd"])
        assert refused.value.code == "non_finite_outputs"

    def test_of_what_an_attack_found_are_wrong(self) -> None:
        """The index of what is not a number would be taken for the class, which is the first."""
        sure = 10 * F.one_hot(torch.tensor(0), 10)
        found = {
            limit: evaluate(
                Calls(
                    lambda pixels, logits, limit=limit: (
                        sure + _above(limit).function(pixels, logits)
                    )
                ),
                IMAGES,
                torch.zeros(6, dtype=torch.int64),
                epsilons=[0.6],
                attacks=["fgsm"],
            )[0]
            for limit in (0.82, 2.0)
        }
        assert found[0.82].clean.value == found[2.0].robust.value == 1
        assert found[0.82].robust.value == 0
