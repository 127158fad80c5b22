"""What a caller may ask of the method: typed, ranged, with defaults.

The service and the workers read specs by these models, and nothing of them is written twice: the
JSON Schema that a worker publishes is generated from them, too. Neither PyTorch nor NumPy is
imported.
"""

from atmc_spec.acceptance import Accept, Threshold, read_thresholds
from atmc_spec.base import SpecModel
from atmc_spec.errors import InvalidInput
from atmc_spec.evaluation import AUTOATTACK, LEVELS, Evaluation
from atmc_spec.job import CompressionSpec, JobSpec
from atmc_spec.methods import SPECS, read_spec
from atmc_spec.names import (
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
    Structure,
)
from atmc_spec.presets import EPOCHS, PRESETS, Effort
from atmc_spec.refusals import clip, shown, unknown, wrong
from atmc_spec.target import Target, count_nonzeros, least_nominal_ratio
from atmc_spec.threat import Threat
from atmc_spec.training import Training

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
    "Structure",
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
