"""Measure how many branches per second train for ten epochs on Fashion-MNIST, on one thread, in two minutes."""

import time

import bench_eager
import pandas as pd
import torch
from timing import BATCH_SIZE, publish, seconds

from neuronsplit.data.datasets import load_dataset
from neuronsplit.experiments.exhaustive_splits import ExhaustiveSplits, run_exhaustive_splits
from neuronsplit.measuring.all_splits import HORIZONS, N_COEFFICIENT_DRAWS
from neuronsplit.names import SHUFFLE_LOSSES

DATASET, WIDTHS, RATE, ROUNDS = "fashion-mnist", (10, 20, 40), 0.01, 3


def eager_epoch(width: int) -> float:
    """Return the median seconds of an epoch of one network that trains by itself, with its validation."""
    data = load_dataset(DATASET)
    net = bench_eager.network(data.train.images.shape[1], width, len(data.classes))
    optimizer = torch.optim.SGD(net.parameters(), RATE)

    def epoch():
        bench_eager.train_epoch(net, bench_eager.indexed(*data.train, BATCH_SIZE), optimizer)
        bench_eager.evaluate(net, *data.validation)

    return seconds(epoch, ROUNDS)


def measure(width: int) -> dict[str, float]:
    """Return a row of the table: all splits of one network together, and its branches one by one."""
    start = time.perf_counter()
    run_exhaustive_splits(ExhaustiveSplits(DATASET, learning_rate=RATE, width=width, epochs_before=0), [0])
    elapsed, branches = time.perf_counter() - start, len(SHUFFLE_LOSSES) * (width + N_COEFFICIENT_DRAWS)
    per_second, eager = branches / elapsed, 1 / (max(HORIZONS) * eager_epoch(width + 1))
    row = {"width": width, "branches": branches, "seconds": elapsed, "branches per second": per_second}
    return row | {"eager": eager, "ratio": per_second / eager}


if __name__ == "__main__":
    torch.set_num_threads(1)
    parameters = {"learning_rate": RATE, "batch_size": BATCH_SIZE}
    publish("speed-branches", pd.DataFrame(map(measure, WIDTHS)), parameters)
