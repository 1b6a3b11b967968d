"""A study on a Dask cluster of real processes, started by Dask's own commands on the loopback interface."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from test_crash_recovery import PROGRESS, as_saved, ended, is_kernel, kernels, left_behind, tables, wait_for

from neuronsplit import names
from neuronsplit.analysis.files import provenance
from neuronsplit.locations import ROOT
from neuronsplit.study.cli import main

pytest.importorskip("distributed")

EXTENSION = """
import os, time

from neuronsplit.growing.which import POLICIES, Policy, argmax


def score(mlp, blocks):
    if os.path.exists(os.environ.get("DEADLY", "")):
        os.kill(os.getppid(), 9)
        time.sleep(60)  # the kernel ends sooner, as its parent is gone
    return POLICIES["max-fire"].score(mlp, blocks)


POLICIES["mine"] = Policy(score, argmax)
"""


@pytest.fixture
def cluster(tmp_path):
    """A function that starts a scheduler, and gives its address and a function that starts a worker."""
    processes = []

    def dask(*words, **environment):
        command = [sys.executable, "-m", "dask", *words, "--no-dashboard"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
        processes.append(subprocess.Popen(command, cwd="/", env=environment, **quiet))  # not in this checkout
        return processes[-1]

    def begin():
        file = tmp_path / "scheduler.json"
        lone = ["--idle-timeout", "600"]  # so that it ends by itself where the tests are killed
        scheduler = dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file), *lone)
        wait_for(file.exists, scheduler)
        address = json.loads(file.read_text())["address"]
        start_worker = ["worker", address, "--local-directory", str(tmp_path), "--death-timeout", "60", "--nthreads"]
        return address, scheduler, lambda n=1, *more, **env: dask(*start_worker, str(n), *more, **env)

    yield begin
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.long
def test_a_worker_is_killed_and_the_table_is_the_same(start, sweep, undisturbed, tmp_path, cluster):
    """The worker is killed while its kernel holds the lock of a unit, which the other one trains again."""
    address, _, start_worker = cluster()
    run = start(sweep, folder := tmp_path / "there", "--scheduler", address)
    workers = [start_worker(1, "--no-nanny") for _ in range(2)]
    wait_for(lambda: len(list(folder.glob("units/.*.json"))) == 2, run)
    assert not kernels(run) and kernels(workers[0])
    workers[0].kill()
    assert ended(run)[0] == 0
    assert tables(folder) == tables(undisturbed) and not left_behind(folder)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        pytest.param("tcp://127.0.0.1:9", "OSError", marks=pytest.mark.long),
        pytest.param("tcp://nowhere.invalid:9", "OSError", marks=pytest.mark.long),
        ("nonsense", "ValueError"),
        ("http://x", "ValueError"),
    ],
)
def test_a_scheduler_that_cannot_be_reached_is_named(address, reason, sweep, tmp_path, capsys):
    assert main(["run", str(sweep), "--folder", str(tmp_path), "--scheduler", address]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if not re.match(PROGRESS, line)]
    assert errors == [f"neuronsplit: scheduler {address} cannot be reached ({reason})"]


@pytest.mark.long
def test_one_worker_that_comes_later_does_all_with_the_extensions_of_the_study(start, tmp_path, cluster):
    """On SLURM, the jobs of workers wait in a queue while the study has begun. None of it runs at the user's place."""
    address, _, start_worker = cluster()
    study, folder = extended(tmp_path), tmp_path / "there"
    run = start(study, folder, "--scheduler", address)
    wait_for((folder / "units").exists, run)
    time.sleep(15)
    assert run.poll() is None and not kernels(run)
    worker, seen = start_worker(), set()

    def look():
        seen.update(child.pid for child in psutil.Process(worker.pid).children(recursive=True) if is_kernel(child))
        return as_saved(folder)

    wait_for(look, run)
    code, said, errors = ended(run)
    assert code == 0 and seen and "mine: test accuracy" in said and not errors
    assert {one["policy"] for file in as_saved(folder) for one in provenance(file)["experiments"]} == {"mine"}


