"""Measure what the study costs, compared with other implementations, for the table figures/data/speed.parquet.

Parts are timed in bench_parts.py by pytest-benchmark, and commands from start to end. This takes as long as the full
study and some minutes more. Nothing else should run at the same time.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bench_eager
import numpy as np
import pandas as pd
import reference_scores
import torch
from timing import BATCH_SIZE, RATE, command, parameters_of, publish, seconds

from neuronsplit.data.datasets import load_dataset
from neuronsplit.experiments.experiment import Experiment
from neuronsplit.growing.which import POLICIES
from neuronsplit.locations import ROOT
from neuronsplit.names import NO_SPLIT
from neuronsplit.study.grid import read_study

HERE = Path(__file__).parent
WIDTHS, EAGER_WIDTHS = (10, 35, 60), (10, 20, 35, 50, 60)  # widths at which parts and the eager loop are timed
COLUMNS = ("figure", "measured", "compared_with", "other", "ratio", "goal")


def time_parts() -> dict[str, float]:
    """Return the median seconds of every part, by its name."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "parts.json"
        words = ["-m", "pytest", str(HERE / "bench_parts.py"), "-q", "-p", "no:nbval", "-o", "addopts="]
        command(*words, f"--benchmark-json={report}")()
        benchmarks = json.loads(report.read_text())["benchmarks"]
    return {one["name"].removeprefix("test_"): one["stats"]["median"] for one in benchmarks}


def time_full_study() -> tuple[float, float]:
    """Return the seconds of the command from start to report, and the peak memory in GB of its largest process."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "neuronsplit", "run", "full", "--folder", folder], cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)  # of it and of all processes that it started
        if status:
            raise RuntimeError("the full study failed")
        return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e9


def eager_study(feed: Callable, n_threads: int) -> float:
    """Return the seconds that the full study would take with one network at a time: the sum of epochs and choices."""
    torch.set_num_threads(n_threads)
    plan = read_study("full").plan
    policies = {e.policy for e in plan} - {NO_SPLIT}
    epochs, choices = zip(*(_time_eager_network(feed, width, policies) for width in EAGER_WIDTHS))
    torch.set_num_threads(1)
    by_policy = {e: [choice.get(e.policy) for choice in choices] for e in plan}
    return sum(len(seeds) * _eager_seconds(e, epochs, by_policy[e]) for e, seeds in plan.items())


def _time_eager_network(feed: Callable, width: int, policies: set[str]) -> tuple[float, dict[str, float]]:
    """Return the seconds of an epoch of one network, and of a choice by each policy."""
    data = load_dataset("fashion-mnist")
    net = bench_eager.network(784, width, 10)
    optimizer, batches = torch.optim.SGD(net.parameters(), RATE), feed(*data.train, BATCH_SIZE)

    def epoch():
        own_batches = batches if feed is bench_eager.loader else feed(*data.train, BATCH_SIZE)
        bench_eager.train_epoch(net, own_batches, optimizer)
        for subset in (data.validation, data.test):
            bench_eager.evaluate(net, *subset)

    def choice(policy: str) -> Callable:
        rng = np.random.default_rng(0)
        return lambda: reference_scores.choose(policy, net, *data.validation, rng)

    return seconds(epoch, 9), {policy: seconds(choice(policy)) for policy in policies}


def _eager_seconds(experiment: Experiment, epochs: tuple[float, ...], choices: list[float | None]) -> float:
    """Return the seconds of one seed, from those of an epoch and a choice at each of EAGER_WIDTHS."""
    final = experiment.width + experiment.splits
    if experiment.policy == NO_SPLIT:
        return experiment.epochs * np.interp(final, EAGER_WIDTHS, epochs)
    widths = [min(experiment.width + n, final) for n in range(experiment.epochs)]
    of_epochs = np.interp(widths, EAGER_WIDTHS, epochs).sum()
    return of_epochs + np.interp(widths[: experiment.splits], EAGER_WIDTHS, choices).sum()


def compared(figure: str, measured: float, name: str, other: float, ratio: float, goal: str = "") -> dict:
    """Return a row of the table: a figure, the one that it is compared with, and the goal for their ratio."""
    return dict(zip(COLUMNS, (figure, measured, name, other, ratio, goal)))


def single(figure: str, measured: float, goal: str) -> dict:
    """Return a row of the table for a figure that is not compared."""
    return compared(figure, measured, "", np.nan, np.nan, goal)


def rows_of_parts(part: dict[str, float]) -> Iterator[dict]:
    """Yield the rows of parts of the study."""
    for width in WIDTHS:
        step, products = part[f"step[{width}]"], part[f"products[{width}]"]
        goal = "at most 1.2" if width > 10 else ""
        figure = f"training step, 7 × 5 networks, H = {width}"
        yield compared(figure, step, "its first-layer products", products, step / products, goal)
    step = part["step[60]"]
    layouts = {"floats": "floats, as it is", "bytes": "bytes", "blocks": "floats, 16 mini-batches at once"}
    for layout, name in layouts.items():
        gather = part[f"gather[{layout}]"] / (16 if layout == "blocks" else 1)
        yield compared(f"gathering a mini-batch of {name}", gather, "a training step, H = 60", step, gather / step)
    steps = step * (len(load_dataset("fashion-mnist").train.labels) // BATCH_SIZE)
    figure = "a split of 7 × 5 networks, H = 60"
    yield compared(figure, part["split"], "an epoch's training steps", steps, part["split"] / steps)
    for width in (10, 60):
        ablation, evaluation = part[f"ablation[{width}]"], part[f"evaluation[{width}]"]
        goal = "at most 1.5" if width == 60 else ""
        figure, name = f"ablation loss of every neuron, H = {width}", "an evaluation of the same images"
        yield compared(figure, ablation, name, evaluation, ablation / evaluation, goal)
    for policy in POLICIES:
        choice, epoch = part[f"choice[{policy}-60]"], part["epoch[60]"]
        yield compared(f"choice by {policy}, H = 60", choice, "an epoch", epoch, choice / epoch, "below 0.03")


def rows_of_commands() -> Iterator[dict]:
    """Yield the rows of commands."""
    torch_alone, both = (seconds(command("-c", f"import torch{other}"), 9) for other in ("", ", neuronsplit"))
    yield single("import neuronsplit, beyond torch's own import", both - torch_alone, "below 0.2")
    for name in ("01_split_a_neuron", "02_grow_while_training"):
        with tempfile.TemporaryDirectory() as folder:
            words = ["-m", "papermill", f"notebooks/{name}.ipynb", f"{folder}/out.ipynb", "--no-progress-bar"]
            yield single(f"notebook {name[:2]}", seconds(command(*words)), "below 15")
    study, gigabytes = time_full_study()
    n_cores = torch.multiprocessing.cpu_count()
    for loop, feed, n_threads, n_at_once in (
        ("one network at a time, eager, DataLoader", bench_eager.loader, n_cores, 1),
        ("one network at a time, eager, indexed", bench_eager.indexed, n_cores, 1),
        ("the same, one thread, divided by the cores", bench_eager.indexed, 1, n_cores),
    ):
        other = eager_study(feed, n_threads) / n_at_once
        goal = "at least 8" if feed is bench_eager.loader else ""
        yield compared("full study, from start to report", study, loop, other, other / study, goal)
    yield single("peak memory of the full study's largest process, in GB", gigabytes, "below 2")


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = [*rows_of_parts(time_parts()), *rows_of_commands()]
    publish("speed", pd.DataFrame(rows), parameters_of(read_study("full")))
