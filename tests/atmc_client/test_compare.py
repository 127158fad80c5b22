"""Two jobs are put side by side, with what differs between them."""

from io import StringIO

from rich.console import Console

from atmc_client.cli.report import comparison, differences

HEADLINE = {"clean_accuracy_after": 0.97, "robust_accuracy_after": 0.5, "file_bytes": 20_000}
FIRST = {
    "id": "job_1",
    "name": "a [b]",
    "model_id": "model_1",
    "dataset_id": "data_1",
    "spec": {"method": "atmc", "target": {"density": 0.1, "bits": 4}},
    "headline": HEADLINE | {"bits": 4},
}
SECOND = FIRST | {
    "id": "job_2",
    "name": None,
    "spec": {"method": "atmc", "target": {"density": 0.05, "bits": 4}, "seed": 1},
    "headline": HEADLINE | {"robust_accuracy_after": 0.47, "file_bytes": 10_000, "bits": None},
}


def test_figures_that_both_have_stand_beside_each_other():
    console = Console(width=100, file=StringIO())
    console.print(comparison(FIRST, SECOND))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["figure", "a", "[b]", "job_2", "change"] in lines
    assert ["worst", "of", "all", "attacks", "50.00", "%", "47.00", "%", "-3.00"] in lines
    assert ["bytes", "on", "disk", "20,000", "10,000", "x", "0.5"] in lines
    assert not any("bits" in line for line in lines)


def test_what_differs_is_named_by_its_path():
    assert differences(FIRST, SECOND) == {"target.density": (0.1, 0.05), "seed": (None, 1)}
    assert differences(FIRST, FIRST) == {}
