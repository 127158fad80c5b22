"""Runs a whole job, from an uploaded model and data set to an artifact and a report; resumable."""

import copy
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from atmc_core import artifact
from atmc_core.artifact.export import C_FILE, ONNX_FILE, STATE_DICT, try_onnx, write_exports
from atmc_core.data import Reading
from atmc_core.evaluation.attacks import report_attacks
from atmc_core.events import Emit
from atmc_core.job.checkpoint import CheckpointFolder
from atmc_core.job.denser import DenserInput, read_denser
from atmc_core.job.dependence import of_inputs
from atmc_core.job.evaluation_stages import write_dense
from atmc_core.job.handover import Handover
from atmc_core.job.inputs import Inputs, load_inputs
from atmc_core.job.int8 import INT8_FILE, write_int8
from atmc_core.job.methods import all_methods
from atmc_core.job.pipeline import (
    Position,
    Sharing,
    StagePlan,
    agree_on,
    resume,
    run_stages,
)
from atmc_core.job.products import Keys, Shelf, read_product
from atmc_core.job.progress import emit_progress, throttled_progress
from atmc_core.job.speed import measure_speed
from atmc_core.job.upload_check import look_at_upload
from atmc_core.networks.upload import ModelInput
from atmc_core.report import Findings, build, write
from atmc_core.report.builder import Compressed, Measured
from atmc_core.training import distributed
from atmc_spec import JobSpec

VALIDATING, WRITING = "validating", "writing"


def run(
    spec: JobSpec,
    model: ModelInput,
    dataset: Path,
    folder: Path,
    *,
    device: torch.device,
    emit: Emit,
    denser: DenserInput | None = None,
    shelf: Shelf | None = None,
) -> dict[str, Any]:
    """Compress ``model`` as ``spec`` asks, or only evaluate it, and write ``folder/results``.

    The results are ``report.json``, ``report.html``, ``model_card.md`` and, unless the method only
    evaluates, ``model.atmc`` with its exports ``model.safetensors``,
    ``model.onnx`` and ``model.c``.

    The job continues from ``folder/checkpoints`` if there are any. With deterministic algorithms,
    the same versions and the same number of threads, the artifact of a resumed run equals an
    undisturbed run's byte for byte.

    Several processes (``distributed.together``) may each call this with the same arguments to train
    together; only the first emits, writes and returns anything.

    Args:
        spec: what is asked for.
        model: the uploaded network.
        dataset: the file or folder of images.
        folder: the job's own folder, made if it does not exist.
        device: where to compute.
        emit: is called with each event (see docs/interfaces/events.md).
        denser: the compressed network to start from, instead of the trained dense one.
        shelf: where results of stages lie that jobs share; None shares nothing.

    Returns:
        The report's headline figures; an empty dict in the other processes.

    Raises:
        InvalidInput: if the model or the data cannot be used, or the method cannot do what is
            asked.
        FloatingPointError: if training diverges.
    """
    if not distributed.is_first():
        emit = _say_nothing
    job = prepare(spec, model, dataset, folder, device, emit, denser)
    handover = train(job, emit, shelf)
    return write_results(job.inputs, handover, emit) if distributed.is_first() else {}


def _say_nothing(_: dict[str, Any]) -> None:
    """Emit nothing, since the first process emits all events."""


@dataclass(frozen=True)
class Prepared:
    """A job that is ready to train.

    Attributes:
        inputs: what the job is given.
        stages: all stages of the job, in their order.
        checkpoints: the folder of the job's checkpoints.
        start: the newest checkpoint's position, or the beginning.
    """

    inputs: Inputs
    stages: Sequence[StagePlan]
    checkpoints: CheckpointFolder
    start: Position


def prepare(
    spec: JobSpec,
    model: ModelInput,
    dataset: Path,
    folder: Path,
    device: torch.device,
    emit: Emit,
    denser: DenserInput | None = None,
) -> Prepared:
    """Read and check what the job is given, and list its stages.

    Raises:
        InvalidInput: if the model or the data cannot be used, or the method cannot do what is
            asked.
    """
    emit({"type": "stage", "stage": VALIDATING, "status": "started"})
    folder.mkdir(parents=True, exist_ok=True)
    inputs = _read(spec, model, dataset, folder, device, emit)
    inputs = replace(inputs, checks=tuple(look_at_upload(inputs, emit)))
    if denser is not None:
        spec.check_start()
        read = read_denser(denser, inputs.classifier.network, inputs.blueprint)
        inputs = replace(inputs, denser=read)
    method = all_methods()[spec.method]
    method.check(inputs)
    report_attacks(spec.threat, spec.evaluation, inputs.num_classes)
    checkpoints = CheckpointFolder(folder / "checkpoints")
    start = resume(checkpoints, emit)
    if start is None:
        # The plan is made once and kept: a resumed job that measured again might train for another
        # number of epochs.
        start = Position(Handover(agree_on(method.plan(inputs, emit))))
        if spec.target is not None and distributed.is_first():
            try_onnx(inputs.classifier, inputs.blueprint, emit)
    stages = method.stages(inputs, start.handover.plan, emit)
    emit({"type": "stage", "stage": VALIDATING, "status": "finished"})
    return Prepared(inputs, stages, checkpoints, start)


