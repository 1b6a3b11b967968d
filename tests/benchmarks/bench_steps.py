"""Measure the seconds of a training step by width, one network at a time and on one thread: the time of comparisons."""

import pandas as pd
import torch
from timing import BATCH_SIZE, publish

from neuronsplit.data.datasets import load_dataset
from neuronsplit.measuring.step_times import time_steps

WIDTHS = [10, 20, 30, 40, 50, 60, 90, 120, 180]
DATASETS = ("fashion-mnist", "digits", "mnist-1d")

if __name__ == "__main__":
    torch.set_num_threads(1)
    times = {name: time_steps(load_dataset(name), WIDTHS, batch_size=BATCH_SIZE, n_rounds=15) for name in DATASETS}
    table = pd.concat([found.assign(dataset=name) for name, found in times.items()], ignore_index=True)
    publish("step-times", table, {"width": WIDTHS, "batch_size": BATCH_SIZE, "optimizer": "sgd"})
