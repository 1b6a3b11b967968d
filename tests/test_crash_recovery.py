"""A study whose processes are killed, whose disk is full and whose files are damaged, by its public command."""

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import time

import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import remount

from neuronsplit.analysis.files import read_results
from neuronsplit.study import batches, grid, progress, store
from neuronsplit.study.cli import main

PROGRESS = r"\d+ of \d+ experiments"  # a line of it
RENAME_LATER = """
import os, time

replace = os.replace


def wait_and_replace(source, target):
    while str(target).endswith(".parquet") and os.path.exists(os.environ["HOLD"]):
        time.sleep(0.05)
    replace(source, target)


os.replace = wait_and_replace
"""


def digest(file):
    """The digest of all values and types in a Parquet file, bit for bit, without its provenance."""
    table, sink = pq.read_table(file).replace_schema_metadata(None), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def tables(folder):
    """The digest of the table of every unit, and of the study's table, by file name."""
    return {file.name: digest(file) for file in [*folder.glob("units/*.parquet"), folder / "table.parquet"]}


def as_saved(folder):
    """The bytes and times of the units' files, by name."""
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.glob("units/*.parquet")}


def left_behind(folder):
    """Files under a name that is not final."""
    return list(folder.rglob("*.part"))


def wait_for(found, run, seconds=60):
    """Wait until a function returns something while a run goes on, and return that."""
    until = time.monotonic() + seconds
    while not (result := found()):
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)
    return result


def kernels(run):
    """The processes in which the notebooks of a run are executed."""
    return [child for child in psutil.Process(run.pid).children(recursive=True) if is_kernel(child)]


def is_kernel(process):
    try:
        return "ipykernel_launcher" in process.cmdline()
    except psutil.Error:  # it has ended
        return False


def holder(processes, unit):
    """The process that has the lock of a unit open, by what the operating system says."""
    return next(p for p in processes if any(f".{unit.name}.lock" in file.path for file in p.open_files()))


def ended(run):
    """What a run that ends by itself returns, says, and says of errors: their lines, without those of progress."""
    said, errors = run.communicate(timeout=300)
    return run.returncode, said, [line for line in errors.splitlines() if not re.match(PROGRESS, line)]


def states(sweep, folder):
    """The first word of every experiment's state, by its policy."""
    plan = grid.read_study(str(sweep)).plan
    found = progress.states(plan, read_results(folder)[0], folder / store.UNITS)
    return {experiment.policy: state.split(",")[0] for experiment, state in found.items()}


def test_a_study_killed_three_times_ends_with_the_same_bytes(start, sweep, undisturbed, tmp_path):
    """The process group is killed at a random moment of training, between two units, and of the report.

    The second run starts while kernels of the first may still be at work.
    """
    tmp_path.joinpath("report.html").write_text("of an earlier table")
    stages = "units/.*.lock", "units/*.parquet", "table.parquet"
    saved = {}
    for pattern, longest in zip(stages, (2, 2, 1)):
        run = start(sweep, tmp_path)
        wait_for(lambda pattern=pattern: list(tmp_path.glob(pattern)), run)
        time.sleep(random.uniform(0, longest))
        family = kernels(run)
        os.killpg(run.pid, signal.SIGKILL)
        saved |= as_saved(tmp_path)
    assert not psutil.wait_procs(family, timeout=30)[1], "left running"
    assert ended(start(sweep, tmp_path))[0] == 0
    assert tables(tmp_path) == tables(undisturbed) and len(tables(tmp_path)) == 4
    assert saved and saved.items() <= as_saved(tmp_path).items()
    assert "of an earlier table" not in tmp_path.joinpath("report.html").read_text()
    assert not left_behind(tmp_path)


@pytest.mark.long
def test_a_study_killed_thirty_times_ends_with_the_same_bytes(start, sweep, undisturbed, tmp_path):
    """The group, a kernel, or all at once are killed at random moments; what is left running ends by itself."""
    kills = studies = 0
    while kills < 30:
        folder, saved, code = tmp_path / str(studies := studies + 1), {}, None
        while code != 0:
            run = start(sweep, folder)
            family = [psutil.Process(run.pid)]
            try:
                code = run.wait(random.uniform(1, 14))
            except subprocess.TimeoutExpired:
                family += kernels(run)
                for process in random.choice([family[:1], family[-1:], family]):
                    process.kill()
                kills += 1
                code = run.wait(120)
            assert code in (0, 1, -signal.SIGKILL), run.communicate()
            assert not psutil.wait_procs(family, timeout=30)[1], "left running"
            saved |= as_saved(folder)
        assert saved.items() <= as_saved(folder).items() and tables(folder) == tables(undisturbed)
        assert not left_behind(folder)


