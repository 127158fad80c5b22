"""What a caller may ask of the method: typed, ranged, with defaults."""

from atmc_core.config.evaluation import AUTOATTACK, LEVELS, Accept, Evaluation
from atmc_core.config.names import (
    AttackName,
    Averaging,
    Bits,
    DensitySchedule,
    Level,
    LossName,
    Method,
    Norm,
    Precision,
    Preset,
    ScheduleName,
    Structure,
)
from atmc_core.config.presets import EPOCHS, PRESETS, Effort
from atmc_core.config.spec import CHANNELS, OF_CODEBOOKS, UNUSED, JobSpec, spec_schema
from atmc_core.config.target import Target, least_nominal_ratio
from atmc_core.config.threat import Threat
from atmc_core.config.training import Training

__all__ = [
    "AUTOATTACK",
    "CHANNELS",
    "EPOCHS",
    "LEVELS",
    "OF_CODEBOOKS",
    "PRESETS",
    "UNUSED",
    "Accept",
    "AttackName",
    "Averaging",
    "Bits",
    "DensitySchedule",
    "Effort",
    "Evaluation",
    "JobSpec",
    "Level",
    "LossName",
    "Method",
    "Norm",
    "Precision",
    "Preset",
    "ScheduleName",
    "Structure",
    "Target",
    "Threat",
    "Training",
    "least_nominal_ratio",
    "spec_schema",
]
