"""What the parts of a job cost; the unit is one forward pass of one image."""

import math

import torch
from torch.utils.flop_counter import FlopCounterMode

from atmc_core.attacks import PGD
from atmc_core.data import DataSet
from atmc_core.errors import InvalidInput
from atmc_core.evaluation.attacks import report_attacks
from atmc_core.evaluation.plan import evaluation_portions
from atmc_core.evaluation.proofs import plan_proofs
from atmc_core.job.inputs import Inputs
from atmc_spec import Effort

# A backward pass costs about two forward passes. In an attack, where it leaves out the weights'
# gradients, it costs about one.
_FORWARD = 1
_TRAINING_PASSES = 3
_ATTACK_STEP = 2


def image_cost(attack: PGD | None) -> int:
    """The cost of a training step for each of its images.

    Args:
        attack: the attack of the training step; None means clean training.
    """
    if attack is None:
        return _TRAINING_PASSES
    # The network is trained on the clean image and on the adversarial one.
    return _ATTACK_STEP * attack.steps + 2 * _TRAINING_PASSES


def epoch_cost(data: DataSet, attack: PGD | None) -> int:
    """The cost of one epoch: its training, and scoring it on the validation split.

    Args:
        attack: the attack of the training step; None means clean training.
    """
    selection = _ATTACK_STEP * attack.steps if attack else 0
    return len(data.train) * image_cost(attack) + len(data.val) * (selection + _FORWARD)


def evaluation_costs(inputs: Inputs) -> tuple[float, ...]:
    """The cost of each epoch of an evaluation.

    Raises:
        InvalidInput: if the attacks or the proofs that are asked for cannot be made, or a threshold
            is on a proof and none is asked for.
    """
    split, threat, evaluation = inputs.evaluated, inputs.spec.threat, inputs.spec.evaluation
    attacks = report_attacks(threat, evaluation, inputs.num_classes).values()
    shape = tuple(split.images.shape[1:])
    proofs = plan_proofs(inputs.classifier.eval(), shape, threat, evaluation, attacks)
    if inputs.spec.accept.proven_accuracy is not None and not (proofs.certifier or proofs.reason):
        raise InvalidInput(
            "invalid_value",
            "a proven accuracy is asked for, and nothing is to be proven: set evaluation.certify "
            "to ibp or crown, or evaluation.level to standard",
            "accept.proven_accuracy",
        )
    portions = evaluation_portions(
        evaluation, threat, attacks, len(split), math.prod(shape), proofs.passes
    )
    return tuple(portion.cost for portion in portions)


def training_flops(inputs: Inputs, attack: PGD | None, effort: Effort) -> float:
    """The floating-point operations of all training stages together.

    Args:
        attack: the attack of the training step; None means clean training.
        effort: says how many epochs there are.
    """
    epochs = effort.robust_epochs + effort.compression_epochs + effort.finish_epochs
    train = inputs.data.train
    image, _ = train.batch(slice(0, 1))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        inputs.classifier.eval()(image)
    return float(counter.get_total_flops()) * len(train) * image_cost(attack) * epochs
