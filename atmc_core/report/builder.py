"""Builds the report from the results of a job's stages."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from atmc_core.artifact import CompressedModel
from atmc_core.data import SPLITS, DataSet, Split
from atmc_core.evaluation.plan import curve_positions, probe_positions
from atmc_core.evaluation.statistics import CONFIDENCE
from atmc_core.networks.upload import ModelInput
from atmc_core.report import checks, figures, headline, words
from atmc_core.report.pictures import pictures
from atmc_core.report.schema import REPORT_VERSION
from atmc_core.training.effort import TrainingPlan
from atmc_spec import JobSpec


@dataclass(frozen=True)
class Compressed:
    """The results of compression.

    Attributes:
        model: the decoded artifact.
        path: the artifact's file.
        dense_bytes: the size of the dense float32 state dict as a safetensors file.
        found: the results of the evaluation of the artifact in a fresh process (see ``Evaluator``).
        training: how long the network was trained, and why.
        dense: the results of the evaluation of the dense network that the job made robust; None if
            it made none, since the upload was robust or the method does not.
        dense_path: that network's file, if there is one.
    """

    model: CompressedModel
    path: Path
    dense_bytes: int
    found: dict[str, Any]
    training: TrainingPlan
    dense: dict[str, Any] | None
    dense_path: Path


@dataclass(frozen=True)
class Measured:
    """What was measured of the exported files.

    Attributes:
        speed: how fast the networks are (``measure_speed``); None if the spec leaves it out.
        int8: what the network in int8 loses (``write_int8``); None if there is to be none.
        files: the artifact and its exports; a report cannot name its own hash.
    """

    speed: dict[str, Any] | None
    int8: dict[str, Any] | None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Findings:
    """All that a report is made from.

    Attributes:
        spec: the job's spec.
        model: the uploaded file and its description.
        num_classes: the number of classes of the network.
        notes: what was changed in reading the upload, as pairs of a code and a sentence.
        data: the job's data set.
        indices: the positions of the evaluated images in their split, int64 ``[N]``.
        evaluated: the evaluated images.
        found: the results of the evaluation of the upload (see ``Evaluator``).
        raised: checks of the upload that were raised before it was evaluated.
        compressed: the results of compression; None for a job that only evaluates.
        measured: what was measured of the exported files.
        seed: the seed of the evaluation.
        seconds: the time that all epochs took.
        reused: for each stage that was taken from another job its name, that job, and the seconds
            that it took there, which are not in ``seconds``.
        start: the denser network that compression started from; None: the trained dense one.
        environment: the machine and the versions, which the report contains unchanged.
    """

    spec: JobSpec
    model: ModelInput
    num_classes: int
    notes: tuple[tuple[str, str], ...]
    data: DataSet
    indices: Tensor
    evaluated: Split
    found: dict[str, Any]
    raised: tuple[checks.Check, ...]
    compressed: Compressed | None
    measured: Measured
    seed: int
    seconds: float
    start: dict[str, Any] | None
    reused: tuple[dict[str, Any], ...]
    environment: dict[str, Any]


def build(findings: Findings) -> dict[str, Any]:
    """The report as a JSON document that meets ``schema()``."""
    labels = findings.evaluated.labels.cpu()
    before = _side(findings, labels, findings.found, findings.model.path, "job")
    compressed = _compressed(findings, labels)
    dense, after, difference = (compressed.get(x) for x in ("dense", "after", "difference"))
    sizes = _sizes(findings)
    verdict = headline.acceptance(
        findings.spec.accept,
        after or before,
        difference and difference["clean"],
        sizes.get("file_ratio"),
    )
    found_checks = _checks(findings, {"before": before} | compressed)
    speed = findings.measured.speed
    return {
        "version": REPORT_VERSION,
        **_model(findings),
        **({"start": findings.start} if findings.start else {}),
        "reused": list(findings.reused),
        "headline": headline.accuracies(before, "before")
        | (headline.accuracies(dense, "dense") if dense else {})
        | (headline.accuracies(after, "after") if after else {})
        | ({"intervals_after": headline.intervals(after)} if after else {})
        | sizes
        | headline.speed(speed, bool(compressed))
        | {"seconds": findings.seconds, "accepted": verdict["accepted"]},
        "acceptance": verdict,
        "before": before,
        **compressed,
        "speed": speed and speed | {"note": words.speed_note(speed)},
        "int8": findings.measured.int8,
        "files": [_file(path) for path in findings.measured.files],
        "warnings": [check for check in found_checks if check["status"] == "raised"],
        "checks": found_checks,
        "evaluation": _evaluation(findings, labels),
        "examples": _examples(findings),
        "images": {name: len(getattr(findings.data, name)) for name in SPLITS},
        "inputs": _inputs(findings),
        "spec": findings.spec.to_json(),
        "environment": findings.environment,
    }


def _inputs(findings: Findings) -> dict[str, Any]:
    return {
        "class_names": list(findings.data.class_names),
        "notes": [
            {"code": code, "message": message}
            for code, message in (*findings.notes, *findings.data.notes)
        ],
    }


def _model(findings: Findings) -> dict[str, Any]:
    normalization = findings.model.normalization
    return {
        "method": findings.spec.method,
        "architecture": findings.model.architecture,
        "num_classes": findings.num_classes,
        "normalization": {"mean": list(normalization.mean), "std": list(normalization.std)},
    }


def _compressed(findings: Findings, labels: Tensor) -> dict[str, Any]:
    """The entries of the report that only a job with compression has."""
    compressed = findings.compressed
    if compressed is None:
        return {}
    dense = {}
    if compressed.dense:
        dense = {
            "dense": _side(findings, labels, compressed.dense, compressed.dense_path, "fresh"),
            "difference_from_dense": figures.differences(compressed.dense, compressed.found),
        }
    return dense | {
        "after": _side(findings, labels, compressed.found, compressed.path, "fresh"),
        "difference": figures.differences(findings.found, compressed.found),
        "layers": headline.layer_table(compressed.model),
        "training": _training(findings.spec, compressed.training),
    }


def _training(spec: JobSpec, plan: TrainingPlan) -> dict[str, Any]:
    """All settings of training, whether they were given, defaults, or chosen by the job."""
    training = spec.training
    recognition = asdict(plan.recognition) if plan.recognition else None
    used = training.to_json() | asdict(plan.effort)
    if training.loss == "trades":
        used["beta"] = training.trades_beta
    elif training.loss == "mix":
        used["clean_weight"] = training.mix_clean_weight
        used["teacher_weight"] = training.mix_teacher_weight
    return used | {
        "step_size": spec.threat.training_step_size,
        "seconds_per_epoch": plan.seconds_per_epoch,
        "upload": recognition,
    }


def _sizes(findings: Findings) -> dict[str, Any]:
    compressed = findings.compressed
    if compressed is None:
        return {}
    return headline.sizes(compressed.model, compressed.path, compressed.dense_bytes)


def _examples(findings: Findings) -> list[dict[str, Any]]:
    return pictures(findings.evaluated, findings.indices, _found(findings))


def _found(findings: Findings) -> dict[str, dict[str, Any]]:
    """The results of the evaluations that there were, by side."""
    found, compressed = {"before": findings.found}, findings.compressed
    if compressed and compressed.dense:
        found["dense"] = compressed.dense
    return found | ({"after": compressed.found} if compressed else {})


def _side(
    findings: Findings, labels: Tensor, found: dict[str, Any], path: Path, process: str
) -> dict[str, Any]:
    return {"process": process, "sha256": _digest(path)} | figures.side(
        found, labels, findings.num_classes, findings.spec.threat
    )


def _file(path: Path) -> dict[str, Any]:
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": _digest(path)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checks(findings: Findings, sides: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    found = [
        {"side": when} | check
        for when, state in _found(findings).items()
        for check in (
            *checks.side_checks(state, sides[when], findings.num_classes),
            *checks.network_checks(findings.notes),
        )
    ]
    data = checks.data_checks(
        findings.data,
        findings.evaluated.images,
        findings.spec.threat,
        findings.spec.evaluation.split,
    )
    early = [{"side": "before"} | check for check in findings.raised]
    return early + found + [{"side": "data"} | check for check in data]


def _evaluation(findings: Findings, labels: Tensor) -> dict[str, Any]:
    spec = findings.spec
    evaluation, seed = spec.evaluation, findings.seed
    return {
        "level": evaluation.level,
        "split": evaluation.split,
        "seed": seed,
        "norm": spec.threat.norm,
        "epsilon": spec.threat.epsilon,
        "attacks": list(evaluation.attack_names(findings.num_classes)),
        "pgd_steps": evaluation.pgd_steps,
        "pgd_restarts": evaluation.pgd_restarts,
        "curve_steps": evaluation.curve_steps,
        "curve_images": len(curve_positions(labels, evaluation, seed)),
        "probe_images": len(probe_positions(labels, seed)),
        "confidence": CONFIDENCE,
        "data_sha256": checks.split_digest(findings.evaluated),
        "indices": findings.indices.tolist(),
    }
