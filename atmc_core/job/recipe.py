"""The methods as rows of stages over the same parts."""

from atmc_core.evaluation.attacks import report_attacks
from atmc_core.evaluation.plan import evaluation_steps
from atmc_core.job.context import Context
from atmc_core.job.pipeline import Plan
from atmc_core.job.planning import TrainingPlan
from atmc_core.job.stages import (
    ArtifactReportStage,
    DenseStage,
    FinishStage,
    FixedStage,
    MovingStage,
    PackStage,
    UploadReportStage,
)


def plans(context: Context, plan: TrainingPlan) -> list[Plan]:
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
    return [upload, *training_plans(context, plan), artifact_report]


def report_costs(context: Context) -> tuple[float, ...]:
    """Of each step of an evaluation."""
    split, threat, evaluation = context.evaluated, context.spec.threat, context.spec.evaluation
    attacks = report_attacks(threat, evaluation, context.num_classes).values()
    pixels = split.images[0].numel()
    steps = evaluation_steps(evaluation, threat, attacks, len(split), pixels)
    return tuple(step.cost for step in steps)


def training_plans(context: Context, plan: TrainingPlan) -> list[Plan]:
    """The stages between the two evaluations."""
    effort, system, cost = context.effort, context.system, context.epoch_cost
    dense = "robust_training" if system.adversarial else "clean_training"
    kept = plan.recognition.words() if plan.recognition and plan.recognition.robust else None
    stages = [
        Plan(
            dense,
            effort.robust_epochs,
            cost,
            lambda carry: DenseStage(context),
            skipped=kept,
            shared=True,
        )
    ]
    if system.support == "none":
        stages.append(Plan("packing", 0, 0, lambda carry: PackStage(context, carry)))
        return stages
    compress: type[MovingStage | FixedStage] = (
        MovingStage if system.support == "moving" else FixedStage
    )
    epochs, finish = effort.compression_epochs, effort.finish_epochs
    stages += [
        Plan("compressing", epochs, cost, lambda carry: compress(context, carry), shared=True),
        Plan("finishing", finish, cost, lambda carry: FinishStage(context, carry), shared=True),
    ]
    return stages
