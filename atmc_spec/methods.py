"""The spec of each method, which names the common fields that the method does not use."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from atmc_spec.acceptance import Accept
from atmc_spec.errors import InvalidInput
from atmc_spec.job import CompressionSpec, JobSpec
from atmc_spec.target import Target
from atmc_spec.threat import Threat
from atmc_spec.training import Training

# The fields of ``training`` that only some kinds of training use.
_OF_ADVERSARIAL_TRAINING = ("loss", "clean_weight", "beta")
_OF_MOVING_SUPPORTS = ("rho", "dual_interval", "density_schedule", "shrink_fraction")
_OF_FACTORS = ("rank_fraction",)
_OF_SUPPORTS = ("compression_epochs", "finish_epochs", "importance")
_OF_TEACHERS = ("teacher_weight",)


class EntriesTarget(Target):
    """The target of methods that cannot drop whole channels."""

    unused = ("structure",)


class CleanPruningTraining(Training):
    """Clean training with a support that is chosen once."""

    unused = (*_OF_ADVERSARIAL_TRAINING, *_OF_TEACHERS, *_OF_MOVING_SUPPORTS, *_OF_FACTORS)


class DenseTraining(Training):
    """Training without compression."""

    unused = (*_OF_SUPPORTS, *_OF_TEACHERS, *_OF_MOVING_SUPPORTS, *_OF_FACTORS)


class PruningTraining(Training):
    """Adversarial training with a support that is chosen once."""

    unused = (*_OF_MOVING_SUPPORTS, *_OF_FACTORS)


class LowRankTraining(Training):
    """Adversarial training with ranks that are chosen once."""

    unused = ("importance", *_OF_MOVING_SUPPORTS, *_OF_FACTORS)


class MovingTraining(Training):
    """Adversarial training with a support that moves, without factors."""

    unused = _OF_FACTORS


class NapSpec(CompressionSpec):
    """Non-adversarial pruning."""

    starts_from_denser: ClassVar[bool] = True

    method: Literal["nap"]
    training: CleanPruningTraining = CleanPruningTraining()


class DaSpec(CompressionSpec):
    """Dense adversarial training."""

    method: Literal["da"]
    target: EntriesTarget
    training: DenseTraining = DenseTraining()


class ApSpec(CompressionSpec):
    """Adversarial pruning."""

    starts_from_denser: ClassVar[bool] = True

    method: Literal["ap"]
    training: PruningTraining = PruningTraining()


class Al0Spec(CompressionSpec):
    """Adversarial training with l0 projection."""

    starts_from_denser: ClassVar[bool] = True

    method: Literal["al0"]
    training: MovingTraining = MovingTraining()


class AlrSpec(CompressionSpec):
    """Adversarial training and low rank."""

    method: Literal["alr"]
    target: EntriesTarget
    training: LowRankTraining = LowRankTraining()


class AtmcSpec(CompressionSpec):
    """Pruning, factorisation and quantisation in one adversarial training."""

    starts_from_denser: ClassVar[bool] = True

    method: Literal["atmc"]


class EvaluatedThreat(Threat):
    """The threat of an evaluation, against which nothing is trained."""

    unused = ("steps", "step_size", "backward")


class NoTraining(Training):
    """The training of a method that trains nothing.

    It is not left out, since its validation fraction still decides how the data set is split.
    """

    unused = tuple(Training.model_fields)


class EvaluatedAccept(Accept):
    """The thresholds of an evaluation, in which nothing is lost and no file gets smaller."""

    unused = ("clean_accuracy_drop", "file_ratio")


class EvaluateSpec(JobSpec):
    """Evaluation of the uploaded model, without compression."""

    unused: ClassVar[tuple[str, ...]] = ("target",)

    method: Literal["evaluate"]
    threat: EvaluatedThreat
    training: NoTraining = NoTraining()
    accept: EvaluatedAccept = EvaluatedAccept()


#: The class of each method's specs, for the methods of this version.
SPECS: Mapping[str, type[JobSpec]] = {
    "nap": NapSpec,
    "da": DaSpec,
    "ap": ApSpec,
    "al0": Al0Spec,
    "alr": AlrSpec,
    "atmc": AtmcSpec,
    "evaluate": EvaluateSpec,
}


def read_spec(document: object, specs: Mapping[str, type[JobSpec]] = SPECS) -> JobSpec:
    """Build the spec of a job from parsed JSON.

    Args:
        document: the parsed JSON.
        specs: the class of each method's specs; a worker may know more methods than these.

    Raises:
        InvalidInput: as ``SpecModel.read``; an unknown method is an ``invalid_value`` of
            ``method``.
    """
    if not isinstance(document, Mapping):
        raise InvalidInput("invalid_value", "the spec must be an object")
    if "method" not in document:
        raise InvalidInput("missing_field", "'method' is required.", "method")
    method = document["method"]
    if not isinstance(method, str) or method not in specs:
        message = f"{method!r} is not one of {', '.join(specs)}."
        raise InvalidInput("invalid_value", message, "method")
    return specs[method].read(document)
