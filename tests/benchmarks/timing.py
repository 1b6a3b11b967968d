"""What the benchmarks share: the median time of an action, and a table in figures/data."""

import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import pandas as pd

from neuronsplit.study import run
from neuronsplit.study.store import ROOT, save

RATE, BATCH_SIZE = 1e-3, 32  # of the full study


def seconds(action: Callable, rounds: int = 3) -> float:
    """Return the median time of so many rounds, after one that does not count."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return median(times[1:])


def command(*words: str) -> Callable:
    """Return an action that runs this Python with these arguments; it raises CalledProcessError where that fails."""
    return lambda: subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)


def publish(name: str, table: pd.DataFrame, parameters: dict) -> None:
    """Save a table as runs/NAME/table.csv and figures/data/NAME.csv.gz, and print it."""
    folder = run.RUNS / name
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "table.part"
    table.to_csv(part, index=False, float_format="%.4g")
    save(part, folder / "table.csv", {"parameters": parameters})
    run.publish(name, name)
    print(table.to_string(index=False, float_format="{:.3g}".format))
