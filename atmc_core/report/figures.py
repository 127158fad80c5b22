"""The figures of a report: accuracies and differences with intervals, from results per image."""

from typing import Any

import torch
from torch import Tensor

from atmc_core.certification import BOUNDS
from atmc_core.evaluation.evaluator import State, worst_case
from atmc_core.evaluation.statistics import PairedCounts, mcnemar, paired_difference, wilson
from atmc_spec import AUTOATTACK, Threat


def share(correct: int, count: int) -> dict[str, Any]:
    """The accuracy ``correct / count`` with its 95 % Wilson interval, as in the report."""
    estimate = wilson(correct, count)
    return {
        "accuracy": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "correct": correct,
        "count": count,
    }


def side(state: State, labels: Tensor, num_classes: int, threat: Threat) -> dict[str, Any]:
    """All figures of one classifier, as in the report.

    Args:
        state: the results of its evaluation (see ``Evaluator``).
        labels: the labels of the evaluated images, int64 ``[N]`` on the CPU.
        num_classes: the number of classes.
        threat: the ball within which the classifier should be robust.
    """
    clean, worst = state["clean"]["right"], worst_case(state)
    curve = state["curve"]
    return {
        "clean": _share_of(clean),
        "robust": _share_of(worst),
        "attacks": [_attack(name, found, threat) for name, found in _with_ensemble(state).items()],
        "per_class": [
            {
                "class": str(label),
                "clean": _share_of(clean[labels == label]),
                "robust": _share_of(worst[labels == label]),
            }
            for label in range(num_classes)
            if bool((labels == label).any())
        ],
        "curve": _points(curve, len(curve["standing"])),
        "proven": _proven(state.get("proof")),
    }


def _proven(proof: State | None) -> dict[str, Any] | None:
    """What is proven, or why nothing is; None if nothing was asked for."""
    if proof is None:
        return None
    by, curve = proof["by"], proof["curve"]
    return {
        "method": proof["method"],
        "reason": proof["reason"],
        "share": None if proof["reason"] else _share_of(by >= 0),
        "bounds": {name: int((by == place).sum()) for place, name in enumerate(BOUNDS)},
        "tried": proof["tried"],
        "seconds": proof["seconds"],
        "curve": _points(curve, len(curve["proven"])),
    }


def _points(curve: State, count: int) -> list[dict[str, Any]]:
    """The points of a curve over ``count`` images."""
    return [
        {"epsilon": epsilon, "epsilon_255": 255 * epsilon} | share(correct, count)
        for epsilon, correct in zip(curve["epsilons"], curve["correct"], strict=True)
    ]


def differences(before: State, after: State) -> dict[str, Any]:
    """The changes of the accuracies: clean, under each attack, and in the worst case.

    Args:
        before: the results for the uploaded classifier (see ``Evaluator``).
        after: the results for the compressed one, on the same images.
    """
    pairs = {"clean": (before["clean"]["right"], after["clean"]["right"])}
    others = _with_ensemble(after)
    pairs |= {
        name: (found["right"], others[name]["right"])
        for name, found in _with_ensemble(before).items()
    }
    pairs["robust"] = (worst_case(before), worst_case(after))
    return {name: _difference(*pair) for name, pair in pairs.items()}


def _share_of(right: Tensor) -> dict[str, Any]:
    return share(int(right.sum()), len(right))


def _with_ensemble(state: State) -> dict[str, State]:
    """The results of all attacks; if AutoAttack ran, also those of its members together."""
    attacks: dict[str, State] = state["attacks"]
    last = attacks.get(AUTOATTACK[-1])
    if last is None or not last["ensemble"]:
        return attacks
    members = [attacks[name] for name in AUTOATTACK]
    sizes = torch.stack([member["size"] for member in members])
    # For each image the result of the last member that tried it counts.
    size = sizes[0]
    for later in sizes[1:]:
        size = torch.where(later.isnan(), size, later)
    whole = {"right": last["right"], "size": size, "settings": {}, "within_threat": True}
    whole |= {"ensemble": False}
    whole |= {
        name: sum(member[name] for member in members) for name in ("seconds", "forward", "backward")
    }
    return attacks | {"autoattack": whole}


def _attack(name: str, found: State, threat: Threat) -> dict[str, Any]:
    # Attacks that found nothing return the image itself; its size of 0 is not a perturbation's.
    sizes = found["size"][found["size"] > 0].double()
    mean, largest = (float(sizes.mean()), float(sizes.max())) if len(sizes) else (None, None)
    return {
        "name": name,
        "settings": found["settings"],
        "within_threat": found["within_threat"],
        "member": found["ensemble"],
        "norm": threat.norm,
        "epsilon": threat.epsilon if found["within_threat"] else None,
        **_share_of(found["right"]),
        "attacked": int((~found["size"].isnan()).sum()),
        "changed": len(sizes),
        "perturbation": {
            "mean": mean,
            "largest": largest,
            "mean_255": None if mean is None else 255 * mean,
            "largest_255": None if largest is None else 255 * largest,
        },
        "seconds": found["seconds"],
        "forward_passes": found["forward"],
        "backward_passes": found["backward"],
    }


def _difference(before: Tensor, after: Tensor) -> dict[str, Any]:
    counts = PairedCounts(
        both=int((before & after).sum()),
        only_first=int((before & ~after).sum()),
        only_second=int((~before & after).sum()),
        neither=int((~before & ~after).sum()),
    )
    estimate = paired_difference(counts)
    test = mcnemar(counts.only_first, counts.only_second)
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "both": counts.both,
        "only_before": counts.only_first,
        "only_after": counts.only_second,
        "neither": counts.neither,
        "mcnemar_exact_p": test.exact,
        "mcnemar_mid_p": test.mid_p,
    }
