"""Checks for the objections that an auditor might have to the figures of a report."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from atmc_core.data import FEWER_CLASSES, DataSet, Split
from atmc_core.evaluation.statistics import images_for
from atmc_spec import Threat
from atmc_spec.names import EvaluatedSplit

Check = dict[str, Any]

#: The radius that publications use for images of this shape (channels, height, width) and norm.
USUAL_EPSILON = {
    ("linf", (3, 32, 32)): (8 / 255, "8/255"),
    ("linf", (1, 28, 28)): (0.3, "0.3"),
    ("l2", (3, 32, 32)): (0.5, "0.5"),
}
# A finding on more than this share of the probed images is not taken for chance.
_FEW = 0.01
# Square may fool the model on this share of further images, as in AutoAttack's own check.
_SQUARE_MARGIN = 0.002
# PGD on smooth backward passes may fool the model on this share of further images. (It finds up to
# 4 % more than PGD on networks that were trained against it, and 8 to 22 % on those that hide.)
_MASKED = 0.06
# A network with loose operations is hindered by them if less than this share of what withstands the
# attacks is proven.
_HINDERED = 0.5
# Outputs of two equal runs may differ by this share of the largest output.
_OUTPUT_CHANGE = 1e-4
# Half the width that the interval of the robust accuracy may have.
_HALF_WIDTH = 0.05
# An epsilon that is smaller by this share than the usual one is not smaller but rounded.
_ROUNDING = 1e-6


def side_checks(state: dict[str, Any], side: dict[str, Any], num_classes: int) -> list[Check]:
    """The checks of one classifier.

    Args:
        state: the results of its evaluation (see ``Evaluator``).
        side: its side of the report.
        num_classes: the number of classes.

    Returns:
        For each check its ``code``, its ``status`` (raised, passed or not_run), a ``message`` and
        the ``figures`` in it.
    """
    return [
        _vanishing_gradients(state["probe"]),
        _square(state),
        _masked_gradients(state),
        *_form(state.get("proof"), side),
        _above_chance(side["curve"], num_classes),
        _effort(state["probe"]["effort"]),
        _changing_outputs(state["probe"]),
        _softmax(state["probe"]),
        _few_images(side["robust"]),
        *_logit_scale(state["probe"]),
    ]


def network_checks(notes: Iterable[tuple[str, str]]) -> list[Check]:
    """The checks that the import of the network has raised; none if it raised none.

    Args:
        notes: what was noted in reading the network, as pairs of a code and a sentence.
    """
    return [_check(code, True, message) for code, message in notes if code == "head_kept"]


def data_checks(
    data: DataSet, images: Tensor, threat: Threat, split: EvaluatedSplit = "test"
) -> list[Check]:
    """The checks that do not depend on the classifier.

    Args:
        data: the job's data set.
        images: the evaluated images, uint8 ``[N, C, H, W]``.
        threat: the ball within which the classifier should be robust.
        split: the split that the images are of.

    Returns:
        As ``side_checks``.
    """
    found = [
        _epsilon(threat, tuple(images.shape[1:])),
        _choice(split),
        _overlap(data, images, split),
    ]
    # Whoever reads the report looks at its warnings first, and this one may explain all figures.
    missing = [message for code, message in data.notes if code == FEWER_CLASSES]
    names = len(data.class_names)
    return found + [_check(FEWER_CLASSES, True, message, classes=names) for message in missing]


def raised_check(code: str, message: str, **figures: Any) -> Check:
    """A check that was raised before anything was evaluated."""
    return _check(code, True, message, **figures)


def _check(code: str, raised: bool | None, message: str, **figures: Any) -> Check:
    status = {True: "raised", False: "passed", None: "not_run"}[raised]
    return {"code": code, "status": status, "message": message, "figures": figures}


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _vanishing_gradients(probe: dict[str, Any]) -> Check:
    code, count, of = "vanishing_gradients", probe["vanishing"], probe["right"]
    if not of:
        return _check(code, None, "No probed image is classified right, so none has a gradient.")
    return _check(
        code,
        count / of > _FEW,
        f"The loss gradient vanishes for {count} of {of} probed images; where it does, gradient "
        "attacks have nothing to climb and robustness may be only apparent.",
        vanishing=count,
        images=of,
    )


def _square(state: dict[str, Any]) -> Check:
    code, attacks = "square_beats_white_box", state["attacks"]
    if "square" not in attacks:
        return _check(code, None, "The black-box attack Square did not run; level standard has it.")
    white = state["clean"]["right"].clone()
    for name, found in attacks.items():
        if name != "square" and found["within_threat"]:
            white &= found["right"]
    extra = int((white & ~attacks["square"]["right"]).sum())
    return _check(
        code,
        extra / len(white) > _SQUARE_MARGIN,
        f"Square, which sees no gradients, fools the model on {extra} images that withstand every "
        "white-box attack; when it finds many, gradients are masked.",
        images=extra,
        count=len(white),
    )


def _masked_gradients(state: dict[str, Any]) -> Check:
    code, attacks = "masked_gradients", state["attacks"]
    plain = [attacks[name] for name in ("pgd", "pgd_cw", "pgd_dlr") if name in attacks]
    if "pgd_smooth" not in attacks or not plain:
        message = "PGD and PGD on smooth backward passes did not both run; every level has both."
        return _check(code, None, message)
    if not state["edges"]:
        return _check(
            code,
            None,
            "The network takes no maxima, clips and rounds nothing, so there is nothing to smooth: "
            "its gradients are its own in PGD on smooth backward passes, too.",
        )
    withstood = torch.stack([found["right"] for found in plain]).all(0)
    extra, count = int((withstood & ~attacks["pgd_smooth"]["right"]).sum()), len(withstood)
    raised = extra / count > _MASKED
    return _check(
        code,
        raised,
        f"{'Gradients are masked: s' if raised else 'S'}mooth backward passes, which change no "
        f"output, fool the model on {extra} of {count:,} images that withstand PGD on its own "
        "gradients.",
        images=extra,
        count=count,
    )


def _form(proof: dict[str, Any] | None, side: dict[str, Any]) -> list[Check]:
    """Whether the network's form is in a proof's way; none where nothing is proven of it."""
    if proof is None or proof["reason"]:
        return []
    code, attacked, proven = "form_hinders_proof", side["robust"], side["proven"]["share"]
    loose = proof.get("loose", ())  # a checkpoint of before does not say
    raised = bool(loose) and proven["accuracy"] < _HINDERED * attacked["accuracy"]
    has = " and ".join(loose)
    figures = {"proven": proven["accuracy"], "robust": attacked["accuracy"]}
    if raised:
        message = (
            f"{_percent(proven['accuracy'])} are proven and {_percent(attacked['accuracy'])} "
            f"withstand the attacks. The network has {has}, over which bounds are loose: its form "
            "is in the way, and other weights would not help much. Strides instead, as in "
            "clipped_cnn, are easier to prove."
        )
    else:
        message = (
            f"Bounds are loose over {has}, but prove much."
            if has
            else ("No operation of the network makes bounds loose by itself.")
        )
    return [_check(code, raised, message, **figures)]


def _above_chance(curve: list[dict[str, Any]], num_classes: int) -> Check:
    last, chance = curve[-1], 1 / num_classes
    return _check(
        "above_chance_at_large_epsilon",
        last["accuracy"] > chance,
        f"At epsilon {last['epsilon']:.3g} accuracy is {_percent(last['accuracy'])}, chance is "
        f"{_percent(chance)}; a radius that large should leave nothing standing.",
        epsilon=last["epsilon"],
        accuracy=last["accuracy"],
        chance=chance,
    )


def _effort(effort: dict[str, Any]) -> Check:
    fallen, images = effort["fallen"], effort["images"]
    return _check(
        "more_effort_lowers_accuracy",
        fallen / images > _FEW,
        f"PGD with {effort['steps']} steps from one more random start fools the model on {fallen} "
        f"of {images} probed images that had withstood every attack of the report; the attacks "
        "have converged when it finds none.",
        **effort,
    )


def _changing_outputs(probe: dict[str, Any]) -> Check:
    change = probe["output_change"]
    return _check(
        "outputs_change_between_runs",
        change > _OUTPUT_CHANGE,
        f"Two runs on the same images differ by {change:.2g} of the largest output; a model that "
        "answers at random needs attacks on its expectation.",
        relative_change=change,
    )


def _softmax(probe: dict[str, Any]) -> Check:
    what = "are probabilities" if probe["softmax"] else "are logits"
    return _check(
        "softmax_outputs",
        probe["softmax"],
        f"The outputs {what}; a softmax inside the model makes gradients vanish and figures "
        "flatter it.",
    )


def _logit_scale(probe: dict[str, Any]) -> list[Check]:
    """The check of the logits' scale; none if it is usual."""
    exponent = probe.get("logit_exponent", 0)
    if not exponent:
        return []
    size, change = ("small", "multiplied") if exponent > 0 else ("large", "divided")
    return [
        _check(
            "unusual_logit_scale",
            True,
            f"The logits are unusually {size}, so the gradients of the cross-entropy are of little "
            f"use to an attack; all attacks saw them {change} by 2 to the power {abs(exponent)}, "
            "which changes no decision.",
            exponent=exponent,
        )
    ]


