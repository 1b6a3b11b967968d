"""Measure what a study adds to its experiments, 500 of about a second each, in two processes and six minutes."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from neuronsplit.analysis.files import provenance
from neuronsplit.locations import ROOT

N_EXPERIMENTS, N_WORKERS = int(os.environ.get("N_EXPERIMENTS", "500")), 2
STUDY = f"""
grids: {[{"width": 1 + n % 20, "epochs": 68 + n // 20} for n in range(N_EXPERIMENTS)]}
dataset: digits
splits: 20
n_seeds: 10
"""  # no two train as one


def run_study(study: Path, results: Path) -> tuple[float, float]:
    """Run a study; return its seconds, and the memory in GB of its largest process."""
    command = [sys.executable, "-m", "neuronsplit", "run", study, "--folder", results, "--workers", str(N_WORKERS)]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)  # of it and of all processes that it started
    if status:
        raise RuntimeError("the study failed")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        study, results = Path(folder) / "many.yaml", Path(folder) / "results"
        study.write_text(STUDY, encoding="utf-8")
        wall, gigabytes = run_study(study, results)
        units = [provenance(file) for file in (results / "units").glob("*.parquet")]
        again, _ = run_study(study, results)
    trained = sum(unit["seconds"] for unit in units)
    assert sum(len(unit["experiments"]) for unit in units) == N_EXPERIMENTS
    print(f"{N_EXPERIMENTS} experiments by {N_WORKERS} processes, in {len(units)} notebooks: {wall:.0f} s")
    print(f"training: {trained / N_WORKERS:.0f} s by each process; the study adds {N_WORKERS * wall / trained - 1:.1%}")
    print(f"memory of the largest process: {gigabytes:.2f} GB; the same again, all finished: {again:.0f} s")
