"""Makes results repeatable: the same on the same machine, byte for byte."""

import torch


def compute_repeatably(enabled: bool = True) -> None:
    """Use only deterministic operations in this process from now on.

    Args:
        enabled: false allows all operations again. On a GPU some operations have no deterministic
            form (the gradient of pooling, for example) and would raise, so leave it off there.
    """
    # torch.use_deterministic_algorithms would do the same, but it loads torch's compiler first,
    # which takes two seconds in every process.
    torch.set_deterministic_debug_mode("error" if enabled else "default")
    # By default torch then also fills all memory that it allocates, for the sake of code that reads
    # before it writes. No code here does, and the filling takes a twentieth of LeNet's training
    # step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
