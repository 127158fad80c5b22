"""A whole job's report fits its schema, has a page and a verdict, and repeats the same figures."""

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from huggingface_hub import ModelCard

from atmc_core import reproduce
from atmc_core.data import load_npz
from atmc_core.errors import InvalidInput
from atmc_core.evaluation.statistics import wilson
from atmc_core.networks.upload import ModelInput
from atmc_core.report import schema
from atmc_core.report.checks import split_digest
from atmc_core.report.headline import MEASURED, acceptance
from atmc_core.report.page import render
from atmc_spec import Accept
from tests.atmc_core.job.whole_jobs import EVALUATION, THREAT, Killed, read_report, run_job

Report = dict[str, Any]


def test_reports_meet_their_schema_and_the_schema_is_strict(
    evaluated: tuple[Path, Any], compressed: Path
) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    for folder in (evaluated[0], compressed):
        report = read_report(folder)
        jsonschema.validate(report, schema())
        for changed in (report | {"extra": 1}, report | {"before": {}}):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(changed, schema())
    half = {name: part for name, part in read_report(compressed).items() if name != "difference"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(half, schema())


def test_a_report_names_the_files_by_their_hashes_and_one_of_before_need_not(
    evaluated: tuple[Path, Any], compressed: Path
) -> None:
    report, results = read_report(compressed), compressed / "results"
    names = [each["name"] for each in report["files"]]
    assert names[:4] == ["model.atmc", "model.safetensors", "model.onnx", "model.c"]
    others = {"report.json", "report.html", "model_card.md"}
    assert {*names, *others} == {path.name for path in results.iterdir()}
    page = (results / "report.html").read_text()
    for each in report["files"]:
        content = (results / each["name"]).read_bytes()
        assert (each["bytes"], each["sha256"]) == (len(content), sha256(content).hexdigest())
        assert each["sha256"] in page
    assert report["files"][0]["sha256"] == report["after"]["sha256"]
    assert read_report(evaluated[0])["files"] == []
    before = {name: part for name, part in report.items() if name != "files"}
    jsonschema.validate(before, schema())
    # `reproduce` reads it, too.
    assert reproduce.read_report(_written(before, compressed / "before.json")) == before


def _written(report: Report, path: Path) -> Path:
    path.write_text(json.dumps(report))
    return path


def test_an_evaluation_alone_reports_the_upload_and_nothing_else(
    evaluated: tuple[Path, Any],
) -> None:
    folder, (headline, events) = evaluated
    started = [e["stage"] for e in events if e["type"] == "stage" and e["status"] == "started"]
    assert started == ["validating", "evaluating_upload", "writing"]
    names = {f"{name}_accuracy_before" for name in ("clean", "fgsm", "pgd", "robust", "proven")}
    names |= {"latency_before_s", "multiply_adds_before"}
    assert set(headline) == names | {"seconds", "accepted"}
    assert headline["accepted"] is False
    assert not {"after", "difference", "layers"} & read_report(folder).keys()
    files = {path.name for path in (folder / "results").iterdir()}
    assert files == {"report.json", "report.html", "model_card.md"}


def test_figures_are_shares_of_the_listed_images(evaluated: tuple[Path, Any]) -> None:
    report = read_report(evaluated[0])
    before, evaluation = report["before"], report["evaluation"]
    assert len(set(evaluation["indices"])) == 80 == before["clean"]["count"]
    assert evaluation["epsilon"] == 25 / 255
    for share in (before["clean"], before["robust"], *before["attacks"], *before["curve"]):
        estimate = wilson(share["correct"], share["count"])
        assert (share["accuracy"], share["low"], share["high"]) == dataclasses.astuple(estimate)
    for name in ("clean", "robust"):
        assert (
            sum(entry[name]["correct"] for entry in before["per_class"]) == before[name]["correct"]
        )
    curve = [point["accuracy"] for point in before["curve"]]
    assert len(curve) >= 7
    assert curve == sorted(curve, reverse=True)
    assert curve[-1] <= 0.1
    for attack in before["attacks"]:
        assert (attack["epsilon"] is None) == (attack["name"] == "wrm")
        if attack["changed"] and attack["within_threat"]:
            assert attack["perturbation"]["largest_255"] <= 25.01


def test_the_difference_counts_the_same_images_in_pairs(compressed: Path) -> None:
    report = read_report(compressed)
    for name in ("clean", "robust"):
        found = report["difference"][name]
        before, after = (report[side][name]["correct"] for side in ("before", "after"))
        assert found["both"] + found["only_before"] == before
        assert found["both"] + found["only_after"] == after
        assert found["value"] == pytest.approx((after - before) / 80)
        assert found["low"] <= found["value"] <= found["high"]
    assert (report["before"]["process"], report["after"]["process"]) == ("job", "fresh")


@pytest.mark.parametrize("kill", [1, 5, 11, 20])
def test_a_killed_evaluation_ends_with_the_same_report(
    kill: int,
    evaluated: tuple[Path, Any],
    digits_model: ModelInput,
    digits_path: Path,
    tmp_path: Path,
) -> None:
    document = read_report(evaluated[0])["spec"]
    with pytest.raises(Killed):
        run_job(document, digits_model, digits_path, tmp_path, kill)
    _, events = run_job(document, digits_model, digits_path, tmp_path)
    resumed = [event["epoch"] for event in events if event["type"] == "resumed"]
    assert resumed == ([kill - 1] if kill > 1 else [])
    first, second = (_timeless(read_report(folder)) for folder in (evaluated[0], tmp_path))
    assert first == second


def _timeless(report: Report) -> Report:
    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(each) for key, each in value.items() if key not in MEASURED}
        return [without(each) for each in value] if isinstance(value, list) else value

    timeless: Report = without(report)
    return timeless


