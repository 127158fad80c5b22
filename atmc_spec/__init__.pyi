from .acceptance import Accept, Threshold, read_thresholds
from .base import SpecModel
from .errors import InvalidInput
from .evaluation import AUTOATTACK, LEVELS, Evaluation
from .job import CompressionSpec, JobSpec
from .methods import SPECS, read_spec
from .names import (
    AttackName,
    Averaging,
    Bits,
    DensitySchedule,
    Importance,
    Level,
    LossName,
    MethodName,
    Norm,
    Precision,
    Preset,
    ScheduleName,
    StructureName,
)
from .presets import EPOCHS, PRESETS, Effort
from .refusals import clip, shown, unknown, wrong
from .target import Target, count_nonzeros, least_nominal_ratio
from .threat import Threat
from .training import Training

__all__ = [
    "AUTOATTACK",
    "EPOCHS",
    "LEVELS",
    "PRESETS",
    "SPECS",
    "Accept",
    "AttackName",
    "Averaging",
    "Bits",
    "CompressionSpec",
    "DensitySchedule",
    "Effort",
    "Evaluation",
    "Importance",
    "InvalidInput",
    "JobSpec",
    "Level",
    "LossName",
    "MethodName",
    "Norm",
    "Precision",
    "Preset",
    "ScheduleName",
    "SpecModel",
    "StructureName",
    "Target",
    "Threat",
    "Threshold",
    "Training",
    "clip",
    "count_nonzeros",
    "least_nominal_ratio",
    "read_spec",
    "read_thresholds",
    "shown",
    "unknown",
    "wrong",
]
