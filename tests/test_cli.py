"""The commands: what they print, what they train, and how they end. test_notebook_runs.py runs real notebooks."""

import io
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import nbformat
import papermill
import pytest
import torch
from filelock import FileLock
from in_process import train_in_process
from nbclient.exceptions import DeadKernelError
from papermill import PapermillExecutionError

import neuronsplit as ns
from neuronsplit.experiments.exhaustive_splits import ExhaustiveSplits
from neuronsplit.experiments.experiment import Experiment, run_experiment
from neuronsplit.growing.which import POLICIES, Policy, argmax
from neuronsplit.locations import ROOT, STUDIES
from neuronsplit.study import cli, executor, progress, run
from neuronsplit.study.batches import Batch, cut_into_units, missing_units
from neuronsplit.study.cli import main
from neuronsplit.study.grid import read_study
from neuronsplit.study.store import load_or_run

TINY = {"splits": 2, "epochs": 3, "width": 3}
POLICIES_OF_STUDY = ["no-split", "random", "max-loss", "min-loss", "max-fire", "min-fire"]
STUDY = f"policy: [{', '.join(POLICIES_OF_STUDY)}]\nsplits: 2\nepochs: 3\nwidth: 3\nn_seeds: 2\n"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def study(tmp_path):
    """The file of a study, whose results go into a folder next to it."""
    file = tmp_path / "mine.yaml"
    file.write_text(STUDY)
    return file


@pytest.fixture
def train_here(monkeypatch):
    """The parameters of all notebooks that have run, which train in this process instead of in kernels."""
    return train_in_process(monkeypatch)


@pytest.fixture
def no_start(monkeypatch):
    """Nothing may be started."""
    for name in ("execute", "execute_all"):
        monkeypatch.setattr(executor, name, lambda *_: pytest.fail("a notebook was started"))


def command(name, file, *options):
    """Run a command with results next to the study's file; return its exit code."""
    workers = [] if name == "status" else ["--workers", "2"]
    return main([name, str(file), "--folder", str(file.parent / "results"), *workers, *options])


def content(folder):
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def raising(mlp, blocks):
    raise ZeroDivisionError("on purpose")


def test_a_study_ends_with_its_table_and_says_what_each_experiment_reached(study, train_here, capsys):
    assert command("run", study) == 0
    out, folder = capsys.readouterr().out, study.parent / "results"
    lines = out.splitlines()
    assert lines[:2] == ["data: digits, 1,200 training images", "experiments: 0 of 6 are finished"]
    assert lines[-3:] == [f"report:  {folder}/report.html", f"table:   {folder}/table.parquet",
                          f"figures: {folder}/figures"]  # fmt: skip
    table = ns.read_table(folder / "table.parquet")
    assert table.policy.unique().tolist() == POLICIES_OF_STUDY
    for policy in POLICIES_OF_STUDY:
        expected = run_experiment(Experiment(policy, **TINY), [0, 1])
        rows = table[table.policy == policy].reset_index(drop=True)
        assert rows.split_neuron.equals(expected.split_neuron)
        last = expected[expected.epoch == 3]
        (line,) = [line for line in lines if line.startswith(f"{policy}: ")]
        found = re.fullmatch(r".*: test accuracy (\d.\d{4}), test loss (\d.\d{4}), mean of 2 seeds", line)
        assert float(found[1]) == pytest.approx(last.test_accuracy.mean(), abs=1e-3)
        assert float(found[2]) == pytest.approx(last.test_loss.mean(), abs=1e-3)
    made_by = ns.provenance(folder / "table.parquet")
    assert made_by["study"] == "mine" and made_by["unfinished"] == []
    assert made_by["parameters"]["policy"] == sorted(POLICIES_OF_STUDY)
    assert made_by["parameters"]["width"] == [3] and made_by["parameters"]["seeds"] == [0, 1]
    assert torch.__version__.startswith(made_by["versions"]["torch"])
    assert train_here[-1] == {
        "table": f"{folder}/table.parquet", "figures": f"{folder}/figures/", "title": "mine",
    }  # fmt: skip


