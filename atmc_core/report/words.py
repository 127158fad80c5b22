"""The texts for figures and names on the page and the model card."""

from collections.abc import Iterator
from typing import Any

from atmc_core.report.headline import latency

#: The attacks' names in texts, by their names in specs.
ATTACKS = {
    "fgsm": "FGSM",
    "pgd": "PGD",
    "pgd_cw": "PGD on the CW margin",
    "pgd_dlr": "PGD on DLR",
    "pgd_smooth": "PGD, smooth backward pass",
    "wrm": "WRM",
    "autoattack": "AutoAttack",
    "apgd_ce": "APGD-CE",
    "apgd_t": "APGD-T",
    "fab_t": "FAB-T",
    "square": "Square",
}
#: The bounds' names in texts.
BOUNDS = {
    "ibp": "interval bounds",
    "crown-ibp": "CROWN on interval bounds",
    "crown": "CROWN",
    "alpha-crown": "CROWN with optimised slopes",
}
#: The norms' names in texts.
NORMS = {"linf": "L∞", "l2": "L2"}
#: What is timed, in texts.
SPEED = {
    "before": "the uploaded network",
    "after": "the compressed network (model.onnx)",
    "int8": "the compressed network in int8 (model.int8.onnx)",
    "c": "the compressed network (model.c)",
}
#: The thresholds' names in texts.
THRESHOLDS = {
    "robust_accuracy": "robust accuracy",
    "proven_accuracy": "proven accuracy",
    "clean_accuracy_drop": "clean accuracy lost",
    "file_ratio": "file size, share of the dense file",
}


# Smaller p-values are written as "smaller than".
_SMALLEST_P = 0.001
# Shorter durations have a decimal.
_SHORT_SECONDS = 10
# Numbers of 1/255 from here on are written without significant decimals.
_LARGE = 1000


def attack_name(name: str) -> str:
    """An attack's name in texts."""
    return ATTACKS.get(name, name)


def percent(share: float | None, places: int = 1) -> str:
    """A share in per cent, with a true minus sign; a dash for None."""
    return "–" if share is None else f"{100 * share:.{places}f}\u00a0%".replace("-", "−")


def points(change: float) -> str:
    """A change of a share in percentage points, with its sign (a true minus sign)."""
    return f"{100 * change:+.1f}".replace("-", "−")


def interval(share: dict[str, Any]) -> str:
    """The interval of a share, in per cent, or of a change, in percentage points."""
    if "accuracy" in share:
        return f"{100 * share['low']:.1f} to {100 * share['high']:.1f}\u00a0%"
    return f"{points(share['low'])} to {points(share['high'])}"


def size(count: float) -> str:
    """A number of bytes, in bytes, KiB, MiB or GiB."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def duration(seconds: float) -> str:
    """A time, in hours, minutes and seconds."""
    if seconds < _SHORT_SECONDS:
        return f"{seconds:.1f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{value}\u00a0{unit}" for value, unit in parts if value)


def milliseconds(seconds: float | None) -> str:
    """A latency in milliseconds with three digits; a dash for None."""
    return "–" if seconds is None else f"{1000 * seconds:.3g}\u00a0ms"


def speed_note(speed: dict[str, Any]) -> str:
    """What the figures of speed say, in sentences: above all where sparsity brings no speed.

    Args:
        speed: what was measured of speed, as in the report.
    """
    counts = speed["multiply_adds"]
    before, after, nonzero = (counts[name] for name in ("before", "after", "nonzero"))
    if after is None:
        return f"One image takes {before:,} multiply-adds."
    if after == before:
        note = (
            f"The same arithmetic: positions are sparse, the runtime is dense. onnxruntime makes "
            f"{before:,} multiply-adds for an image before and after, so model.onnx is no faster; "
            f"{nonzero:,} of them have a weight that is not zero."
        )
    else:
        note = (
            f"Whole channels are gone: {after:,} multiply-adds for an image instead of {before:,} "
            f"({percent(after / before)}), in any runtime."
        )
    dense, quantized, sparse = (latency(speed, name) for name in ("after", "int8", "c"))
    if dense is not None and quantized is not None:
        note += f" In int8 it is {_ratio(quantized, dense)} here than model.onnx."
    if sparse is None:
        return f"{note} model.c was not timed: {speed['not_measured']['c']}."
    note += f" model.c makes those of the non-zeros alone, and takes {milliseconds(sparse)} here"
    return note + ("." if dense is None else f", {_ratio(sparse, dense)} than model.onnx.")


def int8_note(int8: dict[str, Any]) -> str:
    """Whether a network in int8 is offered, and what it loses; as in the report."""
    if int8["figures"] is None:
        return f"There is no model.int8.onnx: {int8['reason']}."
    found = int8["figures"]
    text = (
        f"In int8 {percent(found['clean']['accuracy'])} of {found['clean']['count']:,} images are "
        f"right (in float32 {percent(found['float_clean']['accuracy'])}), and "
        f"{percent(found['robust']['accuracy'])} under transferred images and Square of "
        f"{found['square_queries']:,} queries ({percent(found['float_robust']['accuracy'])} under "
        f"PGD and Square); it falls on {found['fallen']:,} on which float32 stands. Attacks on "
        "its own gradients, which it does not have, might find more."
    )
    verdict = "model.int8.onnx is offered" if int8["offered"] else "model.int8.onnx is not offered"
    return f"{text} {verdict}{'' if int8['offered'] else ': ' + int8['reason']}."


def _ratio(one: float, other: float) -> str:
    """How much faster or slower one time is than another."""
    times = max(one / other, other / one)
    return f"{times:.3g} times {'faster' if one < other else 'slower'}"


def summary(report: dict[str, Any]) -> str:
    """What a report says in one line.

    Where the job made the network robust first, compression is held against that robust network,
    which has the upload's size; the upload itself was not robust.
    """
    headline = report["headline"]
    robust = percent(headline["robust_accuracy_before"])
    if "after" not in report:
        clean = percent(headline["clean_accuracy_before"])
        return f"Robust accuracy {robust}, clean accuracy {clean}"
    times = f"{1 / headline['file_ratio']:.1f} times smaller"
    if "dense" not in report:
        after = percent(headline["robust_accuracy_after"])
        return f"{times}; robust accuracy {robust} → {after}"
    change = report["difference_from_dense"]["robust"]
    # A loss is said as it was seen, a gain only where the interval bears it.
    cost = "no less robust"
    if change["value"] < 0 or change["low"] > 0:
        how = "less" if change["value"] < 0 else "more"
        cost = f"{abs(100 * change['value']):.1f} points {how} robust"
    return f"{times} than the robust network, {cost}"


def figure(value: float | None) -> str:
    """A number with three digits; a dash for None."""
    return "–" if value is None else f"{value:.3g}"


def in_255(value: float | None) -> str:
    """A length that is given in 255ths, as a fraction; nothing for None."""
    if value is None:
        return ""
    return f"{value:,.0f}/255" if value >= _LARGE else f"{value:.3g}/255"


def p_value(value: float) -> str:
    """A p-value with three decimals."""
    return f"<\u00a0{_SMALLEST_P}" if value < _SMALLEST_P else f"{value:.3f}"


def leaves(document: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as pairs of a dotted name and the value as text."""
    for key, value in document.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        elif isinstance(value, list):
            yield path + key, ", ".join(str(item) for item in value)
        else:
            yield path + key, f"{value:.6g}" if isinstance(value, float) else str(value)
