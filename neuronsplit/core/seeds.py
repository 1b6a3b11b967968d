"""Random streams: a seed stands for one repeat of an experiment and decides everything random in it."""

import numpy as np

PURPOSES = ("weights", "order", "coefficients", "draws")  # append only: a purpose is known by its place


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Return the random stream of one purpose of one seed, independent of all others.

    A stream per purpose keeps comparisons paired: two policies with the same seed see the same first weights and the
    same mini-batches, however many numbers either of them draws for its splits. `spawn_key` makes the streams
    independent, where seeds such as `seed + 1` would collide with those of the next repeat.

    Raises ValueError for a purpose that is not one of PURPOSES.
    """
    if purpose not in PURPOSES:
        raise ValueError(f"purpose {purpose!r}: allowed are {', '.join(PURPOSES)}")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose),)))
