"""Classes of methods: a method checks what is asked, plans its training and lists its stages."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from atmc_core.artifact.budget import Budget
from atmc_core.attacks import PGD
from atmc_core.errors import InvalidInput
from atmc_core.events import Emit
from atmc_core.factors import splitting
from atmc_core.factors.factors import NamedFactors
from atmc_core.job.costs import epoch_cost, evaluation_costs
from atmc_core.job.dependence import of_compression, of_dense_training, of_evaluation
from atmc_core.job.evaluation_stages import (
    ArtifactEvaluationStage,
    DenseEvaluationStage,
    UploadEvaluationStage,
)
from atmc_core.job.handover import Handover
from atmc_core.job.inputs import Inputs
from atmc_core.job.pipeline import Stage, StagePlan
from atmc_core.job.planning import fit_epochs, is_near, keep_if_robust, shorten_from_denser
from atmc_core.job.setup import TrainingSetup, set_up_training, warn_of_plain_steps
from atmc_core.job.stages import DenseStage, FactorsFor, FinishStage, FixedStage, MovingStage
from atmc_core.solver.support import Channels
from atmc_core.training.effort import TrainingPlan
from atmc_core.training.trainer import training_attack
from atmc_spec import EPOCHS, JobSpec, Threat


@dataclass(frozen=True)
class Method(ABC):
    """A method of compression, or of evaluation alone.

    To add a method, add a file to ``methods`` that makes an object of a subclass.

    Attributes:
        name: the name by which a spec asks for the method.
        description: one sentence for the catalogue.
        spec: the class of the method's specs; a method that compresses derives its own from
            ``CompressionSpec``.
    """

    name: str
    description: str
    spec: type[JobSpec]

    @abstractmethod
    def check(self, inputs: Inputs) -> None:
        """Check that the method can do what is asked of it with these inputs.

        Raises:
            InvalidInput: if it cannot.
        """

    def plan(self, inputs: Inputs, emit: Emit) -> TrainingPlan:
        """Choose how long training takes, once in a job; what it measures it emits."""
        return TrainingPlan(inputs.spec.training.effort())

    @abstractmethod
    def stages(self, inputs: Inputs, plan: TrainingPlan, emit: Emit) -> Sequence[StagePlan]:
        """List the stages in their order; emits a warning of what makes them slow."""


@dataclass(frozen=True)
class TrainingMethod(Method):
    """A method that trains the upload, by default on adversarial images, and writes an artifact."""

    def attack(self, threat: Threat) -> PGD | None:
        """The attack of training, which also chooses between epochs; None means clean training."""
        return training_attack(
            threat.norm, threat.epsilon, threat.steps, threat.step_size, threat.backward
        )

    def stages(self, inputs: Inputs, plan: TrainingPlan, emit: Emit) -> Sequence[StagePlan]:
        setup = set_up_training(inputs, self.attack(inputs.spec.threat), plan)
        warn_of_plain_steps(setup.waiting, emit)
        return [
            evaluate_upload(inputs),
            train_dense(inputs, setup),
            *self.after_dense(inputs, setup),
            evaluate_artifact(inputs),
        ]

    @abstractmethod
    def after_dense(self, inputs: Inputs, setup: TrainingSetup) -> Sequence[StagePlan]:
        """The stages that turn the trained dense network into the compressed one."""


@dataclass(frozen=True)
class CompressionMethod(TrainingMethod):
    """A method that compresses the trained dense network, and then refines the compressed one.

    Attributes:
        compress: the stage that compresses, with a support that moves or is chosen once.
    """

    compress: type[MovingStage] | type[FixedStage]

    @abstractmethod
    def start(self, weights: splitting.ViewedWeights, spec: JobSpec) -> FactorsFor:
        """The factors that compression starts from, for each k.

        Args:
            weights: the conv and linear weights of the trained dense network.
            spec: an instance of the method's own class of specs.
        """

    def least(self, budget: Budget) -> NamedFactors | None:
        """Factors with the fewest non-zeros that the method can leave; None means a single one."""
        return None

    def check(self, inputs: Inputs) -> None:
        """Check that the target can be met.

        Raises:
            InvalidInput: if there are no weights to compress, k is out of range, not even the least
                fits ``max_bytes``, or whole channels are asked for and ``torch.fx`` cannot trace
                the network.
        """
        check_weights(inputs)
        budget = inputs.budget
        budget.check(self.least(budget))
        k, structure = budget.target.given_k(budget.most), budget.structure
        if k is not None and isinstance(structure, Channels) and k < structure.least():
            if structure.counts_multiply_adds:
                enough = math.ceil(1000 * structure.least() / budget.most) / 1000
                raise InvalidInput(
                    "k_out_of_range",
                    f"macs {budget.target.macs} asked for; with one channel a layer, and those "
                    f"that cannot go, the network has more multiply-adds: ask for {enough:.3f} or "
                    "more",
                    "target.macs",
                )
            raise InvalidInput(
                "k_out_of_range",
                f"{k} non-zeros asked for; with one channel a layer the network has "
                f"{structure.least()}: ask for as many, or for structure element",
                "target",
            )

    def plan(self, inputs: Inputs, emit: Emit) -> TrainingPlan:
        plan, attack = super().plan(inputs, emit), self.attack(inputs.spec.threat)
        if inputs.denser is not None:
            k = inputs.budget.target.given_k(inputs.budget.most)
            near = is_near(inputs.denser.model, k, inputs.target.bits)
            plan = shorten_from_denser(inputs.spec.training, plan, near=near)
        # Interval bounds prove little of a network that was not trained for them, robust or not.
        if attack is not None and inputs.spec.training.loss != "ibp":
            plan = keep_if_robust(inputs, attack, plan, emit)
        return fit_epochs(inputs, attack, plan, EPOCHS, emit)

    def after_dense(self, inputs: Inputs, setup: TrainingSetup) -> Sequence[StagePlan]:
        effort, cost = setup.plan.effort, epoch_cost(inputs.data, setup.attack)
        reads = of_compression(inputs, setup)
        made_robust = setup.attack is not None and effort.robust_epochs > 0
        return [
            *([evaluate_dense(inputs)] if made_robust else []),
            StagePlan(
                "compressing",
                effort.compression_epochs,
                cost,
                lambda handover: self.compress(inputs, setup, self.start, handover),
                shared=True,
                gives="compressed",
                needs=("network",),
                reads=reads,
            ),
            StagePlan(
                "finishing",
                effort.finish_epochs,
                cost,
                lambda handover: FinishStage(inputs, setup, handover),
                shared=True,
                gives="compressed",
                needs=("network", "compressed"),
                reads=reads,
            ),
        ]


def check_weights(inputs: Inputs) -> None:
    """Check that the network has weights that a method could train and store.

    Raises:
        InvalidInput: ``unsupported_network`` if it has no convolution and no linear layer, or one
            without entries.
    """
    empty = [name for name, view in inputs.views.items() if not math.prod(view.shape)]
    if inputs.views and not empty:
        return
    found = f"{empty[0]} has no entries" if empty else "it has no convolution and no linear layer"
    raise InvalidInput(
        "unsupported_network",
        f"the network cannot be compressed: {found}; the method evaluate takes it as it is",
        empty[0] if empty else "model",
    )


def evaluation(
    inputs: Inputs, name: str, gives: str, make: Callable[[Handover], Stage], **shared: Any
) -> StagePlan:
    """A stage that evaluates a network, as long as any other evaluation of the job.

    Args:
        gives: the field of the handover for the figures.
        shared: what else ``StagePlan`` is told of a stage that jobs share.
    """
    costs = evaluation_costs(inputs)
    return StagePlan(name, len(costs), costs, make, gives=gives, **shared)


def evaluate_upload(inputs: Inputs) -> StagePlan:
    """The stage that evaluates the uploaded classifier."""
    return evaluation(
        inputs,
        "evaluating_upload",
        "before",
        lambda _: UploadEvaluationStage(inputs),
        reads=of_evaluation(inputs),
    )


def train_dense(inputs: Inputs, setup: TrainingSetup) -> StagePlan:
    """The stage that trains the dense network; it has no epochs if the upload is robust already."""
    recognition = setup.plan.recognition
    return StagePlan(
        "robust_training" if setup.attack else "clean_training",
        setup.plan.effort.robust_epochs,
        epoch_cost(inputs.data, setup.attack),
        lambda handover: DenseStage(inputs, setup),
        skipped=recognition.words() if recognition and recognition.robust else None,
        shared=True,
        gives="network",
        reads=of_dense_training(inputs, setup),
    )


def evaluate_dense(inputs: Inputs) -> StagePlan:
    """The stage that writes the dense network and evaluates it."""
    return evaluation(
        inputs,
        "evaluating_dense",
        "dense",
        lambda handover: DenseEvaluationStage(inputs, handover),
        needs=("network",),
        reads=of_evaluation(inputs),
    )


def evaluate_artifact(inputs: Inputs) -> StagePlan:
    """The stage that writes the artifact and evaluates it."""
    return evaluation(
        inputs,
        "evaluating_artifact",
        "after",
        lambda handover: ArtifactEvaluationStage(inputs, handover),
    )
