"""A report has the latency, the multiply-adds and the memory of its networks, measured there."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from atmc_core import artifact
from atmc_core.codegen import compiler
from atmc_core.evaluation import memory_probe
from atmc_core.evaluation.latency import interleaved
from atmc_core.job import speed
from atmc_core.job.run import prepare
from atmc_core.networks.multiply_adds import multiply_adds
from atmc_core.networks.upload import ModelInput
from atmc_core.report.words import speed_note
from atmc_spec import read_spec
from tests.atmc_core.job.whole_jobs import THREAT, read_report

HAS_COMPILER = shutil.which("cc") is not None
# Of digits_cnn, by hand: two convolutions of 3x3 on 8x8, and two layers.
DIGITS = 64 * 16 * 9 + 64 * 32 * 16 * 9 + 512 * 64 + 64 * 10


def test_multiply_adds_are_counted_at_every_position() -> None:
    layers = nn.Conv2d(3, 4, 3, 2, padding=1, groups=1), nn.Conv2d(4, 4, 3, groups=4)
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 5)).train()
    counts = multiply_adds(network, (3, 8, 8))
    assert counts.dense == 16 * 4 * 3 * 9 + 4 * 4 * 9 + 16 * 5
    assert network.training
    network[0].weight.data[1:] = 0
    assert multiply_adds(network, (3, 8, 8)).nonzero == 16 * 3 * 9 + 4 * 4 * 9 + 16 * 5


def test_sides_run_in_turns_and_their_times_are_theirs() -> None:
    ran: list[str] = []

    def side(name: str, seconds: float) -> None:
        ran.append(name)
        time.sleep(seconds)

    times = interleaved({"a": lambda: side("a", 0.001), "b": lambda: side("b", 0.004)}, 0.05)
    assert ran == ["a", "b"] * (len(ran) // 2)
    assert times["a"].runs == times["b"].runs == len(ran) // 2 - 2 >= 3
    assert 0.001 <= times["a"].median_s < times["b"].median_s
    assert times["b"].p95_s >= times["b"].median_s >= 0.004


def test_the_report_of_a_compressed_network_says_how_fast_it_is(compressed: Path) -> None:
    report = read_report(compressed)
    found, headline = report["speed"], report["headline"]
    timed = {(each["network"], each["batch"], each["threads"]) for each in found["latency"]}
    threads = {1, found["threads"]}
    onnx = {(name, n, t) for name in ("before", "after") for n in (1, 32) for t in threads}
    assert timed == onnx | ({("c", 1, 1)} if HAS_COMPILER else set())
    assert all(0 < each["median_s"] <= each["p95_s"] for each in found["latency"])
    model = artifact.load(compressed / "results" / "model.atmc")
    nonzero = multiply_adds(model.network(), (1, 8, 8)).nonzero
    assert found["multiply_adds"] == {"before": DIGITS, "after": DIGITS, "nonzero": nonzero}
    assert nonzero < 0.6 * DIGITS
    assert found["note"].startswith("The same arithmetic: positions are sparse, the runtime is")
    assert headline["multiply_adds_nonzero"] == nonzero
    (one,) = [
        each["median_s"]
        for each in found["latency"]
        if (each["network"], each["batch"], each["threads"]) == ("after", 1, 1)
    ]
    assert headline["latency_after_s"] == one
    assert (headline["latency_c_s"] is not None) == HAS_COMPILER
    for peak in found["peak_memory_bytes"].values():
        assert 10_000 < peak < 2**30
    page = (compressed / "results" / "report.html").read_text()
    card = (compressed / "results" / "model_card.md").read_text()
    assert found["note"].partition(",")[0] in page
    assert "How fast it is here" in page
    assert found["note"] in card


def test_before_the_measurement_no_memory_was_held_that_is_not_held_any_more() -> None:
    """So the peak that is measured is the batch's, also where no peak may be forgotten."""
    program = (
        "import sys, runpy\n"
        "probe = runpy.run_path(sys.argv[1])\n"
        "print(probe['_resident']('VmHWM') - probe['_resident']('VmRSS'))\n"
    )
    command = [sys.executable, "-I", "-c", program, memory_probe.__file__]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2**20


def _speed(folder: Path, model: ModelInput, data: Path, results: Path, events: list[Any]) -> Any:
    """What is measured, anew, of an artifact's exports in ``results``."""
    document = {"method": "nap", "threat": THREAT, "target": {"bits": 4, "density": 0.2}}
    job = prepare(read_spec(document), model, data, folder, torch.device("cpu"), events.append)
    events.clear()
    job.inputs.results.mkdir()
    for name in ("model.onnx", "model.c"):
        shutil.copy(results / name, job.inputs.results / name)
    after = artifact.load(results / "model.atmc").classifier()
    return job.inputs, lambda: speed.measure_speed(job.inputs, after, events.append)


def test_an_upload_alone_no_compiler_and_a_wrong_file_are_told_of(
    digits_model: ModelInput,
    digits_path: Path,
    compressed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speed, "_BUDGET_S", 0.0)
    monkeypatch.setattr(speed, "peak_memory", lambda *_: None)
    events: list[Any] = []
    inputs, measure = _speed(tmp_path, digits_model, digits_path, compressed / "results", events)
    with monkeypatch.context() as without:
        without.setattr(compiler.shutil, "which", lambda _: None)
        found = measure()
    assert "no C compiler" in found["not_measured"]["c"]
    assert "no C compiler" in speed_note(found)
    assert (inputs.results / "model.c").exists()
    assert not events
    alone = speed.measure_speed(inputs, None, events.append)
    assert alone is not None
    assert {each["network"] for each in alone["latency"]} == {"before"}
    assert alone["multiply_adds"] == {"before": DIGITS, "after": None, "nonzero": None}
    assert speed_note(alone) == f"One image takes {DIGITS:,} multiply-adds."
    if HAS_COMPILER:
        path = inputs.results / "model.c"
        path.write_text(path.read_text().replace("logits[i] = ", "logits[i] = 1.0f + ", 1))
        found = measure()
        assert "differ" in found["not_measured"]["c"]
        assert not path.exists()
        assert [event["code"] for event in events] == ["c_not_exported"]
