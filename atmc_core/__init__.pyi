from .artifact.loading import load
from .certification.certify import Certificate, certify
from .compressor import Compressor
from .errors import InvalidInput
from .evaluation.accuracy import Robustness, evaluate
from .networks.architectures.registry import register_architecture
from .networks.removal import compact
from .training.losses import PGD, adversarial_loss

__all__ = [
    "PGD",
    "Certificate",
    "Compressor",
    "InvalidInput",
    "Robustness",
    "adversarial_loss",
    "certify",
    "compact",
    "evaluate",
    "load",
    "register_architecture",
]