def test_killed_between_the_write_and_the_rename_and_only_a_lock_means_running(start, sweep, undisturbed, tmp_path):
    """Two kernels wait with whole files under other names. One of them outlives its run, and so keeps its lock."""
    folder, hold = tmp_path / "results", tmp_path / "hold"
    hold.touch()
    tmp_path.joinpath("sitecustomize.py").write_text(RENAME_LATER)
    run = start(sweep, folder, "--workers", "2", PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}", HOLD=hold)
    wait_for(lambda: len(list(folder.glob("units/.*.parquet.*.part"))) == 2, run)
    first, second, _ = batches.cut_into_units(grid.read_study(str(sweep)).plan)
    assert [unit.experiments[0].policy for unit in (first, second)] == ["no-split", "random"]
    dies, survives = holder(kernels(run), first), holder(kernels(run), second)
    try:
        survives.send_signal(signal.SIGSTOP)
        assert states(sweep, folder) == dict.fromkeys(["random", "max-loss", "no-split", "min-fire"], "running")
        os.killpg(run.pid, signal.SIGKILL)
        assert not psutil.wait_procs([dies], timeout=30)[1]
        left = {"random": "running", "max-loss": "running", "no-split": "missing", "min-fire": "missing"}
        assert states(sweep, folder) == left and not as_saved(folder)
        run = start(sweep, folder, "--workers", "3")
        wait_for(lambda: len(as_saved(folder)) == 2, run)
        saved = as_saved(folder)
        assert f"{second.name}.parquet" not in {file.name for file in saved} and states(sweep, folder) == {
            "random": "running", "max-loss": "running", "no-split": "done", "min-fire": "done"
        }  # fmt: skip
    finally:
        survives.kill()
    assert ended(run)[0] == 0
    assert tables(folder) == tables(undisturbed) and saved.items() <= as_saved(folder).items()
    assert set(states(sweep, folder).values()) == {"done"} and not left_behind(folder)


@pytest.mark.long
def test_a_kernel_that_is_killed_from_outside_leaves_the_same_bytes(start, sweep, undisturbed, tmp_path):
    """What trains as one decides the rounding, so a unit stays what it is when its kernel was not to blame."""
    run = start(sweep, tmp_path)
    unit = batches.cut_into_units(grid.read_study(str(sweep)).plan)[1]
    wait_for((tmp_path / "units" / f".{unit.name}.json").exists, run)
    holder(kernels(run), unit).kill()
    assert ended(run)[0] in (0, 1)
    assert ended(start(sweep, tmp_path))[0] == 0
    assert tables(tmp_path) == tables(undisturbed)


@pytest.mark.long
def test_two_who_start_the_same_study_at_once_spoil_nothing(start, sweep, undisturbed, tmp_path):
    """Each unit is trained by the one that holds its lock; both say so, and both end with the paths of the report."""
    runs = [start(sweep, tmp_path) for _ in range(2)]
    for code, said, errors in map(ended, runs):
        assert code == 0 and "report.html" in said and not errors
    assert tables(tmp_path) == tables(undisturbed) and not left_behind(tmp_path)


def test_a_cut_or_foreign_file_is_named_and_left_alone_and_only_its_unit_is_trained_again(
    sweep, undisturbed, tmp_path, capsys
):
    shutil.copytree(undisturbed, folder := tmp_path / "results")
    units = batches.cut_into_units(grid.read_study(str(sweep)).plan)
    cut, foreign, whole = (folder / "units" / f"{unit.name}.parquet" for unit in units)
    data = cut.read_bytes()
    for length in [*range(16), *range(16, len(data) - 16, 211), *range(len(data) - 16, len(data))]:
        cut.write_bytes(data[:length])
        problems = read_results(folder)[1]
        assert len(problems) == 1 and problems[0].startswith(f"{cut} is damaged (")
    pd.DataFrame({"experiment": ["a"], "seed": [0]}).to_parquet(foreign)
    before = as_saved(folder)
    assert main(["status", str(sweep), "--folder", str(folder)]) == 0
    said = capsys.readouterr().out
    assert said.count("left alone: ") == 2 and f"left alone: {foreign} is left out (of another program): " in said
    for unit in units:
        store.load_or_run(unit.experiments, unit.seeds, folder)
    again = {next(folder.glob(f"units/{file.stem}-????????.parquet")) for file in (cut, foreign)}
    assert before.items() <= as_saved(folder).items() and set(as_saved(folder)) == {cut, foreign, whole} | again
    assert {digest(file) for file in [*again, whole]} == {digest(f) for f in undisturbed.glob("units/*.parquet")}


