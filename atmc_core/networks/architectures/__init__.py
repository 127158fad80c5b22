"""The architectures that are known by name."""

from atmc_core.networks.architectures.registry import (
    ARCHITECTURES,
    Architecture,
    bind_num_classes,
    build,
    get_architecture,
    register_architecture,
)

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "bind_num_classes",
    "build",
    "get_architecture",
    "register_architecture",
]
