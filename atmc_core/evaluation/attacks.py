"""The attacks that a report can hold, as a job's spec asks for them."""

from dataclasses import dataclass

from atmc_core.attacks import FGSM, PGD, WRM, Attack, AutoAttack, Ball, ball
from atmc_core.errors import InvalidInput
from atmc_spec import AUTOATTACK, AttackName, Evaluation, Threat

#: AutoAttack's own name of each of its four.
_MEMBERS = {name: name.replace("_", "-") for name in AUTOATTACK}
_MEMBER_BATCH = 256


@dataclass(frozen=True)
class ReportAttack:
    """One attack of the report.

    Attributes:
        settings: what an auditor needs to run it again.
        passes: about how many passes of an image through the model it takes, at most.
        within_threat: whether it keeps to the threat's ball and so counts for robust accuracy.
        ensemble: whether it is one of AutoAttack's, which tries only what those before it left.
    """

    name: AttackName
    attack: Attack
    settings: dict[str, float]
    passes: float
    within_threat: bool = True
    ensemble: bool = False


def report_attacks(
    threat: Threat, evaluation: Evaluation, num_classes: int
) -> dict[AttackName, ReportAttack]:
    """The attacks of the report by name, in running order; AutoAttack as its four members.

    Raises:
        InvalidInput: if an attack that was named needs more classes.
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
    return attacks


def pgd(limits: Ball, steps: int, loss: str = "ce") -> PGD:
    """PGD with steps of 2.5 epsilon / steps (Madry et al., 2018): across the ball and back."""
    return PGD(limits, steps, 2.5 * limits.epsilon / steps, loss=loss)


def _expanded(
    name: AttackName, limits: Ball, evaluation: Evaluation, num_classes: int
) -> list[ReportAttack]:
    match name:
        case "fgsm":
            return [ReportAttack(name, FGSM(limits), {}, 3)]
        case "pgd" | "pgd_cw" | "pgd_dlr":
            return [_pgd(name, limits, evaluation)]
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