def _read(
    spec: JobSpec, model: ModelInput, dataset: Path, folder: Path, device: torch.device, emit: Emit
) -> Inputs:
    """The network and the images, on the device; emits a warning of each change made to them."""
    reading = Reading(folder=folder, told=throttled_progress(emit, VALIDATING))
    loaded, data = load_inputs(model, dataset, spec, reading)
    for code, message in (*loaded.notes, *data.notes):
        emit({"type": "warning", "code": code, "message": message})
    return Inputs(
        spec=spec,
        model=model,
        blueprint=loaded.blueprint,
        notes=loaded.notes,
        read=data,
        data=data.to(device),
        classifier=loaded.classifier(model.normalization).to(device),
        results=folder / "results",
    )


def train(job: Prepared, emit: Emit, shelf: Shelf | None = None) -> Handover:
    """Run all stages, evaluations included, and return their results.

    Args:
        shelf: as in ``run``.

    Raises:
        FloatingPointError: if training diverges.
    """
    job.inputs.results.mkdir(parents=True, exist_ok=True)
    sharing = _sharing(job.inputs, shelf) if shelf is not None else None
    return run_stages(job.stages, job.start, job.checkpoints, emit, sharing)


def _sharing(inputs: Inputs, shelf: Shelf) -> Sharing:
    """With what the job shares the results of its stages."""
    network = copy.deepcopy(inputs.classifier.network)
    images = len(inputs.indices)
    return Sharing(
        shelf,
        Keys(of_inputs(inputs, shelf.files)),
        lambda found, gives: read_product(found, gives, network, images),
    )


def write_results(inputs: Inputs, handover: Handover, emit: Emit) -> dict[str, Any]:
    """Write the report and, if there is an artifact, its exports; return the report's headline."""
    emit({"type": "stage", "stage": WRITING, "status": "started"})
    if handover.dense is not None:
        # Again, since a job that goes on elsewhere brings its checkpoints and none of its results.
        write_dense(inputs, handover)
    compressed = _compressed(inputs, handover)
    # With an artifact there are exports; then speed is measured, and the report is written.
    parts = 3 if compressed else 2
    after, int8 = None, None
    if compressed:
        after = compressed.model.classifier()
        write_exports(compressed.model, inputs.results, emit)
        int8 = write_int8(inputs, after)
        emit_progress(emit, WRITING, 1, parts, progress=1.0)
    speed = measure_speed(inputs, after, emit)
    emit_progress(emit, WRITING, parts - 1, parts, progress=1.0)
    files = _written(inputs) if compressed else ()
    report = build(_findings(inputs, handover, compressed, Measured(speed, int8, files)))
    write(report, inputs.results)
    emit_progress(emit, WRITING, parts, parts, progress=1.0)
    emit({"type": "stage", "stage": WRITING, "status": "finished"})
    headline: dict[str, Any] = report["headline"]
    return headline


def _written(inputs: Inputs) -> tuple[Path, ...]:
    """The artifact, its exports and the dense network, as far as there are."""
    exports = (inputs.results / name for name in (STATE_DICT, ONNX_FILE, INT8_FILE, C_FILE))
    files = (inputs.artifact, *exports, inputs.dense_artifact)
    return tuple(path for path in files if path.exists())


def _findings(
    inputs: Inputs,
    handover: Handover,
    compressed: Compressed | None,
    measured: Measured,
) -> Findings:
    """All that the report is built of."""
    assert handover.before is not None
    return Findings(
        spec=inputs.spec,
        model=inputs.model,
        num_classes=inputs.num_classes,
        notes=inputs.notes,
        data=inputs.read,
        indices=inputs.indices,
        evaluated=inputs.evaluated,
        found=handover.before,
        raised=inputs.checks,
        compressed=compressed,
        measured=measured,
        seed=inputs.report_seed,
        seconds=handover.seconds,
        start=inputs.denser.to_json() if inputs.denser else None,
        reused=tuple(handover.reused),
        environment={
            "device": inputs.device.type,
            "threads": torch.get_num_threads(),
            "processes": distributed.processes(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    )


def _compressed(inputs: Inputs, handover: Handover) -> Compressed | None:
    """The report's part on the artifact, or None if the stages made no artifact."""
    if handover.after is None:
        return None
    return Compressed(
        model=artifact.load(inputs.artifact),
        path=inputs.artifact,
        dense_bytes=artifact.dense_bytes(inputs.classifier.network),
        found=handover.after,
        training=handover.plan,
        dense=handover.dense,
        dense_path=inputs.dense_artifact,
    )
