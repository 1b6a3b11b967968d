"""A study whose processes are killed, by real processes and their public command."""

import hashlib
import platform
import random
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from neuronsplit.study.store import ROOT


def start(sweep, folder, *options):
    """The command that runs a sweep, on its own."""
    command = [sys.executable, "-m", "neuronsplit", "run", str(sweep), "--folder", str(folder), *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def tables(folder):
    """The digest of every experiment's table, by its name."""
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.glob("*-????????.csv")}


def left_behind(folder):
    """Files under a name that is not final, or set aside."""
    return [file for file in folder.rglob("*") if platform.node() in file.name or "aside" in file.name]


def all_gone(processes, within=30):
    """Whether these processes, and their children, come to an end by themselves."""
    _, alive = psutil.wait_procs(processes, timeout=within)
    return not alive


@pytest.mark.long
def test_a_study_killed_thirty_times_ends_with_the_same_bytes(sweep, tmp_path):
    """The parent, a worker or a kernel is killed at random moments; whatever is left running ends by itself."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert start(sweep, undisturbed).wait() == 0
    chance, kills = random.Random(0), 0
    while kills < 30:
        run = start(sweep, killed)
        family = [psutil.Process(run.pid)]
        for _ in range(chance.randint(1, 3)):
            time.sleep(chance.uniform(0.3, 4))
            if run.poll() is not None:
                break
            family = [family[0], *family[0].children(recursive=True)]
            chance.choice(family).send_signal(signal.SIGKILL)
            kills += 1
        if run.poll() is None:
            run.kill()
            kills += 1
        assert all_gone(family), "left running"
        run.stdout.close()
    assert start(sweep, killed).wait() == 0
    assert tables(killed) == tables(undisturbed) and len(tables(killed)) == 7
    assert not left_behind(killed)


@pytest.mark.long
def test_two_who_start_the_same_study_at_once_spoil_nothing(sweep, tmp_path):
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert start(sweep, alone).wait() == 0
    runs = [start(sweep, both) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert tables(both) == tables(alone)
    assert not left_behind(both)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB of its own; skipped where this machine does not let us mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no right to mount a file system here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def enlarge(place):
    subprocess.run(["mount", "-o", "remount,rw,size=100m", place], check=True)


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("mount"), reason="no mount")
def test_a_full_disk_is_an_error_that_loses_nothing_and_the_study_goes_on_later(sweep, tmp_path, small_disk):
    run = start(sweep, small_disk)
    said, _ = run.communicate()
    assert run.returncode in (1, 2) and "No space left on device" in said
    finished = tables(small_disk)
    enlarge(small_disk)
    assert start(sweep, small_disk).wait() == 0
    assert finished.items() <= tables(small_disk).items() and len(tables(small_disk)) == 7


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("mount"), reason="no mount")
def test_a_folder_that_becomes_read_only_is_an_error_and_the_study_goes_on_later(sweep, tmp_path, small_disk):
    enlarge(small_disk)
    run = start(sweep, small_disk)
    while not list(small_disk.glob("*-????????.json")):
        time.sleep(0.05)
        assert run.poll() is None, run.stdout.read()
    while subprocess.run(["mount", "-o", "remount,ro", small_disk], capture_output=True).returncode:
        time.sleep(0.01)  # busy while a file is open for writing
    said, _ = run.communicate()
    assert run.returncode in (1, 2) and "Read-only file system" in said
    finished = tables(small_disk)
    assert finished
    run = start(sweep, small_disk)
    said, _ = run.communicate()
    assert run.returncode == 2 and "cannot be written (Read-only file system)" in said
    enlarge(small_disk)
    assert start(sweep, small_disk).wait() == 0
    assert finished.items() <= tables(small_disk).items() and len(tables(small_disk)) == 7
