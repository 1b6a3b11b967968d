"""How many branches a second the oracle trains, each ten epochs on Fashion-MNIST, on one thread; takes two minutes."""

import time
from statistics import median

import eager
import pandas as pd
import torch

from neuronsplit import batch
from neuronsplit.branches import DRAWS, HORIZONS, ORDERS, Branching, every_split
from neuronsplit.data import load_dataset
from neuronsplit.study import save

WIDTHS, RATE, BATCH, ROUNDS = (10, 20, 40), 0.01, 32, 3
NAME = "speed-branches"


def eager_epoch(width: int) -> float:
    """The median seconds of an epoch, with its validation, of one network trained by itself."""
    data, times = load_dataset("fashion-mnist"), []
    net = eager.network(784, width, 10)
    optimizer = torch.optim.SGD(net.parameters(), RATE)
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        eager.train_epoch(net, eager.indexed(*data.train, BATCH), optimizer)
        eager.evaluate(net, *data.validation)
        times.append(time.perf_counter() - begun)
    return median(times)


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = []
    for width in WIDTHS:
        begun = time.perf_counter()
        every_split(Branching("fashion-mnist", learning_rate=RATE, width=width, age=0, repeats=1))
        seconds, branches = time.perf_counter() - begun, len(ORDERS) * (width + DRAWS)
        alone = 1 / (max(HORIZONS) * eager_epoch(width + 1))
        rows.append({"width": width, "branches": branches, "seconds": seconds, "branches a second": branches / seconds})
        rows[-1] |= {"eager": alone, "ratio": branches / seconds / alone}
    table = pd.DataFrame(rows)
    (batch.RUNS / NAME).mkdir(parents=True, exist_ok=True)
    part = batch.RUNS / NAME / "table.part"
    table.to_csv(part, index=False, float_format="%.4g")
    save(part, batch.RUNS / NAME / "table.csv", {"parameters": {"learning_rate": RATE, "batch_size": BATCH}})
    batch.publish(NAME, NAME)
    print(table.to_string(index=False, float_format="{:.3g}".format))