def _few_images(robust: dict[str, Any]) -> Check:
    half = (robust["high"] - robust["low"]) / 2
    needed = images_for(robust["accuracy"], _HALF_WIDTH)
    return _check(
        "few_images",
        half > _HALF_WIDTH,
        f"{robust['count']:,} images give the robust accuracy an interval of "
        f"±{100 * half:.1f} points; {needed:,} are needed for ±{100 * _HALF_WIDTH:.0f} points.",
        count=robust["count"],
        needed=needed,
        half_width=half,
    )


def _epsilon(threat: Threat, shape: tuple[int, ...]) -> Check:
    code = "epsilon_below_usual"
    known = USUAL_EPSILON.get((threat.norm, shape))  # type: ignore[arg-type]
    if known is None:
        size = "x".join(str(side) for side in shape)
        return _check(
            code, None, f"No {threat.norm} radius is usual in publications for {size} images."
        )
    usual, written = known
    return _check(
        code,
        threat.epsilon < usual * (1 - _ROUNDING),
        f"Epsilon is {threat.epsilon:.4g}; publications on images of this size use {written}, so "
        "figures at a smaller radius do not compare with theirs.",
        epsilon=threat.epsilon,
        usual=usual,
    )


def _choice(split: EvaluatedSplit) -> Check:
    return _check(
        "evaluated_on_validation",
        split == "validation",
        "All figures are of validation images, by which jobs choose their best epoch, and people "
        "and sweeps between jobs: on images that chose nothing they may be worse. Take the figures "
        "of the same spec with evaluation.split test for the result."
        if split == "validation"
        else "The figures are of test images, by which the job has chosen nothing.",
    )


