"""A whole job: from an uploaded model and data set to an artifact and a report, resumable."""

import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from atmc_core import artifact
from atmc_core.artifact.export import write_exports
from atmc_core.data import Augmentation, DataSet, Reading, check_against, load_dataset
from atmc_core.evaluation.attacks import report_attacks
from atmc_core.events import Emit
from atmc_core.job import recipe
from atmc_core.job.checkpoint import CheckpointFolder
from atmc_core.job.context import Context
from atmc_core.job.methods import check_target
from atmc_core.job.pipeline import Carry, resume, run_stages
from atmc_core.job.planning import plan_training
from atmc_core.job.progress import count, now_and_then
from atmc_core.networks.upload import Loaded, ModelInput, open_upload
from atmc_core.report import Findings, build, write
from atmc_core.report.builder import Compressed
from atmc_core.training import distributed
from atmc_core.training.effort import TrainingPlan
from atmc_spec import JobSpec

__all__ = ["ModelInput", "load_inputs", "run"]

VALIDATING, WRITING = "validating", "writing"


def run(
    spec: JobSpec,
    model: ModelInput,
    dataset: Path,
    folder: Path,
    *,
    device: torch.device,
    emit: Emit,
) -> dict[str, Any]:
    """Compress ``model`` as ``spec`` asks, or only evaluate it, and write ``folder/results``.

    There will be ``report.json``, ``report.html``, ``model_card.md`` and, unless it only evaluates,
    ``model.atmc`` with its exports ``model.safetensors`` and ``model.onnx``.

    Goes on from ``folder/checkpoints`` if there are any. With deterministic algorithms, the same
    versions and number of threads, a resumed run's artifact equals an undisturbed one's byte for
    byte.

    Several processes (``distributed.together``) each call it alike and train together; only the
    first says, writes and returns anything.

    Args:
        emit: called with each event (see docs/interfaces/events.md).

    Returns:
        The headline figures; of the other processes nothing.

    Raises:
        InvalidInput: if the model or the data cannot be used.
        FloatingPointError: if training diverges.
    """
    if not distributed.is_first():
        emit = _say_nothing
    emit({"type": "stage", "stage": VALIDATING, "status": "started"})
    folder.mkdir(parents=True, exist_ok=True)
    reading = Reading(folder=folder, told=now_and_then(emit, VALIDATING))
    loaded, data = load_inputs(model, dataset, spec, reading)
    for code, message in (*loaded.notes, *data.notes):
        emit({"type": "warning", "code": code, "message": message})
    blueprint, classifier = loaded.blueprint, loaded.classifier(model.normalization)
    context = Context(
        spec=spec,
        data=data.to(device),
        classifier=classifier.to(device),
        blueprint=blueprint,
        normalization=model.normalization,
        artifact=folder / "results" / "model.atmc",
        effort=spec.training.effort(),
        emit=emit,
    )
    if spec.target is not None:
        check_target(spec.method, context.budget)
    report_attacks(spec.threat, spec.evaluation, blueprint.num_classes)
    checkpoints = CheckpointFolder(folder / "checkpoints")
    saved = resume(checkpoints, emit)
    # Chosen once: measured again, a resumed job might train for another number of epochs.
    carry: Carry = saved.carry if saved else {"training": plan_training(context, emit).to_json()}
    plan = TrainingPlan.from_json(distributed.from_first(carry["training"]))
    context = replace(context, effort=plan.effort)
    if context.system.compresses and device.type == "cuda":
        warn_of_plain_steps(context.waiting, emit)
    emit({"type": "stage", "stage": VALIDATING, "status": "finished"})

    context.artifact.parent.mkdir(parents=True, exist_ok=True)
    dense_bytes = artifact.dense_bytes(classifier.network)
    carry = run_stages(recipe.plans(context, plan), carry, saved, checkpoints, emit)
    if not distributed.is_first():
        return {}
    outputs = 2 + context.system.compresses
    emit({"type": "stage", "stage": WRITING, "status": "started"})
    report = build(
        Findings(
            spec=spec,
            architecture=model.architecture,
            num_classes=blueprint.num_classes,
            normalization=model.normalization,
            upload=model.path,
            notes=loaded.notes,
            data=data,
            indices=context.indices,
            evaluated=context.evaluated,
            found=carry["before"],
            compressed=_compressed(context, carry, dense_bytes),
            training=plan,
            seed=context.report_seed,
            seconds=carry["seconds"],
            environment={
                "device": device.type,
                "threads": torch.get_num_threads(),
                "processes": distributed.processes(),
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        )
    )
    count(emit, WRITING, 1, outputs, progress=1.0)
    if context.system.compresses:
        write_exports(artifact.load(context.artifact), context.artifact.parent, emit)
        count(emit, WRITING, 2, outputs, progress=1.0)
    write(report, context.artifact.parent)
    count(emit, WRITING, outputs, outputs, progress=1.0)
    emit({"type": "stage", "stage": WRITING, "status": "finished"})
    figures: dict[str, Any] = report["headline"]
    return figures


def warn_of_plain_steps(waiting: Sequence[str], emit: Emit) -> None:
    """Say that training steps are not recorded, if operations of the network keep them from it."""
    if waiting:
        emit(
            {
                "type": "warning",
                "code": "steps_not_recorded",
                "message": "the network looks at its own results while it runs "
                f"({', '.join(waiting)}), so its training steps cannot be recorded and "
                "replayed: training is slower",
            }
        )


def _say_nothing(_: dict[str, Any]) -> None:
    """The first process says it all."""


def _compressed(context: Context, carry: Carry, dense_bytes: int) -> Compressed | None:
    if not context.system.compresses:
        return None
    model = artifact.load(context.artifact)
    return Compressed(model, context.artifact, dense_bytes, carry["after"])


def load_inputs(
    model: ModelInput, dataset: Path, spec: JobSpec, reading: Reading
) -> tuple[Loaded, DataSet]:
    """The uploaded network, and the images that fit it; their channels are the network's.

    Raises:
        InvalidInput: if one of them cannot be used, or they do not go together.
    """
    upload = open_upload(model)
    fraction = spec.training.validation_fraction
    reading = replace(reading, channels=upload.input_shape[0])
    data = load_dataset(dataset, fraction, spec.seed, reading)
    loaded = upload.load(data.test.images.shape[1:])
    check_against(data, loaded.blueprint.input_shape, loaded.blueprint.num_classes)
    augmentation = Augmentation(spec.training.flip, spec.training.shift)
    augmentation.check(*loaded.blueprint.input_shape[1:])
    return loaded, data
