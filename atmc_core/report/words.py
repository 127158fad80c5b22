"""How the page and the model card write figures and names."""

from collections.abc import Iterator
from typing import Any

#: What people call an attack.
ATTACKS = {
    "fgsm": "FGSM",
    "pgd": "PGD",
    "pgd_cw": "PGD on the CW margin",
    "pgd_dlr": "PGD on DLR",
    "wrm": "WRM",
    "autoattack": "AutoAttack",
    "apgd_ce": "APGD-CE",
    "apgd_t": "APGD-T",
    "fab_t": "FAB-T",
    "square": "Square",
}
NORMS = {"linf": "L∞", "l2": "L2"}
THRESHOLDS = {
    "robust_accuracy": "robust accuracy",
    "clean_accuracy_drop": "clean accuracy lost",
    "file_ratio": "file size, share of the dense file",
}


def attack_name(name: str) -> str:
    return ATTACKS.get(name, name)


def percent(share: float | None, places: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{places}f}\u00a0%".replace("-", "−")


def points(change: float) -> str:
    """A change of a share in percentage points, with a true minus sign, as wide as the plus."""
    return f"{100 * change:+.1f}".replace("-", "−")


def interval(share: dict[str, Any]) -> str:
    """The ends of a share's interval, or of a change's."""
    if "accuracy" in share:
        return f"{100 * share['low']:.1f} to {100 * share['high']:.1f}\u00a0%"
    return f"{points(share['low'])} to {points(share['high'])}"


def size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{value}\u00a0{unit}" for value, unit in parts if value)


def figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def in_255(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}/255" if value >= 1000 else f"{value:.3g}/255"


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def leaves(document: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted names and their values."""
    for key, value in document.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        elif isinstance(value, list):
            yield path + key, ", ".join(str(item) for item in value)
        else:
            yield path + key, f"{value:.6g}" if isinstance(value, float) else str(value)
