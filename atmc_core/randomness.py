"""Generators of random numbers that are seeded by their place in a run."""

import numpy as np
import torch


def random_generator(device: torch.device | str, *path: int) -> torch.Generator:
    """A generator for one place of a run (seed, stage, epoch), whatever was drawn before.

    So a resumed run draws what the undisturbed one draws, with no generator state to save.
    """
    entropy = np.random.SeedSequence(path).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(entropy >> 1))
