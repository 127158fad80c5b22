"""The attacks of a report, with the settings that a job's spec gives them."""

from dataclasses import dataclass, replace
from itertools import cycle, islice

import torch
from torch import Tensor

from atmc_core.attacks import FGSM, PGD, WRM, Attack, AutoAttack, Ball, InTurn, ball
from atmc_core.attacks.base import Model
from atmc_core.errors import InvalidInput
from atmc_spec import AUTOATTACK, AttackName, Evaluation, Threat

# The name of each member in ``AutoAttack.attacks()``, by its name in a spec.
_MEMBERS = {name: name.replace("_", "-") for name in AUTOATTACK}
# AutoAttack's members run on at most this many images at a time, their own default.
_MEMBER_BATCH = 256
# FGSM takes a forward and a backward pass, and its result is classified by another forward pass.
_FGSM_PASSES = 3
# PGD's steps add up to this many radii (Madry et al., 2018).
_PGD_PATH = 2.5
# The runs of ``pgd_smooth`` in their order: temperature, loss, and how many radii the steps add up
# to. Chosen after docs/notes/results.md, with the margin for DLR, which needs three classes.
_SMOOTH_RUNS = ((0.1, "ce", 2.5), (0.3, "cw", 6.0), (0.1, "cw", 2.5), (0.03, "ce", 6.0))


@dataclass(frozen=True)
class ReportAttack:
    """One attack of the report.

    Attributes:
        name: the attack's name in specs and reports.
        attack: the attack itself.
        settings: the settings that an auditor needs to run the attack again.
        passes: about the largest number of passes through the model that the attack takes for one
            image, forward and backward ones counted alike.
        within_threat: whether the attack keeps to the threat's ball; if so, it counts for the
            robust accuracy.
        ensemble: whether the attack runs as a member of AutoAttack, on the images that the members
            before it left standing.
        same_as: the attack, before this one in running order, whose outcome is also this one's,
            because it climbs the same gradients; then this one is not run.
    """

    name: AttackName
    attack: Attack
    settings: dict[str, float]
    passes: float
    within_threat: bool = True
    ensemble: bool = False
    same_as: AttackName | None = None


def report_attacks(
    threat: Threat, evaluation: Evaluation, num_classes: int, *, edges: bool = True
) -> dict[AttackName, ReportAttack]:
    """The attacks of the report by name, in running order; AutoAttack is its four members.

    Args:
        threat: the ball that the attacks search.
        evaluation: which attacks are run, and with which settings.
        num_classes: the number of classes of the network.
        edges: whether smooth backward passes differ from the network's own (``has_edges``).

    Raises:
        InvalidInput: ``invalid_value`` if a requested attack needs more classes.
    """
    if evaluation.attacks is not None and "pgd_dlr" in evaluation.attacks and num_classes < 3:
        raise InvalidInput(
            "invalid_value",
            f"pgd_dlr needs at least 3 classes, and the network has {num_classes}",
            "evaluation.attacks",
        )
    limits = ball(threat.norm, threat.epsilon)
    attacks: dict[AttackName, ReportAttack] = {}
    for name in evaluation.attack_names(num_classes):
        for attack in _expanded(name, limits, evaluation, num_classes):
            attacks[attack.name] = attack
    if not edges and {"pgd", "pgd_smooth"} <= attacks.keys():
        smooth = attacks["pgd_smooth"]
        settings = smooth.settings | {"restarts": 0}
        attacks["pgd_smooth"] = replace(smooth, settings=settings, passes=0, same_as="pgd")
    return attacks


def smooth_pgd(limits: Ball, steps: int, restarts: int) -> InTurn:
    """PGD on smooth backward passes, in runs that differ in temperature, loss and step size.

    Args:
        limits: the ball.
        steps: the number of gradient steps of each run.
        restarts: the number of runs, each on what the ones before it left standing.
    """
    runs = islice(cycle(_SMOOTH_RUNS), restarts)
    return InTurn(
        tuple(
            PGD(limits, steps, path * limits.epsilon / steps, loss=loss, temperature=temperature)
            for temperature, loss, path in runs
        )
    )


def pgd(limits: Ball, steps: int, loss: str = "ce") -> PGD:
    """PGD whose steps together are 2.5 radii long (Madry et al., 2018).

    So any point of the ball can be reached from any other, with some steps left over.

    Args:
        limits: the ball.
        steps: the number of gradient steps.
        loss: what is climbed; see ``PGD``.
    """
    return PGD(limits, steps, _PGD_PATH * limits.epsilon / steps, loss=loss)


