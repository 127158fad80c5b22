"""Certification: sound bounds of a network's outputs over l-infinity balls.

An attack finds an image that is misclassified, or finds none. A certificate says that there is
none. ``certify`` is the way in.
"""

from atmc_core.certification.certify import BOUNDS, Bound, Certificate, Certifier, certify
from atmc_core.certification.program import Program
from atmc_core.certification.refusal import NotProvable

__all__ = [
    "BOUNDS",
    "Bound",
    "Certificate",
    "Certifier",
    "NotProvable",
    "Program",
    "certify",
]