@pytest.mark.long
def test_a_run_names_damaged_files_and_ends_with_the_same_table(start, sweep, undisturbed, tmp_path):
    shutil.copytree(undisturbed / "units", tmp_path / "units")
    cut, foreign, _ = tmp_path.glob("units/*.parquet")
    cut.write_bytes(cut.read_bytes()[: random.randrange(cut.stat().st_size)])
    pd.DataFrame({"experiment": ["a"], "seed": [0]}).to_parquet(foreign)
    for n_trained in (2, 0):
        before = as_saved(tmp_path)
        code, _, errors = ended(start(sweep, tmp_path))
        assert code == 0 and {line.split(" is ")[0] for line in errors} == {f"left alone: {f}" for f in (cut, foreign)}
        assert before.items() <= as_saved(tmp_path).items() and len(as_saved(tmp_path)) == len(before) + n_trained
        assert digest(tmp_path / "table.parquet") == digest(undisturbed / "table.parquet")


@pytest.mark.long
def test_a_full_disk_keeps_a_unit_from_being_saved_and_spoils_nothing(sweep, undisturbed, small_disk):
    first, second, _ = batches.cut_into_units(grid.read_study(str(sweep)).plan)
    store.load_or_run(first.experiments, first.seeds, small_disk)
    saved = as_saved(small_disk)
    with pytest.raises(OSError, match=rf"No space left on device: '.*{second.name}\.parquet'$"):
        store.load_or_run(second.experiments, second.seeds, small_disk)
    assert as_saved(small_disk) == saved and len(saved) == 1 and not left_behind(small_disk)
    remount(small_disk, "-o", "remount,size=100m")
    store.load_or_run(second.experiments, second.seeds, small_disk)
    assert saved.items() < as_saved(small_disk).items() and not left_behind(small_disk)
    for file in as_saved(small_disk):
        assert digest(file) == digest(undisturbed / "units" / file.name)


@pytest.mark.long
def test_a_run_on_a_full_disk_is_one_line_a_failure_and_goes_on_later(start, sweep, undisturbed, small_disk):
    """The disk is first too small for a notebook, then for all units, and then for the table and the report."""
    saved, places = {}, []
    for size in (8, 64, 150, 200):
        assert remount(small_disk, "-o", f"remount,size={size}k") == 0
        code, _, lines = ended(start(sweep, small_disk))
        assert code == 1 and lines and all(line.startswith("neuronsplit: failed: ") for line in lines)
        assert [line for line in lines if "No space left on device" not in line or str(small_disk) not in line] == []
        assert saved.items() <= as_saved(small_disk).items()
        saved = as_saved(small_disk)
        places.append(len(saved))
    assert places[0] == 0 and max(places) > 0
    assert remount(small_disk, "-o", "remount,size=100m") == 0
    assert ended(start(sweep, small_disk))[0] == 0
    assert tables(small_disk) == tables(undisturbed) and saved.items() <= as_saved(small_disk).items()
    assert not left_behind(small_disk)


def test_a_folder_that_can_only_be_read_is_one_line_and_still_has_a_status(
    sweep, undisturbed, small_disk, capsys, monkeypatch
):
    monkeypatch.setattr(os, "environ", os.environ.copy())  # a run changes what its kernels inherit
    remount(small_disk, "-o", "remount,size=100m")
    shutil.copytree(undisturbed / "units", small_disk / "units")
    next(small_disk.glob("units/*.parquet")).unlink()
    assert remount(small_disk, "-o", "remount,ro") == 0
    assert main(["run", str(sweep), "--folder", str(small_disk)]) == 2
    said, place = capsys.readouterr().err, small_disk / "units"
    reason = "cannot be written (Read-only file system): allowed are folders of your own"
    assert said == f"neuronsplit: {place} {reason}\n"
    assert main(["status", str(sweep), "--folder", str(small_disk)]) == 0
    assert "0 running, 0 failed" in capsys.readouterr().out


@pytest.mark.long
def test_a_folder_that_becomes_read_only_loses_nothing_and_the_study_goes_on_later(
    start, sweep, undisturbed, small_disk
):
    remount(small_disk, "-o", "remount,size=100m")
    run = start(sweep, small_disk, "--workers", "1")
    wait_for(lambda: as_saved(small_disk), run)
    wait_for(lambda: remount(small_disk, "-o", "remount,ro") == 0, run)  # busy while a kernel has a lock
    code, _, lines = ended(run)
    assert code == 1 and lines and all(line.startswith("neuronsplit: failed: ") for line in lines)
    assert all("Read-only file system" in line and str(small_disk) in line for line in lines)
    saved = as_saved(small_disk)
    assert len(saved) in (1, 2)
    assert remount(small_disk, "-o", "remount,rw") == 0
    assert ended(start(sweep, small_disk))[0] == 0
    assert tables(small_disk) == tables(undisturbed) and saved.items() <= as_saved(small_disk).items()
