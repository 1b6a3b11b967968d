"""Measure how long a training step takes at each width, so that epochs can be compared by their time."""

import time
from collections.abc import Callable, Sequence
from statistics import median

import pandas as pd

from neuronsplit.core.mlp import MLP
from neuronsplit.data.datasets import Dataset
from neuronsplit.growing.train import Run

_RATE = 1e-3  # of learning; it has no part in the time


def time_steps(
    dataset: Dataset, widths: Sequence[int], *, optimizer: str = "sgd", batch_size: int = 32, n_networks: int = 1,
    n_steps: int = 500, n_rounds: int = 5, clock: Callable[[], float] = time.perf_counter,
) -> pd.DataFrame:  # fmt: skip
    """Time training steps at each width, on a machine that does nothing else.

    n_networks: the number of networks that train together, each with its own images.
    n_steps: the number of steps that are timed at once, if there are as many images.
    clock: returns the time in seconds.

    Widths take turns in each round, and the first round does not count.
    Returns a row per width. Its columns are
    width: the number of hidden neurons.
    seconds: the median time of a step over the rounds, divided by the number of networks.
    """
    sample = dataset.train.head(n_steps * batch_size)
    n_timed = sample.labels.shape[-1] // batch_size * n_networks
    seeds = list(range(n_networks))
    mlps = {width: MLP.for_dataset(dataset, width, seeds) for width in widths}
    runs = {width: Run.start(mlp, seeds, optimizer, _RATE, batch_size) for width, mlp in mlps.items()}
    times = {width: [] for width in widths}
    for _ in range(n_rounds + 1):
        for width, run in runs.items():
            start = clock()
            run.epoch(sample)
            times[width].append(clock() - start)
    return pd.DataFrame([{"width": width, "seconds": median(found[1:]) / n_timed} for width, found in times.items()])
