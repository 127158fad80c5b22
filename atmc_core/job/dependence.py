"""What the results of a job's stages depend on, as plain values: what products are known by.

A field too many keeps two jobs from sharing what would be the same; a field too few would have one
take what is not its own. So all is named that is not known to have no influence.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from atmc_core.job.inputs import Inputs
from atmc_core.job.setup import TrainingSetup
from atmc_core.training import distributed

Reads = dict[str, Any]

# The fields of ``training`` that have no influence on the dense network, and those whose outcome is
# the effort, which is named itself.
_OF_COMPRESSION = (
    "teacher_weight",
    "rho",
    "dual_interval",
    "density_schedule",
    "shrink_fraction",
    "importance",
    "rank_fraction",
)
_OF_EFFORT = (
    "preset",
    "time_budget_s",
    "robust_epochs",
    "compression_epochs",
    "finish_epochs",
    "schedule",
    "averaging",
)


def of_inputs(inputs: Inputs, files: Mapping[str, str]) -> Reads:
    """What every stage depends on.

    Args:
        files: the SHA-256 of each file that the job is given.
    """
    normalization = inputs.model.normalization
    return {
        "files": dict(files),
        "architecture": inputs.model.architecture,
        "normalization": [list(normalization.mean), list(normalization.std)],
        "seed": inputs.spec.seed,
        "validation_fraction": inputs.spec.training.validation_fraction,
        "device": inputs.device.type,
        "processes": distributed.processes(),
        # It decides the order of sums, and so their last digits.
        "threads": torch.get_num_threads(),
    }


def of_evaluation(inputs: Inputs) -> Reads:
    """What an evaluation depends on, beside its network."""
    evaluation = inputs.spec.evaluation.to_json()
    del evaluation["speed"]
    return {"threat": inputs.spec.threat.to_json(), "evaluation": evaluation}


def of_dense_training(inputs: Inputs, setup: TrainingSetup) -> Reads:
    """What the training of the dense network depends on."""
    left_out = (*_OF_COMPRESSION, *_OF_EFFORT)
    training = inputs.spec.training.to_json()
    effort = setup.plan.effort
    return {
        "training": {name: value for name, value in training.items() if name not in left_out},
        "schedule": effort.schedule,
        "averaging": effort.averaging,
        "threat": inputs.spec.threat.to_json(),
        "attack": type(setup.attack).__qualname__,
        "bfloat16": setup.speed.bfloat16,
        "scored_at_once": inputs.spec.evaluation.batch_size,
    }


def of_compression(inputs: Inputs, setup: TrainingSetup) -> Reads:
    """What the stages that compress depend on, beside the dense network."""
    training = inputs.spec.training.to_json()
    rest = inputs.spec.to_json()
    for name in ("evaluation", "accept", "training"):
        del rest[name]
    return of_dense_training(inputs, setup) | {
        "spec": rest,
        "training": {name: value for name, value in training.items() if name not in _OF_EFFORT},
        "effort": asdict(setup.plan.effort) | {"robust_epochs": None},
        "denser": inputs.denser.given.sha256 if inputs.denser else None,
    }
