"""Random streams: a seed decides everything that is random in one run of an experiment."""

import numpy as np

from neuronsplit.checks import require_name

# Append only, because a stream depends on the position of its purpose.
PURPOSES = ("weights", "order", "coefficients", "draws", "split", "dropout")


def stream(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """Return the random stream of one purpose of one seed, independent of all others.

    seed: a whole number from 0. purpose: one of PURPOSES. place: whole numbers that tell apart streams of one purpose.

    A stream per purpose keeps comparisons paired. Two policies with the same seed start from the same weights and train
    on the same mini-batches. It makes no difference how many numbers each draws for its splits. `spawn_key` makes the
    streams independent. Seeds such as `seed + 1` would instead repeat a stream of the next seed.

    Raises ValueError for a purpose that is not one of PURPOSES.
    """
    require_name("purpose", purpose, PURPOSES)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose), *place)))
