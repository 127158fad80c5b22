"""Holds a job's figures against thresholds: what a build asks before it goes on.

A figure has a name: each number of the headline has its own, `robust_accuracy` and the like without
a side is the compressed network's (the upload's where nothing was compressed), every attack of the
report has `ATTACK_accuracy`, and `ACCURACY_drop` is what compression took. Shares of images come
with the 95 % interval that the report has for them; sizes are exact.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree

Document = Mapping[str, Any]
Bound = Literal["at least", "at most"]

# The service compares so many decimal places, too: more of a share of images is rounding.
_DECIMALS = 9
_DROP = "_drop"
_BOUNDS: dict[str, Bound] = {"at_least": "at least", "at_most": "at most"}


@dataclass(frozen=True)
class Figure:
    """A figure of a job with the ends of its 95 % interval, which are itself if it is exact."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Threshold:
    """What a figure must be: `at least` or `at most` the limit, which itself will do."""

    name: str
    bound: Bound
    limit: float

    def is_met(self, value: float) -> bool:
        """Whether a value will do."""
        beyond = round(value - self.limit, _DECIMALS)
        return beyond >= 0 if self.bound == "at least" else beyond <= 0


@dataclass(frozen=True)
class Check:
    """A threshold and what came of it.

    Attributes:
        threshold: what was asked.
        figure: the job's figure.
        strict: whether the worse end of the interval had to meet it, instead of the figure itself.
    """

    threshold: Threshold
    figure: Figure
    strict: bool

    @property
    def judged(self) -> float:
        """The value that is held against the limit."""
        if not self.strict:
            return self.figure.value
        return self.figure.low if self.threshold.bound == "at least" else self.figure.high

    @property
    def passed(self) -> bool:
        """Whether it meets the threshold."""
        return self.threshold.is_met(self.judged)

    def document(self) -> dict[str, Any]:
        """The check as JSON."""
        return {
            "name": self.threshold.name,
            "bound": self.threshold.bound,
            "limit": self.threshold.limit,
            "figure": self.figure.value,
            "low": self.figure.low,
            "high": self.figure.high,
            "judged": self.judged,
            "passed": self.passed,
        }

    def sentence(self) -> str:
        """The check in words, without its verdict."""
        asked = f"{self.threshold.bound} {self.threshold.limit:g} was asked for"
        interval = ""
        if self.figure.low != self.figure.high:
            interval = f" (95 % interval {self.figure.low:.6g} to {self.figure.high:.6g})"
        return f"{self.threshold.name} is {self.figure.value:.6g}{interval}, {asked}"


class UnknownFigure(Exception):
    """The job has no such figure; the message names those that it has."""