SHARE = {"accuracy": 0.6, "low": 0.55, "high": 0.65}
DROP = {"value": -0.03, "low": -0.05, "high": -0.01}


@pytest.mark.parametrize(
    ("accept", "passed", "decided"),
    [
        (Accept(robust_accuracy=0.5), True, True),
        (Accept(robust_accuracy=0.58), True, False),
        (Accept(robust_accuracy=0.62), False, False),
        (Accept(robust_accuracy=0.7), False, True),
        (Accept(clean_accuracy_drop=0.02), False, False),
        (Accept(clean_accuracy_drop=0.06), True, True),
        (Accept(file_ratio=0.04), True, True),
        (Accept(file_ratio=0.03), False, True),
    ],
)
def test_each_threshold_is_met_or_missed_and_says_whether_beyond_doubt(
    accept: Accept, passed: bool, decided: bool
) -> None:
    verdict = acceptance(accept, {"robust": SHARE}, DROP, 0.04)
    (threshold,) = verdict["thresholds"]
    assert (threshold["passed"], threshold["decided"]) == (passed, decided)
    assert verdict["accepted"] is passed


def test_without_thresholds_there_is_no_verdict_and_one_missed_is_enough() -> None:
    assert acceptance(Accept(), {"robust": SHARE}, DROP, 0.04)["accepted"] is None
    both = Accept(robust_accuracy=0.5, file_ratio=0.03)
    assert acceptance(both, {"robust": SHARE}, DROP, 0.04)["accepted"] is False


