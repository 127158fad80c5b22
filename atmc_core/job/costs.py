"""What parts of a job cost, in forward passes of one image."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from atmc_core.attacks import PGD
from atmc_core.data import DataSet
from atmc_core.evaluation.attacks import report_attacks
from atmc_core.evaluation.plan import evaluation_portions
from atmc_core.job.inputs import Inputs
from atmc_spec import Effort


def image_cost(attack: PGD | None) -> int:
    """The cost of a training step for each of its images.

    Args:
        attack: that of the training step; without one it is clean training.
    """
    # A backward pass costs about two forward ones, and one without the weights' gradients, as in
    # the attack, about one.
    return 2 * attack.steps + 6 if attack else 3


def epoch_cost(data: DataSet, attack: PGD | None) -> int:
    """The cost of one epoch: training, and the choice on the validation split."""
    selection = 2 * attack.steps if attack else 0
    return len(data.train) * image_cost(attack) + len(data.val) * (selection + 1)


def evaluation_costs(inputs: Inputs) -> tuple[float, ...]:
    """The cost of each epoch of an evaluation."""
    split, threat, evaluation = inputs.evaluated, inputs.spec.threat, inputs.spec.evaluation
    attacks = report_attacks(threat, evaluation, inputs.num_classes).values()
    pixels = split.images[0].numel()
    portions = evaluation_portions(evaluation, threat, attacks, len(split), pixels)
    return tuple(portion.cost for portion in portions)


def training_flops(inputs: Inputs, attack: PGD | None, effort: Effort) -> float:
    """The floating-point operations of all training."""
    epochs = effort.robust_epochs + effort.compression_epochs + effort.finish_epochs
    train = inputs.data.train
    image, _ = train.batch(slice(0, 1))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        inputs.classifier.eval()(image)
    return float(counter.get_total_flops()) * len(train) * image_cost(attack) * epochs
