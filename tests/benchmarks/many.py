"""What a batch adds to its experiments: 500 of about a second each, in two processes; takes some six minutes."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil

from neuronsplit.study import PIECES, ROOT

EXPERIMENTS, WORKERS = 500, 2
SWEEP = f"""
seed: {[10 * n for n in range(EXPERIMENTS)]}
dataset: digits
splits: 20
still: 60
repeats: 10
"""


def seconds_of_cells(notebook: Path) -> float:
    """What the code of an executed notebook took."""
    cells = nbformat.read(notebook, as_version=4).cells
    return sum(cell.metadata.papermill.duration or 0 for cell in cells if cell.cell_type == "code")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sweep, results = Path(folder) / "sweep.yaml", Path(folder) / "results"
        sweep.write_text(SWEEP)
        command = [sys.executable, "-m", "neuronsplit", "run", sweep, "--folder", results, "--workers", str(WORKERS)]
        begun = time.perf_counter()
        run = psutil.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        memory = []  # of the parent, in MB, twice a second
        while run.poll() is None:
            with run.oneshot():
                memory.append((time.time(), run.memory_info().rss / 1e6 if run.is_running() else np.nan))
            time.sleep(0.5)
        wall = time.perf_counter() - begun
        assert run.wait() == 0
        trained = sum(json.loads(file.read_text())["seconds"] for file in (results / PIECES).glob("*.json"))
        cells = sum(map(seconds_of_cells, results.glob("random-????????.ipynb")))
        last = max(file.stat().st_mtime for file in results.glob("random-????????.ipynb"))
    working = [used for at, used in memory if at < last][len(memory) // 10 :]  # not while it reports
    print(f"{EXPERIMENTS} experiments by {WORKERS} processes: {wall:.0f} s")
    print(f"of each process: {trained / WORKERS:.0f} s of training, {cells / WORKERS:.0f} s of the notebooks' cells")
    print(f"the batch adds {WORKERS * wall / (trained + cells) - 1:.1%}")
    print(f"memory of the parent: {working[0]:.0f} MB after a tenth, {working[-1]:.0f} MB at the last experiment")
