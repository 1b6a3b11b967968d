"""Measure what a study adds to its experiments, 500 of about a second each, in two processes and six minutes."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil

from neuronsplit.study.store import PIECES, ROOT

N_EXPERIMENTS, N_WORKERS = 500, 2
STUDY = f"""
seed: {[10 * n for n in range(N_EXPERIMENTS)]}
dataset: digits
splits: 20
epochs: 80
n_seeds: 10
"""


def seconds_of_cells(notebook: Path) -> float:
    """Return the time that the code cells of an executed notebook took."""
    cells = nbformat.read(notebook, as_version=4).cells
    return sum(cell.metadata.papermill.duration or 0 for cell in cells if cell.cell_type == "code")


def run_study(study: Path, results: Path) -> tuple[float, list[tuple[float, float]]]:
    """Run a study; return its seconds, and the parent's memory in MB at times, twice per second."""
    command = [sys.executable, "-m", "neuronsplit", "run", study, "--folder", results, "--workers", str(N_WORKERS)]
    start, memory = time.perf_counter(), []
    process = psutil.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        with process.oneshot():
            memory.append((time.time(), process.memory_info().rss / 1e6 if process.is_running() else np.nan))
        time.sleep(0.5)
    wall = time.perf_counter() - start
    assert process.wait() == 0
    return wall, memory


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        study, results = Path(folder) / "many.yaml", Path(folder) / "results"
        study.write_text(STUDY)
        wall, memory = run_study(study, results)
        trained = sum(json.loads(file.read_text())["seconds"] for file in (results / PIECES).glob("*.json"))
        cells = sum(map(seconds_of_cells, results.glob("random-????????.ipynb")))
        end = max(file.stat().st_mtime for file in results.glob("random-????????.ipynb"))
    used = [megabytes for at, megabytes in memory if at < end][len(memory) // 10 :]  # not while it reports
    print(f"{N_EXPERIMENTS} experiments by {N_WORKERS} processes: {wall:.0f} s")
    print(f"each process: {trained / N_WORKERS:.0f} s of training, {cells / N_WORKERS:.0f} s of the notebooks' cells")
    print(f"the study adds {N_WORKERS * wall / (trained + cells) - 1:.1%}")
    print(f"memory of the parent: {used[0]:.0f} MB after a tenth, {used[-1]:.0f} MB at the last experiment")
