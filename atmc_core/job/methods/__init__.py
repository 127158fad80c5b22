"""The methods: every file of this folder makes one or more, so a new file adds a method.

All but ``evaluate`` are from Gui et al., "Model Compression with Adversarial Robustness: A Unified
Optimization Framework", NeurIPS 2019.
"""

import importlib
import pkgutil

from atmc_core.job.method import Method
from atmc_spec import JobSpec


def all_methods() -> dict[str, Method]:
    """All methods that the files of this folder make, by name.

    Raises:
        ValueError: if two methods have the same name.
    """
    found: dict[str, Method] = {}
    for file in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{file.name}")
        for method in vars(module).values():
            if isinstance(method, Method) and found.setdefault(method.name, method) is not method:
                raise ValueError(f"two methods are called {method.name}; one is in {file.name}")
    return found


def all_specs() -> dict[str, type[JobSpec]]:
    """The class of each method's specs, by the method's name."""
    return {name: method.spec for name, method in all_methods().items()}