def _overlap(data: DataSet, images: Tensor, split: EvaluatedSplit) -> Check:
    seen = (data.train,) if split == "validation" else (data.train, data.val)
    judged = data.evaluated(split)
    known = {digest for each in seen for digest in image_digests(each.images)}
    found, evaluated = (
        sum(digest in known for digest in image_digests(each)) for each in (judged.images, images)
    )
    others = "training data" if split == "validation" else "training or validation data"
    return _check(
        "test_images_in_training_data",
        found > 0,
        f"{found:,} of all {len(judged):,} {split} images, {evaluated:,} of them evaluated, also "
        f"occur, byte for byte, in the {others}, where the model has seen the answer.",
        images=found,
        count=len(judged),
        evaluated=evaluated,
    )


def image_digests(images: Tensor) -> Iterator[bytes]:
    """Yield the SHA-256 digest of each image of uint8 ``[N, C, H, W]``."""
    for image in images.cpu().numpy():
        yield hashlib.sha256(image.tobytes()).digest()


def split_digest(split: Split) -> str:
    """The SHA-256 digest of a split's images and labels, in hexadecimal."""
    digest = hashlib.sha256(split.images.cpu().numpy().tobytes())
    digest.update(split.labels.cpu().numpy().tobytes())
    return digest.hexdigest()
