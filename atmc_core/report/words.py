"""The texts for figures and names on the page and the model card."""

from collections.abc import Iterator
from typing import Any

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
    return f"< {_SMALLEST_P}" if value < _SMALLEST_P else f"{value:.3f}"


def leaves(document: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as pairs of a dotted name and the value as text."""
    for key, value in document.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        elif isinstance(value, list):
            yield path + key, ", ".join(str(item) for item in value)
        else:
            yield path + key, f"{value:.6g}" if isinstance(value, float) else str(value)
