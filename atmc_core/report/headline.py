"""The few figures by which a job is judged, and the verdict on them."""

from pathlib import Path
from typing import Any

from atmc_core.artifact import CompressedModel
from atmc_spec import Accept, Threshold

#: A figure with the ends of its 95 % interval.
Interval = tuple[float, float, float]
#: Attacks whose robust accuracy is a figure of the headline, too.
_ATTACKS = ("fgsm", "pgd")


def accuracies(side: dict[str, Any], when: str) -> dict[str, float | None]:
    """Accuracies of one side of the report, named as the headline names them.

    Args:
        when: ``before`` or ``after``.
    """
    attacks = {attack["name"]: attack["accuracy"] for attack in side["attacks"]}
    figures = {"clean": side["clean"]["accuracy"], "robust": side["robust"]["accuracy"]}
    figures |= {name: attacks.get(name) for name in _ATTACKS}
    return {f"{name}_accuracy_{when}": figure for name, figure in figures.items()}


def sizes(result: CompressedModel, path: Path, dense_bytes: int) -> dict[str, Any]:
    """Non-zeros, bits and bytes; ratios are to the dense float32 network.

    Args:
        result: the decoded artifact.
        path: its file.
        dense_bytes: size of the dense float32 state dict as a safetensors file.
    """
    u, v, c = result.nonzeros()
    distinct = result.distinct_values()
    file_bytes = path.stat().st_size
    return {
        "k": result.k,
        "nonzeros": u + v + c,
        "nonzeros_u": u,
        "nonzeros_v": v,
        "nonzeros_c": c,
        "bits": result.bits,
        "max_distinct_values": max(max(counts) for counts in distinct.values()),
        "dense_bytes": dense_bytes,
        "file_bytes": file_bytes,
        "file_ratio": file_bytes / dense_bytes,
        "nominal_ratio": result.nominal_ratio(),
    }


def layer_table(result: CompressedModel) -> list[dict[str, Any]]:
    """For every weight: its shape, and the non-zeros and distinct values of U, V and C."""
    distinct = result.distinct_values()
    return [
        {
            "weight": name,
            "shape": list(factors.view.shape),
            "groups": factors.view.groups,
            "weights": factors.c.numel(),
            "nonzeros": {
                factor: int(tensor.count_nonzero())
                for factor, tensor in zip("uvc", factors.tensors, strict=True)
            },
            "distinct_values": dict(zip("uvc", distinct[name], strict=True)),
        }
        for name, factors in result.factors.items()
    ]


def acceptance(
    accept: Accept,
    result: dict[str, Any],
    difference: dict[str, Any] | None,
    file_ratio: float | None,
) -> dict[str, Any]:
    """The verdict: each threshold that the job names, held against its figure.

    ``decided`` says whether the whole 95 % interval of the figure lies on the verdict's side.

    Args:
        result: the side of the report that is judged.
        difference: of the clean accuracy, after minus before.
    """
    found: dict[str, Interval | None] = {
        "robust_accuracy": _interval(result["robust"], "accuracy"),
        "clean_accuracy_drop": _negative(_interval(difference, "value")) if difference else None,
        "file_ratio": None if file_ratio is None else (file_ratio, file_ratio, file_ratio),
    }
    thresholds = [
        _verdict(threshold, *figure)
        for threshold in accept.thresholds()
        if (figure := found[threshold.name]) is not None
    ]
    accepted = all(threshold["passed"] for threshold in thresholds) if thresholds else None
    return {"accepted": accepted, "thresholds": thresholds}


def _interval(figure: dict[str, Any], name: str) -> Interval:
    return figure[name], figure["low"], figure["high"]


def _negative(interval: Interval) -> Interval:
    value, low, high = interval
    return -value, -high, -low


def _verdict(threshold: Threshold, figure: float, low: float, high: float) -> dict[str, Any]:
    return {
        "name": threshold.name,
        "bound": threshold.bound,
        "limit": threshold.limit,
        "figure": figure,
        "low": low,
        "high": high,
        "passed": threshold.is_met(figure),
        # A figure lies within its interval, so both ends agree on its side or not at all.
        "decided": threshold.is_met(low) == threshold.is_met(high),
    }
