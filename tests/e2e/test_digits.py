"""The whole path on real digits: submit, follow, show, download, and use what came back."""

import hashlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

from atmc_core.networks.architectures import build
from examples.digits import ARCHITECTURE, save_digits, train_classifier
from examples.operators import CompressOperator, JobFailed
from tests.docs.blocks import block, named, run

ROOT = Path(__file__).parents[2]
SHORT = (
    "--set=training.robust_epochs=1",
    "--set=training.compression_epochs=2",
    "--set=training.finish_epochs=1",
    "--set=evaluation.pgd_steps=5",
    "--set=evaluation.curve_images=20",
)
TARGET = ("--density=0.1", "--bits=4", "--epsilon=0.1")


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A folder with `digits.npz`, a small slice, and `digits.safetensors`, trained on it."""
    folder = tmp_path_factory.mktemp("digits")
    save_digits(folder / "digits.npz", train=400, test=150)
    train_classifier(folder / "digits.npz", folder / "digits.safetensors", epochs=20)
    return folder


@pytest.fixture
def submit(atmc, digits):
    """Submits the digits with further options."""

    def run(*options, data="digits.npz"):
        model = ("--model", digits / "digits.safetensors", "--architecture", "digits_cnn")
        return atmc("submit", *model, "--data", digits / data, *TARGET, *options)

    return run


def test_a_compressed_model_comes_back_and_is_what_was_reported(
    atmc, submit, digits, signing_key, service_url, tmp_path
):
    done = submit(*SHORT, "--json", "--accept=file_ratio=0.9", "--strict")
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith(": succeeded\n")
    job = json.loads(done.stdout)
    headline = job["headline"]
    weights = sum(each.numel() for each in build(ARCHITECTURE, 10).parameters() if each.ndim > 1)
    assert headline["k"] == round(0.1 * weights)
    assert 0.99 * headline["k"] < headline["nonzeros"] <= headline["k"]
    factors = [headline[f"nonzeros_{factor}"] for factor in "uvc"]
    assert sum(factors) == headline["nonzeros"]
    assert min(factors) > 0
    assert headline["max_distinct_values"] <= 2**4
    assert headline["clean_accuracy_before"] > 0.9
    assert headline["pgd_accuracy_after"] > headline["pgd_accuracy_before"] - 0.2

    fetched = atmc("download", job["id"], "-o", tmp_path)
    assert fetched.returncode == 0, fetched.stderr
    names = {Path(line).name for line in fetched.stdout.split()}
    assert names == {
        "attestation.dsse.json",
        "dense.atmc",
        "model.atmc",
        "model.c",
        "model.onnx",
        "model.safetensors",
        "model_card.md",
        "report.html",
        "report.json",
    }
    artifact = tmp_path / "model.atmc"
    assert artifact.stat().st_size == headline["file_bytes"]
    assert headline["file_ratio"] == headline["file_bytes"] / headline["dense_bytes"]
    check = [sys.executable, "-m", "examples.check_artifact", artifact, digits / "digits.npz"]
    fresh = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(fresh.stdout)["clean_accuracy"] == headline["clean_accuracy_after"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["headline"].items() <= headline.items()
    # Measured in the sandbox, too.
    assert all(10_000 < peak < 2**30 for peak in report["speed"]["peak_memory_bytes"].values())
    # What was signed is there, by the key that the service lists and by the one beside its own.
    for name in ("model.atmc", "model.onnx", "report.html", "attestation.dsse.json"):
        how = ("--key", signing_key.with_suffix(".pub"))
        how = ("--key-from-service",) if name == "model.onnx" else how
        verified = atmc("verify", tmp_path / name, *how)
        assert verified.returncode == 0, verified.stderr
        assert job["id"] in verified.stdout
    hashes = {each["name"]: each["sha256"] for each in report["files"]}
    others = {"attestation.dsse.json", "report.json", "report.html", "model_card.md"}
    assert set(hashes) == names - others
    for name, sha256 in hashes.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == sha256
        assert sha256 in (tmp_path / "report.html").read_text()

    shown = atmc("show", job["id"]).stdout
    assert f"{100 * headline['pgd_accuracy_after']:.2f} %" in shown
    assert f"{headline['file_bytes']:,}" in shown
    layers = json.loads(atmc("show", job["id"], "--layers", "--json").stdout)
    assert sum(sum(layer["nonzeros"].values()) for layer in layers) == headline["nonzeros"]
    assert "fc1.weight" in atmc("show", job["id"], "--layers").stdout
    gated(atmc, job, report, tmp_path)
    registered(atmc, job, tmp_path)
    registered_in_mlflow(atmc, job, tmp_path)
    operator = CompressOperator(Path("unused"), ARCHITECTURE, Path("unused"), {}, url=service_url)
    assert operator.poke(job["id"])
    events = [
        json.loads(line)
        for line in atmc("show", job["id"], "--events", "--json").stdout.splitlines()
    ]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["state"] == "succeeded"


def gated(atmc, job, report, folder):
    """A build holds the job to its own figure, which meets itself; its interval's end does not."""
    robust = report["after"]["robust"]
    own = f"robust_accuracy={robust['accuracy']!r}"
    passed = atmc("gate", job["id"], "--min", own, "--max=file_ratio=0.9", "--json")
    assert passed.returncode == 0, passed.stderr
    found = json.loads(passed.stdout)
    assert found["passed"]
    assert found["checks"][0]["low"] == robust["low"] < robust["accuracy"]

    page, xml = folder / "summary.md", folder / "gate.xml"
    files = ("--markdown", page, "--junit", xml)
    missed = atmc("gate", job["id"], "--min", own, "--max=pgd_accuracy_drop=1", "--strict", *files)
    assert missed.returncode == 4, missed.stderr
    (suite,) = ElementTree.parse(xml).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert "1 of 2 thresholds missed" in page.read_text()
    unknown = atmc("gate", job["id"], "--min=robustness=0.5")
    assert unknown.returncode == 2
    assert "autoattack" not in unknown.stderr
    assert "pgd_accuracy" in unknown.stderr


