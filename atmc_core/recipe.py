"""The methods as rows of stages over the same parts."""

from atmc_core.context import Context
from atmc_core.evaluation_plan import evaluation_steps
from atmc_core.pipeline import Plan
from atmc_core.report_attacks import report_attacks
from atmc_core.stages import (
    ArtifactReportStage,
    DenseStage,
    FinishStage,
    FixedStage,
    MovingStage,
    PackStage,
    UploadReportStage,
)


def plans(context: Context) -> list[Plan]:
    """The stages of the job's method, with the cost of a step in forward passes of one image."""
    report = report_costs(context)
    upload = Plan(
        "evaluating_upload", len(report), report, lambda carry: UploadReportStage(context)
    )
    if not context.system.compresses:
        return [upload]
    artifact_report = Plan(
        "evaluating_artifact",
        len(report),
        report,
        lambda carry: ArtifactReportStage(context, carry),
    )
    return [upload, *training_plans(context), artifact_report]


def report_costs(context: Context) -> tuple[float, ...]:
    """Of each step of an evaluation."""
    split, threat, evaluation = context.evaluated, context.spec.threat, context.spec.evaluation
    attacks = report_attacks(threat, evaluation, context.num_classes).values()
    pixels = split.images[0].numel()
    steps = evaluation_steps(evaluation, threat, attacks, len(split), pixels)
    return tuple(step.cost for step in steps)


def training_plans(context: Context) -> list[Plan]:
    """The stages between the two evaluations."""
    spec, data, system = context.spec, context.data, context.system
    training = spec.training
    # A backward pass costs about two forward ones; in the attack it needs no weights' gradients.
    attack = 2 * spec.threat.steps if system.adversarial else 0
    images = 2 if system.adversarial else 1
    epoch = len(data.train) * (attack + 3 * images) + len(data.val) * (attack + 1)
    dense = "robust_training" if system.adversarial else "clean_training"
    stages = [Plan(dense, training.robust_epochs, epoch, lambda carry: DenseStage(context))]
    if system.support == "none":
        stages.append(Plan("packing", 0, 0, lambda carry: PackStage(context, carry)))
        return stages
    compress: type[MovingStage | FixedStage] = (
        MovingStage if system.support == "moving" else FixedStage
    )
    epochs = training.compression_epochs
    stages += [
        Plan("compressing", epochs, epoch, lambda carry: compress(context, carry)),
        Plan(
            "finishing",
            training.finish_epochs,
            epoch,
            lambda carry: FinishStage(context, carry),
        ),
    ]
    return stages
