"""The figures by which a job is judged, and the verdict on them."""

from pathlib import Path
from typing import Any

from atmc_core.artifact import CompressedModel
from atmc_spec import Accept, Threshold

#: A figure with the ends of its 95 % interval.
Interval = tuple[float, float, float]
# Where nothing can be proven, nothing is.
_NOTHING: Interval = (0.0, 0.0, 0.0)
#: The figures that differ from run to run, since they are times.
MEASURED = ("seconds", "latency_before_s", "latency_after_s", "latency_c_s")
# The accuracies under these attacks are figures of the headline, too.
_ATTACKS = ("fgsm", "pgd")


def accuracies(side: dict[str, Any], when: str) -> dict[str, float | None]:
    """The accuracies of one side of the report, with their names in the headline.

    Args:
        side: the side of the report.
        when: which side it is: ``before``, ``dense`` or ``after``.
    """
    attacks = {attack["name"]: attack["accuracy"] for attack in side["attacks"]}
    figures = {"clean": side["clean"]["accuracy"], "robust": side["robust"]["accuracy"]}
    figures |= {name: attacks.get(name) for name in _ATTACKS}
    figures["proven"] = share["accuracy"] if (share := proven_share(side)) else None
    return {f"{name}_accuracy_{when}": figure for name, figure in figures.items()}


def intervals(side: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The accuracies of one side with the ends of their 95 % intervals.

    Args:
        side: the side of the report.

    Returns:
        ``accuracy``, ``low`` and ``high`` of clean images (``clean``), under every attack
        (``robust``), and under each by its name.
    """
    shares = {"clean": side["clean"], "robust": side["robust"]}
    shares |= {attack["name"]: attack for attack in side["attacks"]}
    ends = ("accuracy", "low", "high")
    return {name: {end: share[end] for end in ends} for name, share in shares.items()}


def proven_share(side: dict[str, Any]) -> dict[str, Any] | None:
    """The proven share of one side of the report; None if nothing was or could be proven."""
    proven = side.get("proven")  # reports of before have none
    return proven["share"] if proven else None


def sizes(result: CompressedModel, path: Path, dense_bytes: int) -> dict[str, Any]:
    """The numbers of non-zeros, bits and bytes, and their ratios to the dense float32 network.

    Args:
        result: the decoded artifact.
        path: the artifact's file.
        dense_bytes: the size of the dense float32 state dict as a safetensors file.
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


def speed(found: dict[str, Any] | None, compressed: bool) -> dict[str, Any]:
    """The latency of one image on one thread, and the multiply-adds; None where not measured.

    Args:
        found: what was measured of speed, as in the report.
        compressed: whether there is a compressed network.
    """
    counts = found["multiply_adds"] if found else {}
    networks, counted = ["before"], ["before"]
    if compressed:
        networks, counted = ["before", "after", "c"], ["before", "after", "nonzero"]
    return {f"latency_{network}_s": latency(found, network) for network in networks} | {
        f"multiply_adds_{which}": counts.get(which) for which in counted
    }


def latency(found: dict[str, Any] | None, network: str) -> float | None:
    """The median seconds that a network took for one image on one thread, if it was timed."""
    for entry in found["latency"] if found else ():
        if (entry["network"], entry["batch"], entry["threads"]) == (network, 1, 1):
            median: float = entry["median_s"]
            return median
    return None


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
    """The verdict: whether the figures meet the thresholds that the spec names.

    A threshold is ``passed`` if the figure meets it, and ``decided`` if the whole 95 % interval of
    the figure is on the same side of it.

    Args:
        accept: the thresholds.
        result: the side of the report that is judged.
        difference: the change of the clean accuracy from before to after, if there is an after.
        file_ratio: the artifact's size as a share of the dense network's, if there is an artifact.

    Returns:
        ``accepted``, None if the spec names no threshold, and ``thresholds``, a list.
    """
    proven = proven_share(result)
    found: dict[str, Interval | None] = {
        "proven_accuracy": _interval(proven, "accuracy") if proven else _NOTHING,
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
        # The figure is inside its interval, so if both ends are on one side, the figure is, too.
        "decided": threshold.is_met(low) == threshold.is_met(high),
    }