def registered(atmc, job, folder):
    """A repository has the card, whose metadata a hub reads, and the weights; twice is refused."""
    target = folder / "repository"
    done = atmc("register", job["id"], "--folder", target)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in target.iterdir()}
    assert {"README.md", "model.safetensors", "model.onnx", "report.json"} <= names
    metadata = yaml.safe_load((target / "README.md").read_text().split("---")[1])
    (found,) = metadata["model-index"][0]["results"]
    assert found["metrics"][0]["value"] == job["headline"]["clean_accuracy_after"]
    assert atmc("register", job["id"], "--folder", target).returncode == 2
    assert not list(folder.glob(".repository-*"))


def registered_in_mlflow(atmc, job, folder):
    """MLflow has a run with parameters, figures and files, and one version of it, however often."""
    uri, environment = f"sqlite:///{folder}/mlflow.db", {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # whose mlruns/ has the artifacts of a database
        for name, value in environment.items():
            patch.setenv(name, value)
        for _ in range(2):
            done = atmc("register", job["id"], "--mlflow", uri, "--name", "digits-small")
            assert (done.returncode, done.stdout) == (0, "models:/digits-small/1\n"), done.stderr
        client = MlflowClient(uri, uri)
        (version,) = client.search_model_versions("name = 'digits-small'")
        run = client.get_run(version.run_id)
    assert version.tags["atmc.job_id"] == job["id"]
    assert run.info.status == "FINISHED"
    assert run.data.params["target.density"] == "0.1"
    accuracy = job["headline"]["clean_accuracy_after"]
    assert run.data.metrics["clean_accuracy_after"] == accuracy
    source = Path(version.source.removeprefix("file://"))
    names = {path.name for path in source.iterdir()}
    assert {"model.onnx", "model.atmc", "report.json", "report.html"} <= names
    assert (source / "model.atmc").stat().st_size == job["headline"]["file_bytes"]
    wrong = ("--mlflow", uri, "--name", "it's")
    assert atmc("register", job["id"], *wrong).returncode == 2
    assert atmc("register", job["id"], "--mlflow", uri).returncode == 2


def test_a_refused_data_set_is_a_failed_job_that_says_why(atmc, submit, digits, service_url):
    with np.load(digits / "digits.npz") as arrays:
        labels = arrays["y_test"].copy()
        labels[3] = 10
        np.savez(digits / "wrong.npz", **{**arrays, "y_test": labels})
    done = submit(*SHORT, data="wrong.npz")
    assert done.returncode == 1, done.stderr
    assert "label_out_of_range (y_test)" in done.stdout
    job_id = done.stdout.split(":")[0]
    operator = CompressOperator(Path("unused"), ARCHITECTURE, Path("unused"), {}, url=service_url)
    with pytest.raises(JobFailed, match="label_out_of_range"):
        operator.poke(job_id)
    assert (
        json.loads(atmc("show", job_id, "--json").stdout)["error"]["code"] == "label_out_of_range"
    )


def test_a_running_job_is_cancelled_within_seconds(atmc, submit):
    done = submit("--set=training.robust_epochs=5000", "--no-wait", "--json")
    job_id = json.loads(done.stdout)["id"]
    deadline = time.monotonic() + 30
    while json.loads(atmc("show", job_id, "--json").stdout)["state"] != "running":
        assert time.monotonic() < deadline
    began = time.monotonic()
    assert json.loads(atmc("cancel", job_id, "--json").stdout)["state"] == "cancelled"
    assert time.monotonic() - began < 10


def test_an_evaluation_alone_reports_on_the_upload(atmc, digits, tmp_path):
    done = atmc(
        *("evaluate", digits / "digits.safetensors", "--architecture", "digits_cnn"),
        *("--data", digits / "digits.npz", "--epsilon", 0.1, "--images", 60),
        *("--set", "evaluation.autoattack_steps=5", "--set", "evaluation.square_queries=30"),
        *("--set", "evaluation.curve_images=10", "--set", "accept.robust_accuracy=0.99"),
    )
    assert done.returncode == 0, done.stderr
    name, _, threat = done.stdout.splitlines()[0].partition(": ")
    assert threat == "linf, epsilon 0.1"
    job = json.loads(atmc("show", name, "--json").stdout)
    headline = job["headline"]
    assert headline["clean_accuracy_before"] > 0.9 > headline["robust_accuracy_before"]
    # The table has each with its interval, clean first.
    figures = re.findall(r"^ *(\S.*?) +(\d+\.\d\d %) +\d.* to .* %", done.stdout, re.M)
    assert figures[0] == ("clean", f"{100 * headline['clean_accuracy_before']:.2f} %")
    robust = f"{100 * headline['robust_accuracy_before']:.2f} %"
    assert ("under all attacks, the worst case", robust) in figures
    compressed = ("clean_accuracy_after", "robust_accuracy_after", "k", "file_bytes")
    assert [headline[name] for name in compressed] == [None] * 4
    # A missed threshold is no failed job.
    assert (job["state"], headline["accepted"]) == ("succeeded", False)
    (threshold,) = job["acceptance"]
    assert threshold["figure"] == headline["robust_accuracy_before"]
    assert (threshold["name"], threshold["passed"]) == ("robust_accuracy", False)
    shown = atmc("show", job["id"]).stdout
    assert "missed" in shown
    assert f"{100 * headline['robust_accuracy_before']:.2f} %" in shown

    assert atmc("download", job["id"], "-o", tmp_path).returncode == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["headline"].items() <= headline.items()
    names = {attack["name"] for attack in report["before"]["attacks"]}
    assert {"fgsm", "pgd", "wrm", "apgd_ce", "apgd_t", "fab_t", "square", "autoattack"} <= names
    script = block("docs/report.md", "python -m atmc_core.reproduce")
    files = {"MODEL": digits / "digits.safetensors", "FILE": digits / "digits.npz"}
    assert "Every figure is the report's." in run(named(script, **files), tmp_path)
