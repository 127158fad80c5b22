"""Generators of random numbers that are seeded by their place in a run."""

import numpy as np
import torch


def random_generator(device: torch.device | str, *path: int) -> torch.Generator:
    """A generator for one place in a run; what it draws does not depend on earlier draws.

    So a resumed run draws the same numbers as an undisturbed one, and no generator state has to be
    saved.

    Args:
        device: the device of the numbers.
        path: the place: the job's seed, then numbers such as stage and epoch.
    """
    entropy = np.random.SeedSequence(path).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(entropy >> 1))