def test_a_finished_study_says_so_and_changes_nothing(study, train_here, capsys):
    assert command("run", study) == 0
    first, before, done = capsys.readouterr().out, content(study.parent), len(train_here)
    assert command("run", study) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["experiments: 6 of 6 are finished", "report: it is there, and the table is the same"]
    assert lines[-3:] == first.splitlines()[-3:] and len(lines) == 6
    assert content(study.parent) == before and len(train_here) == done


@pytest.mark.parametrize("lost", ["report.html", "table.parquet"])
def test_a_report_or_table_that_was_deleted_is_made_again_and_nothing_is_trained(lost, study, train_here):
    assert command("run", study) == 0
    file = study.parent / "results" / lost
    file.unlink()
    train_here.clear()
    assert command("run", study) == 0
    assert [set(parameters) for parameters in train_here] == [{"table", "figures", "title"}]
    assert file.exists()


def test_a_report_that_failed_is_made_again(study, train_here, monkeypatch, capsys):
    """Its user mends the notebook, and runs the study again."""
    working = executor.execute

    def failing(notebook, out, parameters):
        working(notebook, out, parameters)
        return f"{out}: NameError: name 'x' is not defined"

    monkeypatch.setattr(executor, "execute", failing)
    for _ in range(2):
        assert command("run", study) == 1
        assert "report.ipynb: NameError: name 'x' is not defined\n" in capsys.readouterr().err
    monkeypatch.setattr(executor, "execute", working)
    train_here.clear()
    assert command("run", study) == 0 and len(train_here) == 1


def test_more_policies_or_seeds_train_only_what_is_new(study, train_here):
    assert command("run", study) == 0
    held = load_or_run([Experiment("random", **TINY)], [0, 1], study.parent / "results")
    study.write_text(STUDY.replace("min-fire", "half-fire").replace("n_seeds: 2", "n_seeds: 3"))
    train_here.clear()
    assert command("run", study) == 0
    pairs = {(e["policy"], seed) for one in train_here[:-1] for e in one["experiments"] for seed in one["seeds"]}
    old, new = POLICIES_OF_STUDY[:-1], "half-fire"
    assert pairs == {*((policy, 2) for policy in old), *((new, seed) for seed in (0, 1, 2))}
    table = ns.read_table(study.parent / "results" / "table.parquet")
    assert table.groupby("policy")["seed"].nunique().to_dict() == dict.fromkeys([*old, new], 3)
    rows = table[(table.policy == "random") & (table.seed < 2)]
    assert rows.test_accuracy.tolist() == held.test_accuracy.tolist()


def test_what_trains_as_one_is_decided_by_the_plan_alone(study, train_here):
    """Not by what is finished: else a result would depend, in its rounding, on what was there before."""
    plan = read_study(str(study)).plan
    finished = Experiment("max-loss", **TINY)
    load_or_run([finished], [0], study.parent / "results")
    assert command("run", study) == 0
    found = [
        ({Experiment(**fields).policy for fields in parameters["experiments"]}, tuple(parameters["seeds"]))
        for parameters in train_here[:-1]
    ]
    units = cut_into_units(plan)
    assert [unit.seeds for unit in units] == [(0,), (1,)] or [unit.seeds for unit in units] == [(1,), (0,)]
    without = {(e.policy, seed) for unit in units for e in unit.experiments for seed in unit.seeds}
    assert sorted(map(len, (policies for policies, _ in found))) == [5, 6]
    assert {(policy, seed) for policies, seeds in found for policy in policies for seed in seeds} == without - {
        ("max-loss", 0)
    }


