"""What the study costs, next to what it could and would otherwise cost: two tables in figures/data and a picture.

The parts come from parts.py by pytest-benchmark; commands are timed as wholes. Takes as long as the full study and some
minutes; nothing else should run meanwhile.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import eager
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plain
import torch
from matplotlib.figure import Figure

from neuronsplit import batch, plots
from neuronsplit.data import load_dataset
from neuronsplit.model import MLP
from neuronsplit.optimizers import start
from neuronsplit.policies import POLICIES
from neuronsplit.products import fast_products
from neuronsplit.seeds import stream
from neuronsplit.studies import experiments, read_study
from neuronsplit.study import CONTROL, ROOT, save
from neuronsplit.training import train_epoch

AXES = {"width": "hidden neurons", "repeats": "repeats", "policies": "policies", "images": "training images"}
HERE, RATE, BATCH = Path(__file__).parent, 1e-3, 32
WIDTHS, EAGER_WIDTHS = (10, 35, 60), (10, 20, 35, 50, 60)  # at which parts, and the eager loop, are timed


def seconds(action: Callable, rounds: int = 3) -> float:
    """The median time of so many rounds, after one that does not count."""
    times = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return median(times[1:])


def command(*words: str) -> Callable:
    """An action that runs one and fails where it does."""
    return lambda: subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)


def parts() -> dict[str, float]:
    """The median seconds of every part, by its name."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "parts.json"
        run = ["-m", "pytest", str(HERE / "parts.py"), "-q", "-p", "no:nbval", "-o", "addopts="]
        command(*run, f"--benchmark-json={report}")()
        found = json.loads(report.read_text())["benchmarks"]
    return {one["name"].removeprefix("test_"): one["stats"]["median"] for one in found}