def _expanded(
    name: AttackName, limits: Ball, evaluation: Evaluation, num_classes: int
) -> list[ReportAttack]:
    match name:
        case "fgsm":
            return [ReportAttack(name, FGSM(limits), {}, _FGSM_PASSES)]
        case "pgd" | "pgd_cw" | "pgd_dlr":
            return [_pgd(name, limits, evaluation)]
        case "pgd_smooth":
            steps, restarts = evaluation.pgd_steps, evaluation.smooth_restarts
            smooth = smooth_pgd(limits, steps, restarts)
            counts: dict[str, float] = {"steps": steps, "restarts": restarts}
            return [ReportAttack(name, smooth, counts, 2 * steps * restarts)]
        case "wrm":
            settings = {"gamma": evaluation.wrm_gamma, "steps": evaluation.wrm_steps}
            attack = WRM(gamma=evaluation.wrm_gamma, steps=evaluation.wrm_steps)
            passes = 2 * evaluation.wrm_steps
            return [ReportAttack(name, attack, settings, passes, within_threat=False)]
        case "autoattack":
            members = (_member(each, limits, evaluation, num_classes, True) for each in AUTOATTACK)
            return list(members)
        case _:
            return [_member(name, limits, evaluation, num_classes, False)]


def _pgd(name: AttackName, limits: Ball, evaluation: Evaluation) -> ReportAttack:
    steps, restarts = evaluation.pgd_steps, evaluation.pgd_restarts
    loss = name.removeprefix("pgd").removeprefix("_") or "ce"
    attack = pgd(limits, steps, loss)
    settings = {"steps": steps, "restarts": restarts, "step_size": attack.step_size}
    return ReportAttack(name, attack.repeat(restarts), settings, 2 * steps * restarts)


def _member(
    name: AttackName, limits: Ball, evaluation: Evaluation, num_classes: int, ensemble: bool
) -> ReportAttack:
    steps, queries = evaluation.autoattack_steps, evaluation.square_queries
    targets = min(evaluation.autoattack_targets, num_classes - 1)
    all_four = AutoAttack(
        limits,
        targets=evaluation.autoattack_targets,
        steps=steps,
        queries=queries,
        batch_size=min(evaluation.batch_size, _MEMBER_BATCH),
    ).attacks()
    settings: dict[str, float] = {"steps": steps, "targets": targets}
    passes = 2.0 * steps * targets
    if name == "apgd_ce":
        settings, passes = {"steps": steps}, 2.0 * steps
    if name == "square":
        settings, passes = {"queries": queries}, float(queries)
    return ReportAttack(name, all_four[_MEMBERS[name]], settings, passes, ensemble=ensemble)


def run_attack(
    attack: Attack,
    model: Model,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """Run an attack; returns the perturbed images, ``[N, C, H, W]``.

    Raises:
        InvalidInput: ``non_finite_outputs`` if the model has no finite outputs or gradients on the
            way, so that the attack is lost.
    """
    try:
        found = attack.run(model, images, labels, generator=generator)
        if not found.isfinite().all():
            raise FloatingPointError("the model returns NaN or infinite outputs or gradients")
    except FloatingPointError as error:
        raise InvalidInput(
            "non_finite_outputs",
            f"{error} near the images, where no attack goes on: look at what it divides by, and "
            "takes roots and logarithms of",
            "model",
        ) from error
    return found


@torch.no_grad()
def answers(model: Model, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What a model makes of images: the classes, int64 ``[N]``, and which are right, bool ``[N]``.

    Outputs that are not finite name no class, so they are wrong.
    """
    logits = model(images)
    predicted = logits.argmax(1)
    return predicted, (predicted == labels) & logits.isfinite().all(1)


def require_finite(logits: Tensor) -> None:
    """Check a model's outputs on the unperturbed images.

    Raises:
        InvalidInput: ``non_finite_outputs`` if one is NaN or infinite.
    """
    finite = logits.isfinite().flatten(1).all(1)
    if not finite.all():
        raise InvalidInput(
            "non_finite_outputs",
            f"the model returns NaN or infinite outputs for {int((~finite).sum())} of "
            f"{len(finite)} test images: check its weights and its normalization",
            "model",
        )