def test_status_and_dry_run_say_how_far_a_study_is_and_change_nothing(study, no_start, capsys):
    done, partly, running, failed, left, over = (Experiment(policy, **TINY) for policy in POLICIES_OF_STUDY)
    folder, units = study.parent / "results", study.parent / "results" / "units"
    load_or_run([done], [0, 1], folder)
    load_or_run([partly], [1], folder)
    unit = Batch((running, left), (0,))
    progress.note(unit, units, fraction=0.5, at="epoch 2 of 3", errors={left.id: "not yet known"})
    progress.note(Batch((failed,), (0, 1)), units, errors={failed.id: "ZeroDivisionError: on purpose"})
    stale = Batch((over,), (0, 1))  # of a process that was killed
    progress.note(stale, units, fraction=0.1, at="epoch 1 of 3")
    progress.file_of(stale, units).with_suffix(".lock").touch()
    (units / f".{stale.name}.1.part").write_text("{}")
    (units / "foreign.parquet").write_text("text")
    for n, text in enumerate(
        [
            "",
            "{",
            "[]",
            "3",
            '{"experiments": 3}',
            '{"errors": {}}',
            '{"experiments": [], "x": 1}',
            '{"experiments": [[1]], "errors": null}',
            "\x00",
            '{"experiments": ["a"], "errors": 3}',
        ]
    ):
        (units / f".{n}.json").write_text(text)  # fmt: skip
    (units / ".binary.json").write_bytes(b"\xff\xfe")
    (units / ".folder.json").mkdir()
    with progress.lock(progress.file_of(unit, units)):
        before = content(study.parent)
        for name, options in (("status", []), ("run", ["--dry-run"])):
            assert command(name, study, *options) == 0
            lines = capsys.readouterr().out.splitlines()
            assert lines[:4] == [
                "no-split: done", "random: missing, 1 of 2 seeds", "max-loss: running, epoch 2 of 3",
                "min-loss: failed: ZeroDivisionError: on purpose",
            ]  # fmt: skip
            assert lines[4:6] == ["max-fire: running, epoch 2 of 3", "min-fire: missing"]
            assert re.fullmatch(rf"left alone: {units}/foreign.parquet is damaged \(.*\)", lines[6])
            assert lines[7] == "1 done, 2 running, 1 failed, 2 missing"
            said = r"would run: 2 notebooks for 5 experiments, about \d+\.\d minutes with 2 workers if idle"
            assert lines[8:] == [] if name == "status" else re.fullmatch(said, *lines[8:])
            assert content(study.parent) == before
    assert command("status", study) == 0
    assert "max-loss: missing\n" in capsys.readouterr().out


def test_running_is_said_of_another_process_while_it_lives(study, capsys):
    experiment, units = Experiment("no-split", **TINY), study.parent / "results" / "units"
    units.mkdir(parents=True)
    unit = Batch((experiment,), (0, 1))
    progress.note(unit, units, at="epoch 1 of 3")
    file = progress.file_of(unit, units).with_suffix(".lock")
    code = f"from filelock import FileLock; lock = FileLock({str(file)!r}); lock.acquire(); print(flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    assert command("status", study) == 0
    assert capsys.readouterr().out.startswith("no-split: running, epoch 1 of 3\n")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert command("status", study) == 0
    assert capsys.readouterr().out.startswith("no-split: missing\n")
    with FileLock(file).acquire(timeout=0):  # which nobody holds
        pass


def test_status_of_a_study_that_never_ran_makes_no_folder(study, no_start, capsys):
    assert command("status", study) == 0
    assert capsys.readouterr().out.endswith("0 done, 0 running, 0 failed, 6 missing\n")
    assert list(study.parent.iterdir()) == [study]


def test_an_experiment_that_fails_is_named_and_the_others_are_reported(study, train_here, monkeypatch, capsys):
    monkeypatch.setitem(POLICIES, "bad", Policy(raising, argmax))
    study.write_text(STUDY.replace("max-loss", "bad"))
    folder = study.parent / "results"
    assert command("run", study) == 1
    found = capsys.readouterr()
    failures = [line for line in found.err.splitlines() if line.startswith("neuronsplit: failed: ")]
    assert failures == ["neuronsplit: failed: bad: ZeroDivisionError: on purpose"]  # once, of two units
    assert f"table:   {folder}/table.parquet" in found.out and "bad: test" not in found.out
    assert ns.provenance(folder / "table.parquet")["unfinished"] == ["bad: failed: ZeroDivisionError: on purpose"]
    assert set(ns.read_table(folder / "table.parquet").policy) == {*POLICIES_OF_STUDY, "bad"} - {"bad", "max-loss"}
    assert command("status", study) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "bad: failed: ZeroDivisionError: on purpose"
    assert lines[-1] == "5 done, 0 running, 1 failed, 0 missing"

    monkeypatch.setitem(POLICIES, "bad", Policy(POLICIES["max-loss"].score, argmax))
    train_here.clear()
    assert command("run", study) == 0
    assert {e["policy"] for one in train_here[:-1] for e in one["experiments"]} == {"bad"}
    assert ns.provenance(folder / "table.parquet")["unfinished"] == []


