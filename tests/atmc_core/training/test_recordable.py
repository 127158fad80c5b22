"""Operations that wait for the device are found without a GPU, and finding them changes nothing."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from atmc_core.attacks import PGD, ball
from atmc_core.data import Reading
from atmc_core.job.inputs import Inputs, load_inputs
from atmc_core.job.setup import find_waiting_operations, warn_of_plain_steps
from atmc_core.networks.architectures import build, get_architecture
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.upload import ModelInput
from atmc_core.training.recordable import Waits, waiting_operations
from atmc_core.training.step import MixedLoss, RecordedStep, StepLoss
from atmc_core.training.trades import DivergencePGD, TradesLoss
from atmc_core.training.trainer import training_attack
from atmc_spec import read_spec

BALL = ball("linf", 0.1)
ATTACKS: list[tuple[PGD | None, StepLoss]] = [
    (None, MixedLoss()),
    (PGD(BALL, 2, 0.04), MixedLoss()),
    (PGD(ball("l2", 0.5), 2, 0.2), MixedLoss(0)),
    (DivergencePGD(BALL, 2, 0.04), TradesLoss(6)),
]


def _classifier(network: nn.Module, channels: int) -> Classifier:
    return Classifier(network, Normalization(), channels)


def _found(network: nn.Module, shape: tuple[int, ...], *step: Any) -> list[str]:
    images, labels = torch.rand(4, *shape), torch.arange(4) % 10
    return waiting_operations(RecordedStep(_classifier(network, shape[0]), *step), images, labels)


@pytest.mark.parametrize(("attack", "loss"), ATTACKS)
def test_no_attack_and_no_loss_waits(attack: PGD | None, loss: StepLoss) -> None:
    assert _found(build("digits_cnn", 10), (1, 8, 8), attack, loss) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("attack", "loss"), ATTACKS)
def test_on_a_gpu_what_can_be_recorded_is_not_found_to_wait(
    attack: PGD | None, loss: StepLoss
) -> None:
    classifier = _classifier(_Looking(lambda x: x), channels=1).cuda()
    step = RecordedStep(classifier, attack, loss)
    images, labels = torch.rand(4, 1, 8, 8).cuda(), torch.arange(4).cuda()
    assert waiting_operations(step, images, labels) == []
    generator = torch.Generator("cuda").manual_seed(1)
    assert torch.isfinite(step.gradients(images, labels, generator))


OWN = ("lenet", "mobilenet_v2", "resnet18", "resnet50", "vgg16_bn", "wide_resnet_16_8")
FAMILIES = ("convnext_tiny", "densenet121", "efficientnet_b0", "mobilenet_v3_small")


@pytest.mark.parametrize(
    "architecture",
    [
        "lenet",
        "mobilenet_v2",
        *(pytest.param(name, marks=pytest.mark.slow) for name in OWN[2:]),
        *(pytest.param(f"torchvision/{name}", marks=pytest.mark.slow) for name in FAMILIES),
    ],
)
def test_no_known_network_waits(architecture: str) -> None:
    channels, height, width = get_architecture(architecture).input_shape
    shape = (channels, height or 64, width or 64)
    assert _found(build(architecture, 10), shape, PGD(BALL, 1, 0.05)) == []


class _Looking(nn.Module):
    """Does something to its features."""

    def __init__(self, look: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(64, 16), nn.Linear(16, 10)
        self.norm, self.dropout, self.look = nn.BatchNorm1d(16), nn.Dropout(0.5), look

    def forward(self, images: Tensor) -> Tensor:
        features = self.look(self.dropout(self.norm(self.into(images.flatten(1)))))
        return self.out(features)  # type: ignore[no-any-return]


def _in_place(features: Tensor) -> Tensor:
    features = features.clone()
    features[features < 0] = 0
    return features


@pytest.mark.parametrize(
    ("look", "found"),
    [
        (lambda x: x * x.mean().item(), ["_local_scalar_dense"]),
        (lambda x: x if x.mean() > 0 else 2 * x, ["_local_scalar_dense"]),
        (lambda x: x + x[x > 0].mean(), ["index", "index_put"]),
        (lambda x: x + len(x.nonzero()), ["nonzero"]),
        (lambda x: x + len(torch.unique(x.round())), ["_unique2"]),
        (lambda x: x[:, torch.arange(15, -1, -1)], []),
        (lambda x: torch.where(x > 0, x, 0.1 * x).masked_fill(x > 3, 3), []),
        (_in_place, []),
    ],
)
def test_what_python_looks_at_is_named(look: Callable[[Tensor], Tensor], found: list[str]) -> None:
    assert _found(_Looking(look), (1, 8, 8), PGD(BALL, 1, 0.05)) == found


def test_a_copy_to_another_device_waits_and_one_on_the_same_does_not() -> None:
    with Waits() as waits:
        torch.ones(3).double()
        torch.ones(3).copy_(torch.zeros(3))
    assert waits.found == []
    with waits:
        torch.ones(3).to("meta")
    assert waits.found == ["_to_copy"]


def test_watching_a_step_changes_nothing() -> None:
    classifier = _classifier(_Looking(lambda x: x), channels=1).eval()
    images, labels = torch.rand(4, 1, 8, 8), torch.arange(4)
    classifier(images).sum().backward()
    before = [tensor.clone() for tensor in classifier.state_dict().values()]
    gradients = [parameter.grad for parameter in classifier.parameters()]
    values = [gradient.clone() for gradient in gradients if gradient is not None]
    drawn = torch.random.get_rng_state()
    given = images.clone()
    waiting_operations(RecordedStep(classifier, PGD(BALL, 1, 0.05)), images, labels)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert torch.equal(images, given)
    assert not classifier.training
    for tensor, old in zip(classifier.state_dict().values(), before, strict=True):
        assert torch.equal(tensor, old)
    after = [parameter.grad for parameter in classifier.parameters()]
    assert all(now is then for now, then in zip(after, gradients, strict=True))
    assert all(torch.equal(g, v) for g, v in zip(after, values, strict=True) if g is not None)


def test_a_job_says_why_its_steps_are_not_recorded(
    digits_model: ModelInput, small_digits_path: Path, tmp_path: Path
) -> None:
    spec = read_spec(
        {
            "method": "al0",
            "target": {"density": 0.1, "bits": 4},
            "threat": {"norm": "linf", "epsilon": 0.1, "steps": 1},
        },
    )
    reading = Reading(folder=tmp_path, told=lambda done, of: None)
    loaded, data = load_inputs(digits_model, small_digits_path, spec, reading)
    events: list[dict[str, Any]] = []
    inputs = Inputs(
        spec=spec,
        model=digits_model,
        blueprint=loaded.blueprint,
        notes=loaded.notes,
        read=data,
        data=data,
        classifier=loaded.classifier(digits_model.normalization),
        results=tmp_path,
    )
    looking = _classifier(_Looking(lambda x: x * x.mean().item()), channels=1)
    for classifier in (inputs.classifier, looking):
        assert events == []
        given = dataclasses.replace(inputs, classifier=classifier)
        waiting = find_waiting_operations(
            given,
            training_attack(
                spec.threat.norm, spec.threat.epsilon, spec.threat.steps, spec.threat.step_size
            ),
            MixedLoss(),
        )
        warn_of_plain_steps(waiting, events.append)
    (event,) = events
    assert (event["type"], event["code"]) == ("warning", "steps_not_recorded")
    assert "_local_scalar_dense" in event["message"]
