"""A factor on the logits changes no decision, and hardly the robust accuracy."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from atmc_core.data import DataSet, Split
from atmc_core.evaluation.evaluator import Evaluator, worst_case
from atmc_core.evaluation.scale import scale_exponent, scaled
from atmc_core.networks.classifier import Classifier
from atmc_core.report.checks import side_checks
from atmc_core.report.figures import side
from atmc_spec import Evaluation, Threat

THREAT = Threat(norm="linf", epsilon=0.1)
EVALUATION = Evaluation(pgd_steps=10, curve_steps=2, curve_images=20, batch_size=60)


@pytest.fixture
def sample(digits: DataSet) -> Split:
    return Split(digits.test.images[:60], digits.test.labels[:60])


def _evaluated(classifier: Classifier, factor: float, sample: Split) -> dict[str, Any]:
    """The state of the classifier whose last layer is multiplied by a factor."""
    changed = copy.deepcopy(classifier)
    last = [each for each in changed.modules() if isinstance(each, nn.Linear)][-1]
    with torch.no_grad():
        for tensor in last.parameters():
            tensor *= factor
    evaluator = Evaluator(changed, sample, THREAT, EVALUATION, 10, 3)
    for index in range(len(evaluator.portions)):
        evaluator.run_portion(index)
    return evaluator.state()


def _codes(state: dict[str, Any], sample: Split) -> set[str]:
    figures = side(state, sample.labels, 10, THREAT)
    return {check["code"] for check in side_checks(state, figures, 10)}


def test_a_factor_in_the_weights_does_not_hide_what_attacks_find(
    digits_classifier: Classifier, sample: Split
) -> None:
    plain = _evaluated(digits_classifier, 1, sample)
    assert "unusual_logit_scale" not in _codes(plain, sample)
    assert "logit_exponent" not in plain["probe"]
    huge, vast, tiny = (_evaluated(digits_classifier, 2.0**n, sample) for n in (14, 20, -20))
    for state, exponents in ((huge, range(-17, -10)), (tiny, range(17, 24))):
        assert state["probe"]["logit_exponent"] in exponents
        assert "unusual_logit_scale" in _codes(state, sample)
        assert torch.equal(state["clean"]["predicted"], plain["clean"]["predicted"])
        gap = worst_case(state).float().mean() - worst_case(plain).float().mean()
        assert gap <= 0.05
    # Powers of two round nothing, so these are the same to the last image.
    assert torch.equal(worst_case(huge), worst_case(vast))
    assert torch.equal(worst_case(huge), worst_case(tiny))


@pytest.mark.parametrize(
    ("margin", "exponent"), [(0.26, 0), (8, 0), (63, 0), (65, -3), (8e6, -20), (1e-6, 23), (0, 0)]
)
def test_the_median_margin_tells_the_scale(margin: float, exponent: int) -> None:
    logits = torch.tensor([[0.0, margin, -margin], [margin, 0, 0], [0, 0, 1e9]])

    def model(images: Tensor) -> Tensor:
        return logits.float()

    images = torch.zeros(3, 1, 2, 2)
    assert scale_exponent(model, images, torch.tensor([1, 0, 1])) == exponent
    assert scale_exponent(model, images, torch.tensor([0, 1, 0])) == 0  # it has learned nothing
    changed = scaled(model, exponent)(torch.zeros(3, 1, 2, 2))
    assert torch.equal(changed.argmax(1), logits.argmax(1))


def test_outputs_that_are_not_finite_are_left_to_the_evaluation() -> None:
    images, labels = torch.ones(2, 1, 1, 3), torch.zeros(2, dtype=torch.int64)
    assert scale_exponent(lambda images: images.flatten(1) * torch.inf, images, labels) == 0
