"""A job's figures are held against thresholds, by themselves or by the ends of their intervals."""

from xml.etree import ElementTree

import pytest

from atmc_client.gate import (
    Check,
    Figure,
    Threshold,
    UnknownFigure,
    accepted,
    check,
    figures,
    junit,
    markdown,
    parse,
)


def share(value, half=0.05):
    return {"accuracy": value, "low": value - half, "high": value + half}


HEADLINE = {
    "clean_accuracy_before": 0.98,
    "clean_accuracy_after": 0.97,
    "robust_accuracy_before": 0.6,
    "robust_accuracy_after": 0.5,
    "proven_accuracy_after": None,
    "file_ratio": 0.02,
    "file_bytes": 10_000,
    "accepted": True,
}
ATTACKS = [
    {"name": "pgd", "within_threat": True, **share(0.55)},
    {"name": "autoattack", "within_threat": True, **share(0.5)},
    {"name": "wrm", "within_threat": False, **share(0.1)},
]
REPORT = {
    "before": {"clean": share(0.98), "robust": share(0.6), "attacks": [], "proven": None},
    "after": {
        "clean": share(0.97),
        "robust": share(0.5),
        "attacks": ATTACKS,
        "proven": {"share": share(0.2)},
    },
    "difference": {"clean": {"value": -0.01, "low": -0.03, "high": 0.01}},
    "acceptance": {
        "thresholds": [
            {"name": "robust_accuracy", "bound": "at_least", "limit": 0.5, "figure": 0.5}
            | {"low": 0.45, "high": 0.55, "passed": True}
        ]
    },
}
KNOWN = figures(HEADLINE, REPORT)


def test_figures_have_the_names_that_people_know_and_the_report_s_intervals():
    assert KNOWN["robust_accuracy"] == Figure(0.5, 0.45, 0.55)
    assert KNOWN["robust_accuracy_before"].value == 0.6
    assert KNOWN["autoattack_accuracy"] == Figure(0.5, 0.45, 0.55)
    assert KNOWN["proven_accuracy"].value == 0.2
    assert KNOWN["clean_accuracy_drop"] == Figure(0.01, -0.01, 0.03)
    assert KNOWN["file_bytes"] == Figure(10_000, 10_000, 10_000)
    # What is no figure, and an attack beyond the threat, are none to be held to.
    assert {"accepted", "wrm_accuracy"} & set(KNOWN) == set()


def test_of_a_job_that_compressed_nothing_they_are_the_upload_s():
    alone = figures({"clean_accuracy_before": 0.98}, {"before": REPORT["before"]})
    assert alone["robust_accuracy"].value == 0.6
    assert "clean_accuracy_drop" not in alone


@pytest.mark.parametrize(
    ("text", "bound", "passed", "strictly"),
    [
        ("robust_accuracy=0.5", "at least", True, False),
        ("robust_accuracy=0.45", "at least", True, True),
        ("robust_accuracy=0.500001", "at least", False, False),
        ("clean_accuracy_drop=0.01", "at most", True, False),
        ("clean_accuracy_drop=3e-2", "at most", True, True),
        ("file_ratio=.02", "at most", True, True),
        ("file_bytes=9999", "at most", False, False),
    ],
)
def test_a_limit_itself_will_do_and_strictly_the_worse_end_counts(text, bound, passed, strictly):
    (plain,) = check([parse(text, bound)], KNOWN, strict=False)
    (strict,) = check([parse(text, bound)], KNOWN, strict=True)
    assert (plain.passed, strict.passed) == (passed, strictly)


def test_an_unknown_figure_is_refused_with_those_that_there_are():
    with pytest.raises(UnknownFigure, match=r"'robustness'.*robust_accuracy"):
        check([Threshold("robustness", "at least", 0.5)], KNOWN, strict=False)


@pytest.mark.parametrize("text", ["", "a", "=1", "a=", "a=b", "a=nan", "a=inf", "a=1=2"])
def test_what_is_no_threshold_is_refused(text):
    with pytest.raises(ValueError, match="NAME=NUMBER"):
        parse(text, "at least")


def test_a_job_s_own_thresholds_are_judged_by_their_intervals_too():
    assert [each.passed for each in accepted(REPORT, strict=False)] == [True]
    assert [each.passed for each in accepted(REPORT, strict=True)] == [False]


def test_the_pages_of_a_build_show_each_threshold():
    checks = [
        Check(Threshold("robust_accuracy", "at least", 0.6), KNOWN["robust_accuracy"], False),
        Check(Threshold("file_bytes", "at most", 20_000), KNOWN["file_bytes"], False),
    ]
    job = {"id": "job_1", "name": "a | b <img src=x>"}
    suite = ElementTree.fromstring(junit(job, checks)).find("testsuite")
    failed = {case.get("name"): case.find("failure") is not None for case in suite}
    assert failed == {"robust_accuracy at least 0.6": True, "file_bytes at most 20000": False}
    page = markdown(job, checks, "https://atmc.example")
    assert "1 of 2 thresholds missed" in page
    assert "| `robust_accuracy` | 0.5 | 0.4500 to 0.5500 | at least 0.6 | **missed** |" in page
    assert "| `file_bytes` | 10000 | exact | at most 20000 | met |" in page
    assert r"a \| b \<img src=x\>" in page
