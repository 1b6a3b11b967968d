"""A repeat is a seed, and a seed decides everything random in it."""

import numpy as np

PURPOSES = ("weights", "order", "coefficients", "draws")


def stream(seed: int, purpose: str) -> np.random.Generator:
    """The random stream of one purpose of one repeat, independent of every other seed and purpose."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose),)))
