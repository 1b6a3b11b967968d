"""Fixtures, and hypothesis profiles: HYPOTHESIS_PROFILE=deep tries 20,000 cases in place of 100, and long tries 200."""

import gc
import os
import shutil
import signal
import subprocess
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests run in parallel, one per core

import jupytext  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from neuronsplit.analysis import files  # noqa: E402
from neuronsplit.locations import ROOT  # noqa: E402
from neuronsplit.study import batches, grid, store  # noqa: E402

settings.register_profile("default", deadline=None, max_examples=100)
settings.register_profile("long", deadline=None, max_examples=200)
settings.register_profile("deep", deadline=None, max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

SWEEP = """
report: own.ipynb
dataset: digits
width: 3
splits: 6
epochs: 60
grids:
  - {policy: [random, max-loss], n_seeds: 3}
  - {policy: [no-split, min-fire], n_seeds: 1, first_seed: 3}
"""
OWN_REPORT = """
# %% tags=["parameters"]
table = figures = title = ""

# %%
import neuronsplit as ns

print(len(ns.read_table(table)), "rows")
"""


# Notebooks that take longest. CI executes each of them in a job of its own too.
LONG_NOTEBOOKS = ("04", "07", "08", "09", "10", "11", "12", "13", "15", "16", "all_splits", "design", "report")


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items):
    """Mark the cells of long notebooks as tests that take long are marked."""
    for item in items:
        if item.path.suffix == ".ipynb" and item.path.name.startswith(LONG_NOTEBOOKS):
            item.add_marker(pytest.mark.long)


def pytest_collection_finish():
    """Set aside what imports and collection have made: the search for optimisers then has less to look through."""
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown():
    """Close the figures that a test has drawn, so that no other test finds them."""
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture(scope="session")
def sweep(tmp_path_factory):
    """The file of a study of three units, with a report of its own that is quick to make."""
    file = tmp_path_factory.mktemp("study") / "sweep.yaml"
    file.write_text(SWEEP)
    jupytext.write(jupytext.reads(OWN_REPORT, "py:percent"), file.with_name("own.ipynb"))
    return file


@pytest.fixture(scope="session")
def undisturbed(sweep, tmp_path_factory):
    """The folder of the sweep, trained in this process, without notebooks."""
    folder, plan = tmp_path_factory.mktemp("undisturbed"), grid.read_study(str(sweep)).plan
    for unit in batches.cut_into_units(plan):
        store.load_or_run(unit.experiments, unit.seeds, folder)
    table = store.collect(plan, files.read_results(folder)[0])
    files.write_table(table, folder / "table.parquet", {"study": "sweep"})
    return folder


@pytest.fixture
def start():
    """A function that starts the run of a study in a process group of its own, which ends with the test."""
    runs = []

    def begin(study, folder, *options, **environment):
        command = [sys.executable, "-m", "neuronsplit", "run", str(study), "--folder", str(folder), *options]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        runs.append(subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, **streams))
        return runs[-1]

    yield begin
    for run in runs:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.communicate()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 kB of its own; skipped where this machine does not let us mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    if not shutil.which("mount") or remount(place, "-t", "tmpfs", "-o", "size=24k", "tmpfs"):
        pytest.skip("no right to mount a file system here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def remount(place, *options):
    """Mount a file system anew; return 0, or another number if that failed."""
    return subprocess.run(["mount", *options, place], capture_output=True).returncode
