"""A whole job: from an uploaded model and data set to an artifact and a report, resumable."""

import platform
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from atmc_core import artifact, recipe
from atmc_core.architectures import bind_num_classes, get_architecture
from atmc_core.architectures import build as build_network
from atmc_core.checkpoint import CheckpointFolder
from atmc_core.config import JobSpec
from atmc_core.context import Context
from atmc_core.data import check_against, load_npz
from atmc_core.errors import InvalidInput
from atmc_core.methods import check_target
from atmc_core.model import Classifier, Normalization
from atmc_core.pipeline import Carry, Emit, resume, run_stages
from atmc_core.planning import TrainingPlan, plan_training
from atmc_core.report import Findings, build, write
from atmc_core.report.builder import Compressed
from atmc_core.report_attacks import report_attacks
from atmc_core.state_dict import read_state_dict

VALIDATING = "validating"


@dataclass(frozen=True)
class ModelInput:
    """An uploaded state dict (safetensors, or ``.pt`` of tensors only) of a known network."""

    path: Path
    architecture: str
    normalization: Normalization = field(default_factory=Normalization)


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
    ``model.atmc``.

    Goes on from ``folder/checkpoints`` if there are any. With deterministic algorithms, the same
    versions and number of threads, a resumed run's artifact equals an undisturbed one's byte for
    byte.

    Args:
        emit: called with each event (see docs/interfaces.md).

    Returns:
        The headline figures.

    Raises:
        InvalidInput: if the model or the data cannot be used.
        FloatingPointError: if training diverges.
    """
    emit({"type": "stage", "stage": VALIDATING, "status": "started"})
    classifier, num_classes = load_classifier(model)
    data = load_npz(dataset, validation_fraction=spec.training.validation_fraction, seed=spec.seed)
    check_against(data, get_architecture(model.architecture).input_shape, num_classes)
    context = Context(
        spec=spec,
        data=data.to(device),
        classifier=classifier.to(device),
        architecture=model.architecture,
        num_classes=num_classes,
        normalization=model.normalization,
        artifact=folder / "results" / "model.atmc",
        effort=spec.training.effort(),
    )
    if spec.target is not None:
        check_target(spec.method, context.budget)
    report_attacks(spec.threat, spec.evaluation, num_classes)
    checkpoints = CheckpointFolder(folder / "checkpoints")
    saved = resume(checkpoints, emit)
    # Chosen once: measured again, a resumed job might train for another number of epochs.
    carry: Carry = saved.carry if saved else {"training": plan_training(context, emit).to_json()}
    plan = TrainingPlan.from_json(carry["training"])
    context = replace(context, effort=plan.effort)
    emit({"type": "stage", "stage": VALIDATING, "status": "finished"})

    context.artifact.parent.mkdir(parents=True, exist_ok=True)
    dense_bytes = artifact.dense_bytes(classifier.network)
    carry = run_stages(recipe.plans(context, plan), carry, saved, checkpoints, emit)
    report = build(
        Findings(
            spec=spec,
            architecture=model.architecture,
            num_classes=num_classes,
            normalization=model.normalization,
            upload=model.path,
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
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        )
    )
    write(report, context.artifact.parent)
    figures: dict[str, Any] = report["headline"]
    return figures


def _compressed(context: Context, carry: Carry, dense_bytes: int) -> Compressed | None:
    if not context.system.compresses:
        return None
    model = artifact.load(context.artifact)
    return Compressed(model, context.artifact, dense_bytes, carry["after"])


def load_classifier(model: ModelInput) -> tuple[Classifier, int]:
    """The uploaded network behind its normalisation, and its number of classes.

    Raises:
        InvalidInput: if the file does not hold the finite tensors of that architecture.
    """
    architecture = get_architecture(model.architecture)
    tensors = read_state_dict(model.path)
    num_classes = bind_num_classes(
        model.architecture, {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    )
    if num_classes < 2:
        raise InvalidInput(
            "tensor_mismatch",
            f"the network has {num_classes} class; a classifier has at least 2",
            "model",
        )
    network = build_network(model.architecture, num_classes)
    expected = network.state_dict()
    for name, tensor in expected.items():
        if name not in tensors:
            if name.endswith("num_batches_tracked"):
                continue
            raise InvalidInput("tensor_mismatch", f"{name} is missing", name)
        if tensors[name].shape != tensor.shape:
            raise InvalidInput(
                "tensor_mismatch",
                f"{name} is {list(tensors[name].shape)}; expected {list(tensor.shape)}",
                name,
            )
    for name in tensors:
        if name not in expected:
            raise InvalidInput("tensor_mismatch", f"{name} is no tensor of the network", name)
        if not torch.isfinite(tensors[name]).all():
            raise InvalidInput("non_finite_weights", f"{name} holds NaN or infinite values", name)
    network.load_state_dict(tensors, strict=False)
    return Classifier(network, model.normalization, architecture.input_shape[0]), num_classes
