"""Attacks on classifiers of images in [0, 1], written for whole batches."""

from atmc_core.attacks.apgd import APGD, APGDT
from atmc_core.attacks.autoattack import AutoAttack, AutoAttackState
from atmc_core.attacks.base import Attack, Found, InTurn, SearchAttack
from atmc_core.attacks.counting import CountingModel
from atmc_core.attacks.fab import FABT
from atmc_core.attacks.frozen import frozen_copy
from atmc_core.attacks.gradient import FGSM, PGD
from atmc_core.attacks.inputs import check_images, check_labels, check_logits
from atmc_core.attacks.losses import LOSSES
from atmc_core.attacks.norms import Ball, L2Ball, LinfBall, ball, is_within
from atmc_core.attacks.smooth import SmoothBackward, has_edges, smoothed
from atmc_core.attacks.square import Square
from atmc_core.attacks.wrm import WRM

__all__ = [
    "APGD",
    "APGDT",
    "FABT",
    "FGSM",
    "LOSSES",
    "PGD",
    "WRM",
    "Attack",
    "AutoAttack",
    "AutoAttackState",
    "Ball",
    "CountingModel",
    "Found",
    "InTurn",
    "L2Ball",
    "LinfBall",
    "SearchAttack",
    "SmoothBackward",
    "Square",
    "ball",
    "check_images",
    "check_labels",
    "check_logits",
    "frozen_copy",
    "has_edges",
    "is_within",
    "smoothed",
]
