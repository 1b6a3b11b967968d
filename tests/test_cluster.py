"""A study on a Dask cluster of real processes, started by Dask's own commands on the loopback interface."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from test_crash_recovery import start, tables

from neuronsplit.study.store import ROOT

pytest.importorskip("distributed")


@pytest.fixture
def cluster(tmp_path):
    """A function that starts a scheduler with so many workers and gives its address and processes."""
    processes = []

    def begin(workers, **environment):
        file = tmp_path / f"scheduler-{len(processes)}.json"
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        dask(processes, "scheduler", *options)
        for _ in range(workers):
            dask(processes, "worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", **environment)
        while not file.exists():
            time.sleep(0.1)
        return json.loads(file.read_text())["address"], processes

    yield begin
    for process in reversed(processes):
        process.terminate()
    for process in processes:
        process.wait()


def dask(processes, *words, **environment):
    command = [sys.executable, "-m", "dask", *words]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes.append(subprocess.Popen(command, cwd="/", env=os.environ | environment, **quiet))  # not this checkout


@pytest.mark.long
def test_a_cluster_gives_the_same_bytes_also_where_a_worker_is_killed(sweep, tmp_path, cluster):
    here, there = tmp_path / "here", tmp_path / "there"
    assert start(sweep, here).wait() == 0
    address, processes = cluster(2)
    run = start(sweep, there, "--scheduler", address)
    while not list(there.rglob("*.part")):
        time.sleep(0.1)
        assert run.poll() is None, run.stdout.read()
    processes[1].send_signal(signal.SIGKILL)
    assert run.wait() == 0, run.stdout.read()
    assert tables(there) == tables(here) and len(tables(there)) == 7


@pytest.mark.long
def test_workers_import_the_extensions_of_a_study(tmp_path, cluster):
    (tmp_path / "own.py").write_text(
        "from neuronsplit.growing.which import POLICIES\nPOLICIES['mine'] = POLICIES['max-fire']\n"
    )
    study = tmp_path / "mine.yaml"
    study.write_text("extensions: own.py\npolicy: mine\nwidth: 3\nsplits: 1\nepochs: 2\nn_seeds: 2\n")
    address, _ = cluster(1)
    run = start(study, tmp_path / "there", "--scheduler", address)
    assert run.wait() == 0, run.stdout.read()
    assert [name.rpartition("-")[0] for name in tables(tmp_path / "there")] == ["mine"]


def test_a_scheduler_that_cannot_be_reached_is_named(sweep, tmp_path):
    run = start(sweep, tmp_path / "there", "--scheduler", "tcp://127.0.0.1:9")
    said, _ = run.communicate()
    assert run.returncode == 2 and said.count("\n") == 1
    assert said.startswith("neuronsplit: scheduler tcp://127.0.0.1:9 cannot be reached")
    assert not (tmp_path / "there").exists()


def test_a_worker_of_several_threads_is_refused(sweep, tmp_path, cluster):
    address, processes = cluster(0)
    dask(processes, "worker", address, "--nthreads", "2", "--no-dashboard")
    said, _ = (run := start(sweep, tmp_path / "there", "--scheduler", address)).communicate()
    assert run.returncode == 2 and said.count("\n") == 1
    assert "has 2 threads: allowed is 1 (--nthreads 1), and more workers" in said


def test_a_worker_with_another_version_is_refused_by_name(sweep, tmp_path, cluster):
    shutil.copytree(ROOT / "neuronsplit", tmp_path / "older" / "neuronsplit")
    init = tmp_path / "older" / "neuronsplit" / "__init__.py"
    init.write_text(init.read_text().replace('__version__ = "', '__version__ = "0.0.'))
    address, _ = cluster(1, PYTHONPATH=str(tmp_path / "older"))
    said, _ = (run := start(sweep, tmp_path / "there", "--scheduler", address)).communicate()
    assert run.returncode == 2 and said.count("\n") == 1
    assert "worker tcp://127.0.0.1:" in said and "has neuronsplit 0.0." in said
    assert not (tmp_path / "there").exists()