def full_study() -> tuple[float, float]:
    """Seconds of the command from start to report, and the peak memory in GB of its largest process."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        started = subprocess.Popen([sys.executable, "-m", "neuronsplit", "run", "full", "--folder", folder], cwd=ROOT)
        _, status, usage = os.wait4(started.pid, 0)  # of it and all that it has started
        if status:
            raise RuntimeError("the full study failed")
        return time.perf_counter() - begun, usage.ru_maxrss * 1024 / 1e9


def eager_study(feed: Callable, threads: int) -> float:
    """Seconds that the full study would take one network at a time: epochs and choices timed, added up."""
    torch.set_num_threads(threads)
    data = load_dataset("fashion-mnist")
    epoch, choice = {}, {}  # seconds by width; by policy and width
    for width in EAGER_WIDTHS:
        net = eager.network(784, width, 10)
        optimizer, batches = torch.optim.SGD(net.parameters(), RATE), feed(*data.train, BATCH)

        def one_epoch(net=net, optimizer=optimizer, batches=batches):
            eager.train_epoch(net, batches if feed is eager.loader else feed(*data.train, BATCH), optimizer)
            for split in (data.validation, data.test):
                eager.evaluate(net, *split)

        epoch[width] = seconds(one_epoch, 9)
        for policy in POLICIES:
            if not policy.startswith("min-eig"):
                rng = np.random.default_rng(0)
                choice[policy, width] = seconds(lambda p=policy, n=net, g=rng: plain.choose(p, n, *data.validation, g))
    torch.set_num_threads(1)
    total = 0.0
    for e in experiments(read_study("full")):
        at_end = e.width + e.splits
        widths = [at_end] * e.epochs if e.policy == CONTROL else [min(e.width + n, at_end) for n in range(e.epochs)]
        of_one = np.interp(widths, EAGER_WIDTHS, [epoch[w] for w in EAGER_WIDTHS]).sum()
        if e.policy != CONTROL:
            of_one += np.interp(widths[: e.splits], EAGER_WIDTHS, [choice[e.policy, w] for w in EAGER_WIDTHS]).sum()
        total += e.repeats * of_one
    return total


def growth() -> pd.DataFrame:
    """Seconds an epoch of training, on one thread, as one thing grows: a row a size, with the bound and the eager loop.

    The bound is the time of the first layer's multiplications at the speed of one large product of matrices.
    """
    data = load_dataset("fashion-mnist")
    large = torch.rand(2048, 2048)
    with fast_products():
        speed = 2 * 2048**3 / seconds(lambda: large @ large, 9)  # a second
    usual = {"width": 35, "repeats": 10, "policies": 7, "images": 10_000}
    sizes = {
        "width": [10, 20, 35, 60, 100, 200], "repeats": [1, 2, 5, 10, 20], "policies": [1, 2, 4, 7, 12],
        "images": [5_000, 10_000, 20_000, 50_000],
    }  # fmt: skip
    rows = []
    for axis, values in sizes.items():
        for value in values:
            width, repeats, policies, images = (usual | {axis: value}).values()
            train = type(data.train)(*(part[:images] for part in data.train))
            mlp = MLP((784, width, 10), repeats)[[seed for seed in range(repeats) for _ in range(policies)]]
            optimizer, order = start("sgd", mlp, RATE), [stream(seed, "order") for seed in range(repeats)]
            net = eager.network(784, width, 10)
            sgd = torch.optim.SGD(net.parameters(), RATE)
            one = seconds(lambda n=net, t=train, o=sgd: eager.train_epoch(n, eager.indexed(*t, BATCH), o))
            met = images // BATCH * BATCH
            with fast_products():
                ours = seconds(lambda m=mlp, t=train, o=optimizer, g=order: train_epoch(m, t, g, o, BATCH))
            rows.append(
                {
                    "axis": axis,
                    "size": value,
                    "measured": ours,
                    "bound": 4 * 784 * width * met * repeats * policies / speed,
                    "eager": one * repeats * policies,
                }
            )
    return pd.DataFrame(rows)


def picture(costs: pd.DataFrame) -> Figure:
    """Seconds an epoch against each thing that grows, both on a logarithmic scale."""
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), sharey=True, layout="constrained")
    lines = {"eager": ("one network at a time, eager", "#b2182b"), "measured": ("measured", "#08519c")}
    lines["bound"] = ("its first-layer products, at the speed of one large product", "#5b5b5b")
    for axis, (name, rows) in zip(axes, costs.groupby("axis", sort=False)):
        for column, (label, colour) in lines.items():
            style = {"ls": "--"} if column == "bound" else {"marker": "o", "ms": 4}
            axis.plot(rows["size"], rows[column], color=colour, label=label, **style)
        axis.set(xscale="log", yscale="log", xlabel=AXES[name], xticks=rows["size"])
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.minorticks_off()
    axes[0].set(ylabel="seconds an epoch")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncol=3, frameon=False)
    return figure


def compared(part: dict[str, float]) -> pd.DataFrame:
    """The table: what was measured, next to what, and the goal for their ratio."""
    rows = []

    def row(figure: str, measured: float, beside: str, other: float, ratio: float, goal: str):
        rows.append({"figure": figure, "measured": measured, "beside": beside, "other": other, "ratio": ratio})
        rows[-1]["goal"] = goal

    for width in WIDTHS:
        step, products = part[f"step[{width}]"], part[f"products[{width}]"]
        row(f"training step, 7 × 5 networks, H = {width}", step, "its first-layer products", products,
            step / products, "at most 1.2" if width > 10 else "")  # fmt: skip
    step = part["step[60]"]
    ways = {"floats": "floats, as it is", "bytes": "bytes", "blocks": "floats, 16 mini-batches at once"}
    for way, name in ways.items():
        gather = part[f"gather[{way}]"] / (16 if way == "blocks" else 1)
        row(f"gathering a mini-batch of {name}", gather, "a training step, H = 60", step, gather / step, "")
    steps = step * (len(load_dataset("fashion-mnist").train.labels) // BATCH)
    row("a split of 7 × 5 networks, H = 60", part["split"], "an epoch's training steps", steps,
        part["split"] / steps, "")  # fmt: skip
    for width in (10, 60):
        removal, evaluation = part[f"removal[{width}]"], part[f"evaluation[{width}]"]
        row(f"loss after removal of each neuron, H = {width}", removal, "an evaluation of the same images", evaluation,
            removal / evaluation, "at most 1.5" if width == 60 else "")  # fmt: skip
    for policy in POLICIES:
        choice, epoch = part[f"choice[{policy}-60]"], part["epoch[60]"]
        row(f"choice by {policy}, H = 60", choice, "an epoch", epoch, choice / epoch, "below 0.03")
    alone, both = (seconds(command("-c", f"import {name}"), 9) for name in ("torch", "neuronsplit"))
    row("import neuronsplit, beyond torch's own import", both - alone, "", np.nan, np.nan, "below 0.2")
    for name in ("01_split_a_neuron", "02_grow_while_training"):
        with tempfile.TemporaryDirectory() as folder:
            run = ["-m", "papermill", f"notebooks/{name}.ipynb", f"{folder}/out.ipynb", "--no-progress-bar"]
            row(f"notebook {name[:2]}", seconds(command(*run)), "", np.nan, np.nan, "below 15")
    study, gigabytes = full_study()
    for loop, feed, threads, side_by_side in (
        ("one network at a time, eager, DataLoader", eager.loader, torch.multiprocessing.cpu_count(), 1),
        ("one network at a time, eager, indexed", eager.indexed, torch.multiprocessing.cpu_count(), 1),
        ("the same, one thread, divided by the cores", eager.indexed, 1, torch.multiprocessing.cpu_count()),
    ):
        other = eager_study(feed, threads) / side_by_side
        goal = "at least 8" if feed is eager.loader else ""
        row("full study, from start to report", study, loop, other, other / study, goal)
    row("peak memory of the full study's largest process, in GB", gigabytes, "", np.nan, np.nan, "below 2")
    return pd.DataFrame(rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    plots.use_style()
    tables = {"speed-growth": growth(), "speed": compared(parts())}
    for name, table in tables.items():
        (batch.RUNS / name).mkdir(parents=True, exist_ok=True)
        part = batch.RUNS / name / "table.part"
        table.to_csv(part, index=False, float_format="%.4g")
        save(part, batch.RUNS / name / "table.csv", {"parameters": read_study("full")})
    for name in tables:
        batch.publish(name, name)
    plots.keep(picture(tables["speed-growth"]), "figures/", "speed-growth")
    print(tables["speed"].to_string(index=False, float_format="{:.3g}".format))
