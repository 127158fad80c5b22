"""Whole jobs make a small robust model of real images, and the same one after any interruption."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import safetensors.torch
import torch

from atmc_core import artifact, reproduce
from atmc_core.data import load_npz
from atmc_core.errors import InvalidInput
from atmc_core.job import checkpoint
from atmc_core.job.checkpoint import CheckpointFolder
from atmc_core.job.run import run
from atmc_core.networks.upload import ModelInput, open_upload
from atmc_core.report import words
from atmc_core.report.schema import schema
from atmc_spec import Bits, JobSpec, MethodName, Training, read_spec

Events = list[dict[str, Any]]

#: For jobs that are not about what their networks withstand.
LITTLE = {
    "attacks": ["fgsm"],
    "max_images": 40,
    "curve_images": 5,
    "curve_steps": 1,
    "speed": False,
}


class Killed(Exception):
    """Stands for the end of the process at this very event."""


def _run(
    spec: JobSpec,
    model: ModelInput,
    data: Path,
    folder: Path,
    until: Callable[[dict[str, Any]], bool] = lambda event: False,
) -> tuple[dict[str, Any] | None, Events]:
    events: Events = []

    def emit(event: dict[str, Any]) -> None:
        events.append(event)
        if until(event):
            raise Killed

    try:
        headline = run(spec, model, data, folder, device=torch.device("cpu"), emit=emit)
    except Killed:
        return None, events
    return headline, events


def _changed(spec: JobSpec, training: dict[str, Any], **changes: Any) -> JobSpec:
    document = spec.to_json()
    return read_spec(document | changes | {"training": document["training"] | training})


@pytest.fixture(scope="module")
def spec() -> JobSpec:
    return read_spec(
        {
            "method": "atmc",
            "target": {"density": 0.1, "bits": 4},
            "threat": {"norm": "linf", "epsilon": 0.1, "steps": 3},
            "training": {
                "robust_epochs": 4,
                "compression_epochs": 4,
                "finish_epochs": 2,
                "learning_rate": 0.02,
                "dual_interval": 3,
                "batch_size": 64,
            },
            "evaluation": {"pgd_steps": 8, "pgd_restarts": 2, "batch_size": 200, "speed": False},
        },
    )


@pytest.fixture(scope="module")
def undisturbed(
    spec: JobSpec,
    digits_model: ModelInput,
    digits_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, Any], Events]:
    torch.use_deterministic_algorithms(True)
    folder = tmp_path_factory.mktemp("undisturbed")
    headline, events = _run(spec, digits_model, digits_path, folder)
    assert headline is not None
    return folder, headline, events


def test_the_figures_are_those_of_the_file(
    undisturbed: tuple[Path, dict[str, Any], Events], digits_path: Path
) -> None:
    folder, headline, _ = undisturbed
    path = folder / "results" / "model.atmc"
    model = artifact.load(path)
    counts = [
        [int(t.count_nonzero()) for t in factors.tensors] for factors in model.factors.values()
    ]
    u, v, c = (sum(column) for column in zip(*counts, strict=True))
    assert headline["k"] == round(0.1 * 38_160)
    assert headline["nonzeros"] == u + v + c <= headline["k"]
    assert (headline["nonzeros_u"], headline["nonzeros_v"], headline["nonzeros_c"]) == (u, v, c)
    assert min(u, v, c) > 0
    distinct = [len(torch.unique(t[t != 0])) for f in model.factors.values() for t in f.tensors]
    assert headline["max_distinct_values"] == max(distinct) <= 16
    assert headline["file_bytes"] == path.stat().st_size
    assert headline["file_ratio"] == path.stat().st_size / headline["dense_bytes"] < 0.05
    test = load_npz(digits_path, validation_fraction=0.1, seed=0).test
    images, labels = test.batch(slice(None))
    with torch.no_grad():
        clean = int((model.classifier()(images).argmax(1) == labels).sum()) / len(labels)
    assert headline["clean_accuracy_after"] == clean > 0.9


def test_the_clean_accuracy_is_the_same_in_a_fresh_process(
    undisturbed: tuple[Path, dict[str, Any], Events], digits_path: Path
) -> None:
    folder, headline, _ = undisturbed
    program = (
        "import sys, pathlib, torch\n"
        "from atmc_core import artifact\n"
        "from atmc_core.data import load_npz\n"
        "model = artifact.load(pathlib.Path(sys.argv[1])).classifier()\n"
        "data = load_npz(pathlib.Path(sys.argv[2]), validation_fraction=0.1, seed=0)\n"
        "with torch.no_grad():\n"
        "    hits = [(model(x).argmax(1) == y).sum() for x, y in data.test.batches(200)]\n"
        "print(int(sum(hits)) / len(data.test))\n"
    )
    command = [sys.executable, "-c", program, str(folder / "results/model.atmc"), str(digits_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(printed) == headline["clean_accuracy_after"]


def test_robustness_is_gained_and_worst_case_is_the_least(
    undisturbed: tuple[Path, dict[str, Any], Events],
) -> None:
    folder, headline, _ = undisturbed
    report = json.loads((folder / "results" / "report.json").read_text())
    assert report["headline"] == headline
    assert headline["pgd_accuracy_after"] > headline["pgd_accuracy_before"] + 0.05
    for when in ("before", "after"):
        figures = report[when]
        assert figures["clean"]["count"] == 360
        shares = [figures["clean"], *figures["attacks"]]
        assert figures["robust"]["accuracy"] <= min(share["accuracy"] for share in shares)
    assert (
        sum(sum(layer["nonzeros"].values()) for layer in report["layers"]) == headline["nonzeros"]
    )


def test_the_dense_robust_network_stands_between_upload_and_artifact(
    undisturbed: tuple[Path, dict[str, Any], Events], digits_path: Path
) -> None:
    folder, headline, _ = undisturbed
    results = folder / "results"
    report = reproduce.read_report(results / "report.json")
    jsonschema.validate(report, schema())
    assert headline["pgd_accuracy_dense"] > headline["pgd_accuracy_before"] + 0.05
    dense, after = report["dense"], report["after"]
    cost = report["difference_from_dense"]["robust"]
    assert cost["value"] == pytest.approx(after["robust"]["accuracy"] - dense["robust"]["accuracy"])
    assert cost["both"] + cost["only_before"] == dense["robust"]["correct"]
    times = f"{1 / headline['file_ratio']:.1f} times smaller than the robust network"
    assert times in (results / "report.html").read_text()
    heads = [
        (-0.006, -0.02, "0.6 points less robust"),
        (0.01, -0.01, "no less robust"),
        (0.02, 0.01, "2.0 points more robust"),
    ]
    for value, low, said in heads:
        robust = {"value": value, "low": low}
        told = words.summary(report | {"difference_from_dense": {"robust": robust}})
        assert told.endswith(f"than the robust network, {said}")
    again = reproduce.repeat(report, results / "dense.atmc", digits_path, torch.device("cpu"))
    assert (again["side"], again["same_file"], again["differences"]) == ("dense", True, [])


def test_events_tell_stages_progress_and_time_to_go(
    undisturbed: tuple[Path, dict[str, Any], Events],
) -> None:
    _, _, events = undisturbed
    started = [e["stage"] for e in events if e["type"] == "stage" and e["status"] == "started"]
    assert started == [
        "validating",
        "evaluating_upload",
        "robust_training",
        "evaluating_dense",
        "compressing",
        "finishing",
        "evaluating_artifact",
        "writing",
    ]
    progress = [event["progress"] for event in events if event["type"] == "progress"]
    assert progress == sorted(progress)
    assert progress[-1] == pytest.approx(1)
    assert all(
        e["stage"] == "writing" or e["eta_s"] >= 0 for e in events if e["type"] == "progress"
    )
    written = [e["epoch"] for e in events if e["type"] == "progress" and e["stage"] == "writing"]
    assert written == [1, 2, 3]


@pytest.fixture(scope="module")
def short(spec: JobSpec) -> JobSpec:
    """A job of every stage in seconds: for where it goes on, and not what its network is worth."""
    epochs = {"robust_epochs": 2, "compression_epochs": 3, "finish_epochs": 2}
    evaluation = LITTLE | {"attacks": ["fgsm", "pgd"], "pgd_steps": 2, "pgd_restarts": 1}
    threat = {"norm": "linf", "epsilon": 0.1, "steps": 1}
    # Three steps an epoch, one of them of the duals.
    return _changed(spec, epochs | {"batch_size": 160}, threat=threat, evaluation=evaluation)


@pytest.fixture(scope="module")
def short_undisturbed(
    short: JobSpec,
    digits_model: ModelInput,
    small_digits_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[bytes, dict[str, Any]]:
    """The artifact and the headline of the short job."""
    torch.use_deterministic_algorithms(True)
    folder = tmp_path_factory.mktemp("short")
    headline, _ = _run(short, digits_model, small_digits_path, folder)
    assert headline is not None
    return _artifact(folder), headline


def _artifact(folder: Path) -> bytes:
    return (folder / "results" / "model.atmc").read_bytes()


@pytest.mark.parametrize(
    ("stage", "epoch"),
    [
        ("evaluating_upload", 1),
        ("robust_training", 1),
        ("robust_training", 2),
        ("evaluating_dense", 1),
        ("compressing", 2),
        ("finishing", 1),
        ("evaluating_artifact", 1),
    ],
)
def test_killed_in_any_stage_it_ends_with_the_same_bytes(
    stage: str,
    epoch: int,
    short: JobSpec,
    digits_model: ModelInput,
    small_digits_path: Path,
    short_undisturbed: tuple[bytes, dict[str, Any]],
    tmp_path: Path,
) -> None:
    def until(event: dict[str, Any]) -> bool:
        return event["type"] == "progress" and (event["stage"], event["epoch"]) == (stage, epoch)

    headline, events = _run(short, digits_model, small_digits_path, tmp_path, until)
    assert headline is None
    done = epoch - 1  # the event comes before that epoch's checkpoint
    headline, events = _run(short, digits_model, small_digits_path, tmp_path)
    resumed = [event for event in events if event["type"] == "resumed"]
    if (stage, epoch) == ("evaluating_upload", 1):
        assert not resumed
    elif done:
        assert resumed == [{"type": "resumed", "stage": stage, "epoch": done}]
    else:
        assert len(resumed) == 1
    content, expected = short_undisturbed
    assert headline is not None
    assert headline | {"seconds": 0} == expected | {"seconds": 0}
    assert _artifact(tmp_path) == content


def test_where_checkpoints_are_dear_it_goes_on_from_an_older_one_to_the_same_bytes(
    short: JobSpec,
    digits_model: ModelInput,
    small_digits_path: Path,
    short_undisturbed: tuple[bytes, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def until(event: dict[str, Any]) -> bool:
        return event["type"] == "progress" and event["stage"] == "evaluating_artifact"

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "QUICK_S", 0)
        patch.setattr(checkpoint, "WORTH", 1e9)
        _run(short, digits_model, small_digits_path, tmp_path, until)
    assert len(CheckpointFolder(tmp_path / "checkpoints").paths()) == 1
    _, events = _run(short, digits_model, small_digits_path, tmp_path)
    (resumed,) = [event for event in events if event["type"] == "resumed"]
    assert (resumed["stage"], resumed["epoch"]) == ("evaluating_upload", 1)
    assert _artifact(tmp_path) == short_undisturbed[0]


def test_a_broken_checkpoint_falls_back_to_the_one_before(
    short: JobSpec, digits_model: ModelInput, small_digits_path: Path, tmp_path: Path
) -> None:
    def until(event: dict[str, Any]) -> bool:
        return event["type"] == "progress" and event["stage"] == "compressing"

    _run(short, digits_model, small_digits_path, tmp_path, until)
    newest = CheckpointFolder(tmp_path / "checkpoints").paths()[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    headline, events = _run(short, digits_model, small_digits_path, tmp_path)
    assert headline is not None
    codes = [event["code"] for event in events if event["type"] == "warning"]
    assert codes == ["validation_split_cut", "broken_checkpoint"]


def test_a_job_of_the_version_before_begins_anew_says_so_and_ends_with_the_same_bytes(
    short: JobSpec,
    digits_model: ModelInput,
    small_digits_path: Path,
    short_undisturbed: tuple[bytes, dict[str, Any]],
    tmp_path: Path,
) -> None:
    def until(event: dict[str, Any]) -> bool:
        return event["type"] == "progress" and event["stage"] == "compressing"

    _run(short, digits_model, small_digits_path, tmp_path, until)
    folder = CheckpointFolder(tmp_path / "checkpoints")
    for path in folder.paths():
        state = torch.load(path, weights_only=True)
        # What stages hand on was a dict under another name.
        handover = state.pop("handover")
        carry = {"training": handover["plan"], "before": handover["before"]}
        torch.save(state | {"carry": carry, "format": checkpoint.FORMAT - 1}, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.rename(path.with_name(f"{path.stem.partition('-')[0]}-{digest}.pt"))
    _, events = _run(short, digits_model, small_digits_path, tmp_path)
    skipped = [e["message"] for e in events if e.get("code") == "broken_checkpoint"]
    assert len(skipped) == 2
    before, now = checkpoint.FORMAT - 1, checkpoint.FORMAT
    wanted = f"its format is {before}, this release reads {now}"
    assert all(wanted in message for message in skipped)
    assert not [event for event in events if event["type"] == "resumed"]
    assert _artifact(tmp_path) == short_undisturbed[0]


@pytest.mark.parametrize(
    ("method", "bits"),
    [("nap", 2), ("ap", 32), ("al0", 2), ("alr", 2), ("atmc", 2), ("atmc", 16), ("atmc", 32)],
)
def test_every_method_meets_both_constraints(
    method: MethodName,
    bits: Bits,
    spec: JobSpec,
    digits_model: ModelInput,
    small_digits_path: Path,
    tmp_path: Path,
) -> None:
    training = {
        "robust_epochs": 1,
        "compression_epochs": 2,
        "finish_epochs": 1,
        "dual_interval": Training.default("dual_interval"),
        "batch_size": 160,
    }
    target = {"bits": bits, "density": 0.05}
    asked = _changed(spec, training, method=method, target=target, evaluation=LITTLE)
    headline, _ = _run(asked, digits_model, small_digits_path, tmp_path)
    assert headline is not None
    # A singular value costs hundreds of entries at once, so low rank may leave more of k unused.
    assert (0.5 if method == "alr" else 0.9) * headline["k"] < headline["nonzeros"]
    assert headline["nonzeros"] <= headline["k"] == round(0.05 * 38_160)
    if bits <= 8:
        assert headline["max_distinct_values"] <= 2**bits
    # Without factorisation only the factor that the identity passes on is used: V, or U if tall.
    assert (headline["nonzeros_c"] > 0) == (method == "atmc")
    assert min(headline["nonzeros_u"], headline["nonzeros_v"]) > 0


def test_a_last_batch_of_one_image_does_not_keep_the_budget_from_k(
    spec: JobSpec, digits_model: ModelInput, small_digits_path: Path, tmp_path: Path
) -> None:
    train = load_npz(small_digits_path, validation_fraction=0.1, seed=spec.seed).train
    training = {
        "robust_epochs": 0,
        "compression_epochs": 1,
        "finish_epochs": 0,
        "shrink_fraction": 0.95,
        "batch_size": len(train) - 1,
    }
    asked = _changed(spec, training, evaluation=LITTLE)
    headline, _ = _run(asked, digits_model, small_digits_path, tmp_path)
    assert headline is not None
    assert 0.9 * headline["k"] < headline["nonzeros"] <= headline["k"]


def test_dense_training_compresses_nothing_and_says_so(
    spec: JobSpec, digits_model: ModelInput, small_digits_path: Path, tmp_path: Path
) -> None:
    training = {"robust_epochs": 3, "learning_rate": 0.02, "batch_size": 64}
    dense = {**spec.to_json(), "method": "da", "training": training}
    with pytest.raises(InvalidInput, match="density 1 and 32 bits"):
        _run(read_spec(dense), digits_model, small_digits_path, tmp_path)
    dense["target"] = {"bits": 32, "density": 1}
    headline, _ = _run(read_spec(dense), digits_model, small_digits_path, tmp_path)
    assert headline is not None
    assert headline["nonzeros"] == headline["k"] == 38_160
    assert headline["pgd_accuracy_after"] > headline["pgd_accuracy_before"]


class TestRefuses:
    def _refusal(
        self, spec: JobSpec, model: ModelInput, data: Path, folder: Path
    ) -> tuple[str, str | None]:
        with pytest.raises(InvalidInput) as refused:
            _run(spec, model, data, folder)
        assert not (folder / "results" / "report.json").exists()
        return refused.value.code, refused.value.param

    def _changed(
        self, model: ModelInput, folder: Path, **changes: torch.Tensor | None
    ) -> ModelInput:
        tensors = safetensors.torch.load_file(model.path)
        for name, tensor in changes.items():
            key = name.replace("__", ".")
            tensors.pop(key, None)
            if tensor is not None:
                tensors[key] = tensor
        safetensors.torch.save_file(tensors, folder / "changed.safetensors")
        return dataclasses.replace(model, path=folder / "changed.safetensors")

    def test_weights_that_are_not_finite(
        self, spec: JobSpec, digits_model: ModelInput, digits_path: Path, tmp_path: Path
    ) -> None:
        model = self._changed(digits_model, tmp_path, fc1__bias=torch.full((64,), float("nan")))
        refusal = self._refusal(spec, model, digits_path, tmp_path)
        assert refusal == ("non_finite_weights", "fc1.bias")

    def test_tensors_that_do_not_fit(
        self, spec: JobSpec, digits_model: ModelInput, digits_path: Path, tmp_path: Path
    ) -> None:
        for change in (torch.zeros(63), None):
            model = self._changed(digits_model, tmp_path, fc1__bias=change)
            refusal = self._refusal(spec, model, digits_path, tmp_path)
            assert refusal == ("tensor_mismatch", "fc1.bias")
        model = self._changed(digits_model, tmp_path, fc3__bias=torch.zeros(1))
        assert self._refusal(spec, model, digits_path, tmp_path) == ("tensor_mismatch", "fc3.bias")

    def test_files_that_are_no_state_dict(
        self, spec: JobSpec, digits_model: ModelInput, digits_path: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "model.pt"
        model = dataclasses.replace(digits_model, path=path)
        torch.save([torch.zeros(3)], path)
        assert self._refusal(spec, model, digits_path, tmp_path)[0] == "malformed_model"
        path.write_bytes(digits_model.path.read_bytes()[:-50])
        assert self._refusal(spec, model, digits_path, tmp_path)[0] == "malformed_model"

    def test_more_nonzeros_than_weights(
        self, spec: JobSpec, digits_model: ModelInput, digits_path: Path, tmp_path: Path
    ) -> None:
        asked = read_spec(spec.to_json() | {"target": {"bits": 8, "k": 38_161}})
        refusal = self._refusal(asked, digits_model, digits_path, tmp_path)
        assert refusal == ("k_out_of_range", "target.k")


def test_a_pt_file_gives_what_safetensors_gives(digits_model: ModelInput, tmp_path: Path) -> None:
    torch.save(safetensors.torch.load_file(digits_model.path), tmp_path / "model.pt")
    images = torch.rand(4, 1, 8, 8)
    uploads = [
        open_upload(dataclasses.replace(digits_model, path=path))
        for path in (digits_model.path, tmp_path / "model.pt")
    ]
    outputs = [upload.load((1, 8, 8)).network.eval()(images) for upload in uploads]
    assert torch.equal(*outputs)
