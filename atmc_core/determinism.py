"""Computing repeatably: the same on the same machine, byte for byte."""

import torch


def compute_repeatably(enabled: bool = True) -> None:
    """Use only operations that give the same result each time, in this process from now on.

    On a GPU some have no such form (pooling's gradient, say), so there it is best left off.
    """
    # torch.use_deterministic_algorithms would load torch's compiler first: two seconds a process.
    torch.set_deterministic_debug_mode("error" if enabled else "default")
    # torch would also fill all memory it takes, for code that reads before it writes. Nothing here
    # does, and the filling is a twentieth of LeNet's training step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