def test_where_everything_fails_there_is_no_report(study, train_here, monkeypatch, capsys):
    monkeypatch.setitem(POLICIES, "bad", Policy(raising, argmax))
    study.write_text("policy: bad\nsplits: 2\nepochs: 3\nn_seeds: 1\n")
    assert command("run", study) == 1
    found = capsys.readouterr()
    assert found.out.endswith("report: nothing has been trained\n") and "ZeroDivisionError" in found.err
    assert not (study.parent / "results" / "table.parquet").exists()


def test_what_is_damaged_is_named_and_left_alone(study, train_here, capsys):
    assert command("run", study) == 0
    table = ns.read_table(study.parent / "results" / "table.parquet")
    damaged = sorted((study.parent / "results" / "units").glob("*.parquet"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-50])
    kept = damaged.read_bytes()
    capsys.readouterr()
    train_here.clear()
    assert command("run", study) == 0
    assert capsys.readouterr().err.startswith(f"left alone: {damaged} is damaged (")
    assert damaged.read_bytes() == kept and [len(one["seeds"]) for one in train_here[:1]] == [1]
    assert ns.read_table(study.parent / "results" / "table.parquet").equals(table)


@pytest.mark.long
def test_all_splits_are_run_and_taken_up_as_other_experiments(study, train_here, capsys):
    study.write_text("type: all-splits\nn_seeds: 2\nepochs_before: [1, 2]\nwidth: 3\n")
    assert command("run", study) == 0
    folder, out = study.parent / "results", capsys.readouterr().out
    table = ns.read_table(folder / "table.parquet")
    losses = ["loss_shuffle_0", "loss_shuffle_1"]
    order = ["horizon", "branch_type", "seed", "neuron", *losses]
    for epochs in (1, 2):
        expected = run_experiment(ExhaustiveSplits(width=3, epochs_before=epochs), [0, 1])
        rows = table[table.epochs_before == epochs]
        assert rows[losses].sum().tolist() == pytest.approx(expected[losses].sum().tolist(), rel=1e-4)
        assert len(rows) == len(expected) and list(rows) == list(expected)
        last = expected[expected.horizon == expected.horizon.max()]
        said = re.search(
            rf"after {epochs} epochs?: loss shuffle 0 (\S+), loss shuffle 1 (\S+), mean of 2 seeds$", out, re.M
        )
        assert [float(number) for number in said.groups()] == pytest.approx(last[losses].mean().tolist(), abs=1e-4)
    assert not table.duplicated(["epochs_before", *order[:-2]]).loc[table.branch_type == "neuron"].any()
    lost, kept = sorted((folder / "units").glob("*.parquet"))[0], content(folder / "units")
    n_lost = sum(len(group) for group in [ns.provenance(lost)["experiments"]])
    lost.unlink()
    assert command("status", study) == 0
    assert f"{2 - n_lost} done, 0 running, 0 failed, {n_lost} missing\n" in capsys.readouterr().out
    train_here.clear()
    assert command("run", study) == 0
    assert len(train_here) == 1 and ns.read_table(folder / "table.parquet").equals(table)  # no report: the same table
    assert {file: data for file, data in content(folder / "units").items() if file != lost}.items() <= kept.items()


def test_results_go_next_to_the_package_unless_a_folder_is_given(study, train_here, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "ROOT", tmp_path / "root")
    changes = ["-p", "policy", "[random, max-loss]", "-p", "n_seeds", "1"]
    assert main(["run", str(study), *changes]) == 0
    folder = tmp_path / "root" / "runs" / "mine"
    assert f"table:   {folder}/table.parquet\n" in capsys.readouterr().out
    assert len(ns.read_table(folder / "table.parquet")) == 2 * 3
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(study), *changes, "--folder", "a/b"]) == 0
    assert f"table:   {tmp_path}/a/b/table.parquet\n" in capsys.readouterr().out
    assert main(["run", str(study), "-p", "extensions", "no/own.py"]) == 2