def figures(headline: Document, report: Document | None) -> dict[str, Figure]:
    """The figures of a job that has succeeded, by name.

    `report` is the job's `report.json`; without one, no figure has an interval.
    """
    found = {
        name: Figure(value, value, value)
        for name, value in headline.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    for side in ("before", "dense", "after"):
        found |= _of_side(side, (report or {}).get(side) or {})
    found |= _drops((report or {}).get("difference") or {})
    compressed = "clean_accuracy_after" in found
    side = "_after" if compressed else "_before"
    for name in list(found):
        if name.endswith(side):
            found.setdefault(name.removesuffix(side), found[name])
    if compressed and "clean_accuracy_drop" not in found:
        lost = found["clean_accuracy_before"].value - found["clean_accuracy_after"].value
        found["clean_accuracy_drop"] = Figure(*[round(lost, _DECIMALS)] * 3)
    return found


def _of_side(side: str, result: Document) -> dict[str, Figure]:
    shares = {name: result.get(name) for name in ("clean", "robust")}
    shares |= {
        each["name"]: each for each in result.get("attacks", []) if each.get("within_threat", True)
    }
    shares["proven"] = _proven(result.get("proven"))
    return {
        f"{name}_accuracy_{side}": Figure(share["accuracy"], share["low"], share["high"])
        for name, share in shares.items()
        if share
    }


def _proven(found: Any) -> Document | None:
    """The proven share at the threat's own radius."""
    if isinstance(found, Mapping) and isinstance(found.get("share"), Mapping):
        share: Document = found["share"]
        return share
    return None


def _drops(difference: Document) -> dict[str, Figure]:
    """What compression took of each accuracy: the change that the report has, turned round."""
    return {
        f"{name}_accuracy{_DROP}": Figure(-each["value"], -each["high"], -each["low"])
        for name, each in difference.items()
        if isinstance(each, Mapping) and "value" in each
    }


def check(
    thresholds: Sequence[Threshold], known: Mapping[str, Figure], *, strict: bool
) -> list[Check]:
    """Hold each threshold against its figure; with `strict` against the worse end of its interval.

    Raises `UnknownFigure`.
    """
    for threshold in thresholds:
        if threshold.name not in known:
            names = ", ".join(sorted(known))
            raise UnknownFigure(f"the job has no figure {threshold.name!r}; it has {names}")
    return [Check(threshold, known[threshold.name], strict) for threshold in thresholds]


def accepted(report: Document, *, strict: bool) -> list[Check]:
    """The checks of the thresholds that the job's own spec names (`accept`)."""
    return [
        Check(
            Threshold(each["name"], _BOUNDS[each["bound"]], each["limit"]),
            Figure(each["figure"], each["low"], each["high"]),
            strict,
        )
        for each in report["acceptance"]["thresholds"]
    ]


def parse(text: str, bound: Bound) -> Threshold:
    """Read `NAME=NUMBER`; raises ValueError."""
    name, equals, number = text.partition("=")
    try:
        limit = float(number)
    except ValueError:
        limit = math.nan
    if not name or not equals or not math.isfinite(limit):
        raise ValueError(f"{text!r} is not NAME=NUMBER, such as robust_accuracy=0.5")
    return Threshold(name, bound, limit)


def junit(job: Document, checks: Sequence[Check]) -> bytes:
    """The checks as a JUnit XML document: a test case each, which build servers show."""
    failures = sum(not each.passed for each in checks)
    suite = ElementTree.Element(
        "testsuite",
        name=f"atmc gate {job['id']}",
        tests=str(len(checks)),
        failures=str(failures),
        errors="0",
        skipped="0",
    )
    for each in checks:
        case = ElementTree.SubElement(
            suite, "testcase", classname="atmc.gate", name=_title(each.threshold), time="0"
        )
        if not each.passed:
            failure = ElementTree.SubElement(
                case, "failure", message=each.sentence(), type="threshold"
            )
            failure.text = each.sentence()
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    document: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document


def markdown(job: Document, checks: Sequence[Check], url: str) -> str:
    """The checks as a section in Markdown, for a build's page."""
    missed = [each for each in checks if not each.passed]
    verdict = f"{len(missed)} of {len(checks)} thresholds missed" if missed else "passed"
    strict = any(each.strict for each in checks)
    judged = "the worse end of the 95 % interval" if strict else "the figure"
    lines = [
        f"### Robustness gate: {verdict}",
        "",
        f"Job [`{job['id']}`]({url}/jobs/{job['id']}/report){_named(job)}; {judged} is judged.",
        "",
        "| figure | value | 95 % interval | asked for | |",
        "|---|---:|---:|---:|---|",
    ]
    for each in checks:
        exact = each.figure.low == each.figure.high
        interval = "exact" if exact else f"{each.figure.low:.4f} to {each.figure.high:.4f}"
        asked = f"{each.threshold.bound} {each.threshold.limit:g}"
        mark = "met" if each.passed else "**missed**"
        name = each.threshold.name
        lines.append(f"| `{name}` | {each.figure.value:.6g} | {interval} | {asked} | {mark} |")
    return "\n".join(lines) + "\n"


def _title(threshold: Threshold) -> str:
    return f"{threshold.name} {threshold.bound} {threshold.limit:g}"


def _named(job: Document) -> str:
    return f" ({_cell(job['name'])})" if job.get("name") else ""


def _cell(text: str) -> str:
    """Text that Markdown takes as it is: a name is whatever somebody has sent."""
    return "".join(f"\\{each}" if each in r"\`*_{}[]()<>#|!~" else each for each in text)
