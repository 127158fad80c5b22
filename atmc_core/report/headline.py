"""The few figures by which a job is judged, and the verdict on them."""

from pathlib import Path
from typing import Any

from atmc_core.artifact import CompressedModel
from atmc_core.config import Accept

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
    thresholds = []
    if accept.robust_accuracy is not None:
        robust = result["robust"]
        figure = (robust["accuracy"], robust["low"], robust["high"])
        thresholds.append(_at_least("robust_accuracy", accept.robust_accuracy, *figure))
    if accept.clean_accuracy_drop is not None and difference is not None:
        drop = (-difference["value"], -difference["high"], -difference["low"])
        thresholds.append(_at_most("clean_accuracy_drop", accept.clean_accuracy_drop, *drop))
    if accept.file_ratio is not None and file_ratio is not None:
        ratio = (file_ratio, file_ratio, file_ratio)
        thresholds.append(_at_most("file_ratio", accept.file_ratio, *ratio))
    accepted = all(threshold["passed"] for threshold in thresholds) if thresholds else None
    return {"accepted": accepted, "thresholds": thresholds}


def _at_least(name: str, limit: float, figure: float, low: float, high: float) -> dict[str, Any]:
    passed = figure >= limit
    decided = low >= limit if passed else high < limit
    return _threshold(name, "at_least", limit, (figure, low, high), passed, decided)


def _at_most(name: str, limit: float, figure: float, low: float, high: float) -> dict[str, Any]:
    passed = figure <= limit
    decided = high <= limit if passed else low > limit
    return _threshold(name, "at_most", limit, (figure, low, high), passed, decided)


def _threshold(
    name: str,
    bound: str,
    limit: float,
    figure: tuple[float, float, float],
    passed: bool,
    decided: bool,
) -> dict[str, Any]:
    value, low, high = figure
    return {
        "name": name,
        "bound": bound,
        "limit": limit,
        "figure": value,
        "low": low,
        "high": high,
        "passed": passed,
        "decided": decided,
    }
