"""What the benchmarks share: the median time of an action, and a table in figures/data."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from statistics import median

import pandas as pd

from neuronsplit.analysis.circumstances import circumstances
from neuronsplit.analysis.files import write_table
from neuronsplit.locations import ROOT
from neuronsplit.study.grid import Study

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


def parameters_of(study: Study) -> dict:
    """Return the parameters of a study whose experiments differ in the policy only."""
    first, seeds = next(iter(study.plan.items()))
    return asdict(first) | {"policy": [e.policy for e in study.plan], "n_seeds": len(seeds)}


def publish(name: str, table: pd.DataFrame, parameters: dict) -> None:
    """Save a table as figures/data/NAME.parquet, and print it."""
    made_by = {"study": name, "parameters": parameters} | circumstances()
    write_table(table, ROOT / "figures" / "data" / f"{name}.parquet", made_by)
    print(table.to_string(index=False, float_format="{:.3g}".format))
