"""From what an evaluation found, image by image, to shares with their intervals."""

from typing import Any

import torch
from torch import Tensor

from atmc_core.config import Threat
from atmc_core.statistics import PairedCounts, mcnemar, paired_difference, wilson

#: What an ``Evaluator`` found (see there).
State = dict[str, Any]


def share(correct: int, count: int) -> dict[str, Any]:
    """An accuracy with its 95 % Wilson interval."""
    estimate = wilson(correct, count)
    return {
        "accuracy": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "correct": correct,
        "count": count,
    }


def robust(state: State) -> Tensor:
    """The per-image worst case, bool ``[N]``: right when clean and under every attack."""
    rights = [found["right"] for found in state["attacks"].values()]
    return torch.stack([state["clean"]["right"], *rights]).all(0)


def side(state: State, labels: Tensor, num_classes: int, threat: Threat) -> dict[str, Any]:
    """All figures of one classifier.

    Args:
        labels: of the evaluated images, int64 ``[N]`` on the CPU.
    """
    clean, worst = state["clean"]["right"], robust(state)
    curve = state["curve"]
    return {
        "clean": _share_of(clean),
        "robust": _share_of(worst),
        "attacks": [_attack(name, found, threat) for name, found in state["attacks"].items()],
        "per_class": [
            {
                "class": str(label),
                "clean": _share_of(clean[labels == label]),
                "robust": _share_of(worst[labels == label]),
            }
            for label in range(num_classes)
            if bool((labels == label).any())
        ],
        "curve": [
            {"epsilon": epsilon, "epsilon_255": 255 * epsilon}
            | share(correct, len(curve["standing"]))
            for epsilon, correct in zip(curve["epsilons"], curve["correct"], strict=True)
        ],
    }


def differences(before: State, after: State) -> dict[str, Any]:
    """After minus before on the same images: clean, for each attack, and in the worst case."""
    pairs = {"clean": (before["clean"]["right"], after["clean"]["right"])}
    pairs |= {
        name: (found["right"], after["attacks"][name]["right"])
        for name, found in before["attacks"].items()
    }
    pairs["robust"] = (robust(before), robust(after))
    return {name: _difference(*pair) for name, pair in pairs.items()}


def _share_of(right: Tensor) -> dict[str, Any]:
    return share(int(right.sum()), len(right))


def _attack(name: str, found: State, threat: Threat) -> dict[str, Any]:
    sizes = found["size"][~found["size"].isnan()].double()
    mean, largest = (float(sizes.mean()), float(sizes.max())) if len(sizes) else (None, None)
    return {
        "name": name,
        "norm": threat.norm,
        "epsilon": threat.epsilon,
        **_share_of(found["right"]),
        "attacked": len(sizes),
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