@pytest.mark.long
def test_threads_of_a_resident_cluster_share_a_worker(start, sweep, undisturbed, tmp_path):
    """The cluster lives in this process. One worker runs three notebooks at once, and then does so again."""
    from dask.distributed import LocalCluster

    options = {"n_workers": 1, "threads_per_worker": 3, "dashboard_address": ":0"}
    with LocalCluster(local_directory=tmp_path, **options) as resident:
        for folder in (tmp_path / "first", tmp_path / "second"):
            run = start(sweep, folder, "--scheduler", resident.scheduler_address)
            wait_for(lambda folder=folder: len(list(folder.glob("units/.*.lock"))) == 3, run)
            assert ended(run)[0] == 0
            assert tables(folder) == tables(undisturbed) and not left_behind(folder)


@pytest.mark.long
def test_a_scheduler_that_is_lost_is_one_line_a_unit_and_the_study_goes_on_here(
    start, sweep, undisturbed, tmp_path, cluster
):
    address, scheduler, start_worker = cluster()
    run = start(sweep, folder := tmp_path / "there", "--scheduler", address)
    start_worker()
    wait_for(lambda: as_saved(folder), run)
    scheduler.kill()
    code, _, errors = ended(run)
    assert code == 1 and 1 <= len(errors) <= 3
    assert all(re.fullmatch("neuronsplit: failed: .*scheduler-connection-lost.*", line) for line in errors)
    saved = as_saved(folder)
    assert ended(start(sweep, folder))[0] == 0
    assert tables(folder) == tables(undisturbed) and saved.items() <= as_saved(folder).items()


@pytest.mark.long
def test_a_unit_that_ends_its_workers_fails_alone(start, tmp_path, cluster):
    """Of two policies, one kills every worker that trains it. The other one is trained, and the first one later."""
    address, _, start_worker = cluster()
    study, folder, deadly = extended(tmp_path, "random"), tmp_path / "there", tmp_path / "deadly"
    deadly.touch()
    run = start(study, folder, "--scheduler", address)
    for _ in range(2):
        start_worker(DEADLY=str(deadly))  # with a nanny, which starts it again
    code, _, errors = ended(run)
    assert code == 1 and len(errors) == 1 and "units/" in errors[0] and "KilledWorker" in errors[0]
    trained = {one["policy"] for file in as_saved(folder) for one in provenance(file)["experiments"]}
    assert trained == {"random"}
    assert ended(start(study, folder))[0] == 0 and len(as_saved(folder)) == 2


@pytest.mark.long
def test_a_worker_whose_results_cannot_be_used_here_is_a_failure(start, tmp_path, cluster):
    """It has another version of the maths, so that its files are left out."""
    older = tmp_path / "older" / "neuronsplit"
    shutil.copytree(ROOT / "neuronsplit", older)
    version = f"RESULTS_VERSION = {names.RESULTS_VERSION}"
    older.joinpath("names.py").write_text((older / "names.py").read_text().replace(version, "RESULTS_VERSION = 1"))
    address, _, start_worker = cluster()
    study, folder = extended(tmp_path), tmp_path / "there"
    start_worker(PYTHONPATH=str(older.parent))
    code, _, errors = ended(start(study, folder, "--scheduler", address))
    assert code == 1 and len(errors) == 1 and f": {folder}/units/" in errors[0]
    assert errors[0].endswith("left no results: allowed are workers with this folder and version")
    (file,) = as_saved(folder)
    assert provenance(file)["results"] == 1


def extended(folder, *policies):
    """The file of a small study of a policy of the user's own, and of others with a seed of their own."""
    folder.joinpath("own.py").write_text(EXTENSION)
    grids = "\n".join(f"  - {{policy: {name}, first_seed: {n}}}" for n, name in enumerate(["mine", *policies]))
    file = folder / "extended.yaml"
    file.write_text(f"extensions: own.py\nwidth: 3\nsplits: 1\nepochs: 2\nn_seeds: 1\ngrids:\n{grids}\n")
    return file