FOUR = sorted(file.stem for file in STUDIES.glob("*.yaml"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["fast"], f"study 'fast': allowed are {', '.join(FOUR)}, and paths of .yaml files"),
        (["../full"], "study '../full': allowed are"),
        (["none.yaml"], "none.yaml does not exist in "),
        (["quick", "-p", "policy", "max_loss"], "-p policy: policy 'max_loss' (did you mean 'max-loss'?): "),
        (["quick", "-p", "dataset", "mnist"], "-p dataset: dataset 'mnist' (did you mean 'mnist-1d'?): "),
        (["quick", "-p", "learning_rat", "0.1"], "-p learning_rat: parameter 'learning_rat' (did you mean"),
        (["quick", "-p", "width", "0"], "-p width: width 0: allowed are whole numbers from 1"),
        (["quick", "-p", "splits", "1.5"], "-p splits: splits '1.5': allowed are whole numbers"),
        (["quick", "-p", "learning_rate", "nan"], "-p learning_rate: learning_rate nan: allowed are numbers above 0"),
        (["quick", "-p", "dataset", "digits", "-p", "batch_size", "5000"], "batch_size 5000: allowed are 1 to 1200 on"),
        (["quick", "-p", "dataset", "digits", "--workers", "0"], "workers 0: allowed are whole numbers from 1"),
        (["quick", "-p", "grids", "[{width: 3}]"], ""),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2_and_nothing_is_started(arguments, message, no_start, capsys, tmp_path):
    assert main(["run", *arguments, "--folder", str(tmp_path / "results")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"neuronsplit: {message}") and error.count("\n") == 1
    assert not (tmp_path / "results" / "table.parquet").exists()


@pytest.mark.parametrize(
    "arguments", [["publish", "full", "x"], ["run"], ["run", "quick", "-p", "width"], ["run", "quick", "--force"], []]
)
def test_a_command_that_does_not_exist_is_refused_with_the_usage(arguments, no_start, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: neuronsplit" in capsys.readouterr().err


def test_a_batch_that_is_too_large_is_refused_wherever_it_stands_in_a_study(study, no_start, capsys):
    study.write_text("splits: 2\nepochs: 3\nbatch_size: [32, 5000, 16]")
    assert command("run", study) == 2
    assert capsys.readouterr().err == "neuronsplit: batch_size 5000: allowed are 1 to 1200 on digits\n"


@pytest.mark.parametrize("place", ["results", "results/inner"])
def test_a_folder_that_cannot_be_written_is_named(place, study, no_start, capsys, tmp_path):
    (tmp_path / "results").write_text("a file where the folder should be")
    assert main(["run", str(study), "--folder", str(tmp_path / place)]) == 2
    error = capsys.readouterr().err
    assert re.match(rf"neuronsplit: {tmp_path}/{place}\S* cannot be written \(.*\): allowed are folders", error)
    assert error.count("\n") == 1


def test_an_interrupt_is_said_and_the_study_goes_on_later(study, train_here, monkeypatch, capsys):
    def interrupted(jobs, *_):
        raise KeyboardInterrupt

    going_on = executor.execute_all
    monkeypatch.setattr(executor, "execute_all", interrupted)
    assert command("run", study) == 130
    error = capsys.readouterr().err
    assert error.endswith("neuronsplit: interrupted; the same command goes on with what is missing\n")
    monkeypatch.setattr(executor, "execute_all", going_on)
    assert command("run", study) == 0


def test_help_explains_the_commands(tmp_path):
    """Of python -m neuronsplit, and of the command that the package installs."""
    text = subprocess.check_output([sys.executable, "-m", "neuronsplit", "--help"], text=True, cwd=tmp_path)
    text = " ".join(text.split())  # lines break where the terminal ends
    assert "Run a study" in text and "status" in text and "Train what is missing" in text
    scripts = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["scripts"]
    assert pkgutil.resolve_name(scripts["neuronsplit"]) is main


def test_a_package_away_from_a_checkout_has_its_studies_and_notebooks_and_writes_into_the_present_folder(tmp_path):
    """As pip lays it out: the notebooks are next to the package's modules, and no pyproject.toml is above them."""
    root, site, here = Path(__file__).parents[1], tmp_path / "site", tmp_path / "here"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(root / "neuronsplit", site / "neuronsplit", ignore=ignored)
    shutil.copytree(root / "notebooks", site / "neuronsplit" / "notebooks", ignore=shutil.ignore_patterns("0*", "1*"))
    here.mkdir()
    code = f"""
import sys
sys.path.insert(0, {str(site)!r})
from neuronsplit.locations import NOTEBOOKS, ROOT, STUDIES
from neuronsplit.study.cli import main
print(ROOT, NOTEBOOKS, STUDIES)
for changes in [["quick", "-p", "dataset", "digits"], ["own.yaml"], ["none"]]:
    print(main(["run", *changes, "--dry-run"]), flush=True)
"""
    (here / "own.yaml").write_text("width: 3")
    found = subprocess.run([sys.executable, "-P", "-c", code], cwd=here, capture_output=True, text=True)
    package = site / "neuronsplit"
    lines = found.stdout.splitlines()
    assert lines[0] == f"{here} {package}/notebooks {package}/notebooks/studies", found.stderr
    assert lines[9] == "0 done, 0 running, 0 failed, 8 missing" and lines[11] == lines[15] == "0" and lines[16] == "2"
    assert found.stderr.startswith("neuronsplit: study 'none': allowed are design-digits, ")
    assert found.stderr.count("\n") == 1


def noted_unit(units, policy="random", **noted):
    unit = Batch((Experiment(policy, **TINY),), (0, 1))
    units.mkdir(exist_ok=True)
    progress.note(unit, units, **noted)
    return unit


def test_on_a_terminal_there_is_one_bar_with_experiments_epoch_and_time_left(tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "BAR_SECONDS", 0.02)
    first = noted_unit(tmp_path / "units", fraction=0.5, at="epoch 2 of 3")
    second = Batch((Experiment("no-split", **TINY),), (0, 1))
    with progress.bar([first, second], tmp_path / "units", lambda: "1 of 4 experiments") as end:
        with progress.lock(progress.file_of(first, tmp_path / "units")):
            time.sleep(0.4)
        seen = terminal.getvalue()
        end(first.name)
        end(second.name)
        time.sleep(0.2)
    states = re.split(r"[\r\n]+", seen)
    assert any(re.match(r"1 of 4 experiments, epoch 2 of 3 +\d\d% \|.{20}\| \d\d:\d\d, .* left", s) for s in states)
    percents = [int(number) for number in re.findall(r"(\d+)% \|", terminal.getvalue())]
    share = (5 + first.seconds / 2) / (10 + first.seconds + second.seconds)  # notebooks take 5 seconds to start
    assert abs(percents[len(re.findall(r"% \|", seen)) - 1] - 100 * share) <= 1 and percents[-1] == 100
    assert terminal.getvalue().count("\n") <= 1


def test_in_a_log_file_there_is_a_line_now_and_then(tmp_path, monkeypatch):
    assert progress.LOG_SECONDS >= 30
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.1)
    monkeypatch.setattr(progress, "BAR_SECONDS", 0.02)
    unit, begun = noted_unit(tmp_path / "units", fraction=0.5, at="epoch 2 of 3"), time.monotonic()
    with progress.bar([unit], tmp_path / "units", lambda: "0 of 1 experiments"):
        with progress.lock(progress.file_of(unit, tmp_path / "units")):
            time.sleep(0.55)
    lines = log.getvalue().splitlines()
    assert 1 <= len(lines) <= 1 + (time.monotonic() - begun) / 0.1
    assert log.getvalue().isascii() and "\r" not in log.getvalue()
    percent = f"{100 * (5 + unit.seconds / 2) / (5 + unit.seconds):.0f}%"  # a notebook takes 5 seconds to start
    assert re.match(rf"0 of 1 experiments, epoch 2 of 3 +{percent} \|.{{20}}\| 00:\d\d, \S+ left$", lines[0])


def test_the_first_line_of_a_log_file_comes_with_the_first_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    monkeypatch.setattr(progress, "BAR_SECONDS", 0.02)
    unit = noted_unit(tmp_path / "units")
    with progress.bar([unit], tmp_path / "units", lambda: "0 of 1 experiments"):
        time.sleep(0.2)
        assert log.getvalue() == ""  # no notebook has started
        noted_unit(tmp_path / "units", fraction=0.1, at="epoch 1 of 3")
        with progress.lock(progress.file_of(unit, tmp_path / "units")):
            while not log.getvalue():
                time.sleep(0.02)
            time.sleep(0.2)
    assert log.getvalue().count("\n") == 1 and "epoch 1 of 3" in log.getvalue()


def test_a_short_run_leaves_no_line_in_a_log_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    unit = noted_unit(tmp_path / "units")
    with progress.bar([unit], tmp_path / "units", lambda: "0 of 1 experiments") as end:
        end(unit.name)
    assert log.getvalue() == ""


def test_an_error_while_units_run_ends_the_bar(tmp_path, monkeypatch):
    unit = noted_unit(tmp_path / "units")
    with pytest.raises(KeyError), progress.bar([unit], tmp_path / "units", lambda: ""):
        raise KeyError


@pytest.mark.parametrize(
    "errors, calls, result",
    [
        ([None], 1, None),
        ([RuntimeError("Kernel died before replying to kernel_info"), None], 2, None),
        ([RuntimeError("a\nb")] * 2, 2, "out.ipynb: RuntimeError: a"),
        ([DeadKernelError("Kernel died")] * 2, 2, "out.ipynb: DeadKernelError: Kernel died"),
        ([OSError(28, "No space left on device")], 1, "out.ipynb: OSError: [Errno 28] No space left on device"),
        ([PapermillExecutionError(0, 1, "x", "ValueError", "a\nb", [])], 1, "out.ipynb: ValueError: a"),
    ],
)
def test_a_kernel_that_does_not_start_is_started_once_more(errors, calls, result, monkeypatch):
    left, seen = list(errors), []

    def execute_notebook(*paths, **options):
        seen.append(paths[:2])
        if error := left.pop(0):
            raise error

    monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)
    assert executor.execute(Path("in.ipynb"), Path("out.ipynb"), {}) == result
    assert seen == [("in.ipynb", "out.ipynb")] * calls


def test_notebooks_run_at_once_and_what_has_ended_is_known_at_once(monkeypatch):
    others_are_known, found, waited = threading.Event(), [], []

    def execute(notebook, out, parameters):
        if "waits" in parameters:
            waited.append(others_are_known.wait(60))
        return parameters.get("error")

    monkeypatch.setattr(executor, "execute", execute)
    jobs = [(Path(), Path(), parameters) for parameters in ({"waits": True}, {"error": "broken"}, {}, {}, {})]
    for end in executor.execute_all(jobs, 2):
        found.append(end)
        if len(found) == 4:
            others_are_known.set()
    assert found == [(1, "broken"), (2, None), (3, None), (4, None), (0, None)] and waited == [True]


def test_kernels_leave_nothing_open_and_run_in_the_interpreter_of_the_command(tmp_path):
    psutil = pytest.importorskip("psutil")
    source, process = tmp_path / "in.ipynb", psutil.Process()
    cells = [nbformat.v4.new_code_cell("import os, sys; print(os.getpid(), sys.executable)")]
    metadata = {"kernelspec": {"name": "another", "display_name": "", "language": "julia"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), source)
    opened, kernels = [], set()
    for n in range(4):
        assert executor.execute(source, tmp_path / f"out{n}.ipynb", {}) is None
        found = nbformat.read(tmp_path / f"out{n}.ipynb", as_version=4).cells[0].outputs[0].text.split()
        kernels.add(int(found[0]))
        assert Path(found[1]) == Path(sys.executable)
        opened.append(process.num_fds())
    assert len(kernels) == 4 and os.getpid() not in kernels and opened[-1] <= opened[1]
    assert not kernels & set(psutil.pids())


def test_the_first_of_two_units_that_ends_is_not_waited_for(study, monkeypatch, train_here, capsys):
    """An experiment's line comes when its last seed has been trained, and not at the end of the study."""
    order, give = [], executor.execute_all

    def watched(jobs, *options):
        for one in give(jobs, *options):
            order.append("unit")
            yield one

    monkeypatch.setattr(executor, "execute_all", watched)
    monkeypatch.setattr(run.tqdm, "write", lambda text: order.append(text.split(":")[0]))
    grids = "grids: [{policy: random}, {policy: max-loss, first_seed: 5}]"
    study.write_text(f"splits: 2\nepochs: 3\nwidth: 3\nn_seeds: 1\n{grids}\n")
    assert command("run", study) == 0
    assert sorted(order[1::2]) == ["max-loss", "random"] and order[::2] == ["unit", "unit"]


def test_the_title_of_a_report_is_no_html(tmp_path, train_here):
    file = tmp_path / "<img src=x onerror=alert(1)>.yaml"
    file.write_text("splits: 2\nepochs: 3\nwidth: 3\nn_seeds: 1\n")
    assert command("run", file) == 0
    page = (tmp_path / "results" / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page and not re.search(r"""(src|href)=["']https?:""", page)


def test_a_failure_stands_in_the_table_and_an_experiment_whose_process_died_is_alone(study, train_here, monkeypatch):
    """It may have ended the process of the others, as a crash does."""

    def fail(mlp, blocks):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setitem(POLICIES, "bad", POLICIES["max-loss"]._replace(score=fail))
    study.write_text("policy: [random, max-loss]\nsplits: 2\nepochs: 3\nn_seeds: 2\nwidth: 3\n")
    assert command("run", study) == 0
    folder = study.parent / "results"
    study.write_text(study.read_text().replace("random,", "random, bad,"))
    assert command("run", study) == 1
    made_by = ns.provenance(folder / "table.parquet")
    assert made_by["unfinished"] == ["bad: failed: ZeroDivisionError: on purpose"]
    plan = read_study(str(study)).plan
    (bad,) = [experiment for experiment in plan if experiment.policy == "bad"]
    alone = missing_units(plan, {}, {bad})
    assert {unit.experiments for unit in alone} == {(experiment,) for experiment in plan} and len(alone) == 6


def test_a_report_is_made_again_when_its_notebook_or_the_study_has_changed(study, train_here, monkeypatch, tmp_path):
    reports = []
    monkeypatch.setattr(
        executor, "execute", lambda notebook, out, parameters: reports.append(notebook.name) or "no report"
    )
    assert command("run", study) == 1 and command("run", study) == 1
    assert reports == ["report.ipynb"] * 2  # one that failed is made again
    monkeypatch.setattr(executor, "execute", lambda notebook, *_: reports.append(notebook.name))
    monkeypatch.setattr(run, "page_of", lambda notebook, title: title)
    own = tmp_path / "own.ipynb"
    for text in ("first", "first", "second"):
        own.write_text(text)
        assert command("run", study, "-p", "report", str(own)) == 0
    assert reports[2:] == ["own.ipynb"] * 2


@pytest.mark.parametrize(
    "name, options",
    [("run", {"--workers", "--dry-run", "--scheduler"}), ("status", set()),
     ("tune", {"--workers", "--dry-run", "--scheduler", "--share"})],
)  # fmt: skip
def test_a_command_has_its_own_options_alone(name, options, study, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")  # so that no name is broken at its hyphen
    with pytest.raises(SystemExit):
        main([name, "--help"])
    said = capsys.readouterr().out
    assert set(re.findall(r"--[a-z-]+", said)) == {"--help", "--folder", *options} and "-p K VALUE" in said
    assert cli.COMMANDS[name] in " ".join(said.split())
    for option in {"--dry-run", "--share"} - options:
        with pytest.raises(SystemExit, match="2"):
            main([name, str(study), option])
        assert f"unrecognized arguments: {option}\n" in capsys.readouterr().err


def test_tune_says_which_file_it_writes_and_what_its_configurations_are(study, no_start, capsys):
    assert command("tune", study, "--dry-run") == 0
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first == f"will write: {study.parent}/results/mine-tuned.yaml" and last.startswith("would run: ")
    rates = {float(rate) for rate in re.findall(r" · learning rate (\S+)", "\n".join(lines))}
    assert len(rates) == 16 and 0.05 in rates and not any(re.search(r"· [\d.]+( ·|:)", line) for line in lines)


def test_the_minutes_of_a_dry_run_are_what_the_makefile_adds_up(study, no_start, capsys):
    assert command("run", study, "--dry-run") == 0
    line = capsys.readouterr().out.splitlines()[-1]
    (field,) = re.findall(r"minutes \+= \$\$(\d+)", (ROOT / "Makefile").read_text())
    assert line.split()[int(field) - 1 :][1] == "minutes" and float(line.split()[int(field) - 1]) >= 0
