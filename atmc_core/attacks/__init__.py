"""Attacks on classifiers of images in [0, 1], written for whole batches."""

from atmc_core.attacks.base import Attack, Repeated
from atmc_core.attacks.gradient import FGSM, PGD
from atmc_core.attacks.norms import Ball, L2Ball, LinfBall, ball

__all__ = ["FGSM", "PGD", "Attack", "Ball", "L2Ball", "LinfBall", "Repeated", "ball"]