class Page(HTMLParser):
    """Notes what the page refers to and how it is built."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_needs_nothing_else_and_can_be_read_aloud(
    evaluated: tuple[Path, Any], compressed: Path
) -> None:
    for folder in (evaluated[0], compressed):
        text = (folder / "results" / "report.html").read_text()
        page = Page(text)
        for tag, attributes in page.tags:
            assert tag not in ("script", "link", "iframe", "object")
            for name in ("src", "href"):
                value = attributes.get(name) or ""
                assert not value or value.startswith(("data:image/png;base64,", "#"))
            assert not any(name.startswith("on") for name in attributes)
            if tag == "img":
                assert attributes["alt"]
            if tag == "svg":
                assert attributes["role"] == "img"
                assert attributes["aria-label"]
        assert "url(" not in text
        tables = sum(tag == "table" for tag, _ in page.tags)
        assert tables == sum(tag == "caption" for tag, _ in page.tags) > 2
        assert [tag for tag, _ in page.tags].count("h1") == 1
        report = read_report(folder)
        assert f"{100 * report['headline']['robust_accuracy_before']:.1f}" in text
    assert "Not to ship" in (evaluated[0] / "results" / "report.html").read_text()
    assert "May ship" in (compressed / "results" / "report.html").read_text()


def test_text_in_the_report_cannot_become_markup(compressed: Path) -> None:
    report = read_report(compressed)
    report["architecture"] = "<script>alert(1)</script>"
    report["layers"][0]["weight"] = "<b onclick=x>"
    assert not re.search(r"<script|<b onclick", render(report))


def test_the_model_card_has_the_metadata_of_the_hub(compressed: Path) -> None:
    card = (compressed / "results" / "model_card.md").read_text()
    _, metadata, body = card.split("---\n", 2)
    fields = yaml.safe_load(metadata)
    assert fields["pipeline_tag"] == "image-classification"
    (result,) = fields["model-index"][0]["results"]
    headline = read_report(compressed)["headline"]
    values = [metric["value"] for metric in result["metrics"]]
    assert values == [headline["clean_accuracy_after"], headline["robust_accuracy_after"]]
    assert "## Limitations" in body
    # The hub's own reader finds each metric, and what it was measured on.
    found = ModelCard(card).data
    assert (found.library_name, found.pipeline_tag) == ("pytorch", "image-classification")
    assert [result.metric_value for result in found.eval_results] == values
    assert {result.metric_type for result in found.eval_results} == {"accuracy"}
    assert {result.task_type for result in found.eval_results} == {"image-classification"}
    assert all(result.dataset_name and result.dataset_type for result in found.eval_results)
    assert all(result.dataset_revision for result in found.eval_results)


@pytest.fixture
def evaluate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Calls the command here; returns its exit status and what it printed, errors last."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reproduce", *map(str, arguments)])
        return reproduce.main(), *capsys.readouterr()

    return run


def test_anyone_gets_the_same_figures_from_the_report(
    compressed: Path,
    digits_model: ModelInput,
    digits_path: Path,
    evaluate: Callable[..., tuple[int, str, str]],
) -> None:
    report, file = (compressed / "results" / name for name in ("report.json", "model.atmc"))
    # Anyone's process knows nothing of this one.
    command = [sys.executable, "-m", "atmc_core.reproduce", report, file, "--data", digits_path]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    for status, out, err in (
        (done.returncode, done.stdout, done.stderr),
        evaluate(report, digits_model.path, "--data", digits_path, "--json"),
    ):
        assert status == 0, out + err
        result = json.loads(out)
        assert (result["differences"], result["same_file"]) == ([], True)


def test_a_whole_report_on_validation_images_says_so_and_is_repeated_on_them(
    digits_model: ModelInput,
    digits_path: Path,
    evaluate: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    asked = EVALUATION | {"level": "quick", "split": "validation"}
    document = {"method": "evaluate", "threat": THREAT, "evaluation": asked}
    run_job(document, digits_model, digits_path, tmp_path)
    report, results = read_report(tmp_path), tmp_path / "results"
    jsonschema.validate(report, schema())
    assert report["evaluation"]["split"] == "validation"
    data = load_npz(digits_path, validation_fraction=0.1, seed=0)
    indices = report["evaluation"]["indices"]
    assert len(indices) == asked["max_images"]
    chosen = data.val.select(torch.tensor(indices))
    assert report["evaluation"]["data_sha256"] == split_digest(chosen)
    assert "evaluated_on_validation" in {each["code"] for each in report["warnings"]}
    for page in ("report.html", "model_card.md"):
        text = (results / page).read_text()
        assert "80 validation images" in text, page
        assert "test images" not in text, page
    again = evaluate(results / "report.json", digits_model.path, "--data", digits_path, "--json")
    assert again[0] == 0, again
    assert json.loads(again[1])["differences"] == []
    # The same images are a test split's to another report.
    report["evaluation"]["split"] = "test"
    (tmp_path / "moved.json").write_text(json.dumps(report))
    assert evaluate(tmp_path / "moved.json", digits_model.path, "--data", digits_path)[0] == 2


def test_a_report_of_before_is_repeated_with_the_attacks_that_it_has(
    compressed: Path,
    digits_model: ModelInput,
    digits_path: Path,
    evaluate: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    report = read_report(compressed)
    attacks = report["before"]["attacks"]
    assert "pgd_smooth" in {attack["name"] for attack in attacks}
    report["before"]["attacks"] = [each for each in attacks if each["name"] != "pgd_smooth"]
    changed = tmp_path / "report.json"
    changed.write_text(json.dumps(report))
    _, out, _ = evaluate(changed, digits_model.path, "--data", digits_path, "--json")
    figures = json.loads(out)["figures"]
    names = [attack["name"] for attack in figures["attacks"]]
    assert names == [attack["name"] for attack in report["before"]["attacks"]]


def test_a_figure_that_differs_is_an_error_and_so_is_other_data(
    compressed: Path,
    digits_model: ModelInput,
    digits_path: Path,
    evaluate: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    report = read_report(compressed)
    report["before"]["robust"]["correct"] += 1
    # As a version of another default wrote it; the method has no use for it, and refuses others.
    report["spec"]["training"]["shrink_fraction"] = 0.6
    changed = tmp_path / "report.json"
    changed.write_text(json.dumps(report))
    status, out, _ = evaluate(changed, digits_model.path, "--data", digits_path)
    assert status == 1
    assert "robust: reported" in out
    report["environment"]["device"] = "cuda"
    changed.write_text(json.dumps(report))
    status, out, _ = evaluate(changed, digits_model.path, "--data", digits_path)
    assert status == 3
    assert "another kind of device" in out
    with np.load(digits_path) as arrays:
        np.savez(tmp_path / "other.npz", **{n: arrays[n][::-1] for n in arrays})
    status, _, err = evaluate(changed, digits_model.path, "--data", tmp_path / "other.npz")
    assert status == 2
    assert "does not hold the images of the report" in err


class TestRefuses:
    DOCUMENT: dict[str, Any] = {"method": "evaluate", "threat": THREAT}  # noqa: RUF012

    def test_a_model_that_returns_nan(
        self, digits_model: ModelInput, digits_path: Path, tmp_path: Path
    ) -> None:
        tensors = safetensors.torch.load_file(digits_model.path)
        # Finite weights whose outputs are infinity minus infinity.
        tensors = {name: tensor * 1e30 for name, tensor in tensors.items()}
        safetensors.torch.save_file(tensors, tmp_path / "huge.safetensors")
        model = ModelInput(tmp_path / "huge.safetensors", "digits_cnn")
        with pytest.raises(InvalidInput) as refused:
            run_job(self.DOCUMENT, model, digits_path, tmp_path)
        assert (refused.value.code, refused.value.param) == ("non_finite_outputs", "model")

    def test_a_model_with_one_class(
        self, digits_model: ModelInput, digits_path: Path, tmp_path: Path
    ) -> None:
        tensors = safetensors.torch.load_file(digits_model.path)
        for name in ("fc2.weight", "fc2.bias"):
            tensors[name] = tensors[name][:1].clone()
        safetensors.torch.save_file(tensors, tmp_path / "one.safetensors")
        model = ModelInput(tmp_path / "one.safetensors", "digits_cnn")
        with pytest.raises(InvalidInput, match="num_classes >= 2") as refused:
            run_job(self.DOCUMENT, model, digits_path, tmp_path)
        assert refused.value.code == "tensor_mismatch"

    def test_no_images(self, digits_model: ModelInput, digits_path: Path, tmp_path: Path) -> None:
        with np.load(digits_path) as arrays:
            cut = {n: arrays[n][:0] if n.endswith("test") else arrays[n] for n in arrays}
        np.savez(tmp_path / "none.npz", **cut)
        with pytest.raises(InvalidInput) as refused:
            run_job(self.DOCUMENT, digits_model, tmp_path / "none.npz", tmp_path)
        assert (refused.value.code, refused.value.param) == ("empty_split", "x_test")
