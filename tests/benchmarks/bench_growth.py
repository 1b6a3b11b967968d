"""Measure the seconds per epoch as one size grows at a time, on Fashion-MNIST and one thread; see notebook 14."""

from collections.abc import Iterator

import bench_eager
import pandas as pd
import torch
from timing import BATCH_SIZE, RATE, parameters_of, publish, seconds

from neuronsplit.core.matmul import use_onednn_matmul
from neuronsplit.core.mlp import MLP
from neuronsplit.data.datasets import load_dataset
from neuronsplit.growing.train import Run
from neuronsplit.study.grid import read_study

USUAL = {"width": 35, "seeds": 10, "policies": 7, "images": 10_000}
SIZES = {
    "width": [10, 20, 35, 60, 100, 200], "seeds": [1, 2, 5, 10, 20], "policies": [1, 2, 4, 7, 12],
    "images": [5_000, 10_000, 20_000, 50_000],
}  # fmt: skip


def multiply_adds_per_second(side: int = 2048) -> float:
    """Return the speed of one large product of matrices, counting a multiplication and an addition as one."""
    large = torch.rand(side, side)
    with use_onednn_matmul():
        return side**3 / seconds(lambda: large @ large, 9)


def measure(width: int, n_seeds: int, n_policies: int, n_images: int) -> tuple[float, float]:
    """Return the seconds of an epoch of all networks together, and of all networks one by one, in eager torch."""
    shared, own = (load_dataset("fashion-mnist", seeds).train.head(n_images) for seeds in (None, range(n_seeds)))
    mlp = MLP((784, width, 10), [seed for seed in range(n_seeds) for _ in range(n_policies)])
    run = Run.start(mlp, list(range(n_seeds)), "sgd", RATE, BATCH_SIZE)
    net = bench_eager.network(784, width, 10)
    sgd = torch.optim.SGD(net.parameters(), RATE)
    alone = seconds(lambda: bench_eager.train_epoch(net, bench_eager.indexed(*shared, BATCH_SIZE), sgd))
    return seconds(lambda: run.epoch(own)), alone * n_seeds * n_policies


def rows(speed: float) -> Iterator[dict]:
    """Yield a row per size, with the bound: the time of the first layer's two products at that speed."""
    for axis, values in SIZES.items():
        for value in values:
            width, n_seeds, n_policies, n_images = (USUAL | {axis: value}).values()
            together, eager = measure(width, n_seeds, n_policies, n_images)
            n_used = n_images // BATCH_SIZE * BATCH_SIZE
            bound = 2 * 784 * width * n_used * n_seeds * n_policies / speed
            yield {"axis": axis, "size": value, "measured": together, "bound": bound, "eager": eager}


if __name__ == "__main__":
    torch.set_num_threads(1)
    table = pd.DataFrame(rows(multiply_adds_per_second()))
    publish("speed-growth", table, parameters_of(read_study("full")))
