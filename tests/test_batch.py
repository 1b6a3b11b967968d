import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future
from dataclasses import asdict

import nbformat
import pandas as pd
import psutil
import pytest

from neuronsplit.analysis.tables import metadata_file, read_table
from neuronsplit.growing.which import POLICIES
from neuronsplit.study import grid as studies
from neuronsplit.study import kernel, status, store
from neuronsplit.study import run as batch
from neuronsplit.study.cli import changes_and_folder, main, parser
from neuronsplit.study.experiment import Experiment, run_experiment
from neuronsplit.study.store import obtain, part_file

STUDIES = sorted(file.stem for file in studies.STUDIES.glob("*.yaml"))
EIGHT = ["no-split", "random", "max-loss", "min-loss", "loss-probs", "max-fire", "min-fire", "half-fire"]
TINY = {"dataset": "digits", "splits": 2, "epochs": 3, "n_seeds": 2, "width": 3, "learning_rate": 0.05}


def arguments(study="quick", **changes):
    """The command line that runs a study with parameters changed."""
    parts = [["-p", name, str(value)] for name, value in changes.items()]
    return ["run", study, *sum(parts, [])]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "RUNS", tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def no_start(monkeypatch):
    """Nothing may be started."""
    monkeypatch.setattr(batch, "work_through", lambda *_: pytest.fail("an experiment was started"))


@pytest.fixture
def refusal(runs, no_start, tmp_path, monkeypatch, capsys):
    """What a study of such a text is refused with, before anything is started."""

    def refused(text):
        monkeypatch.setattr(studies, "STUDIES", tmp_path)
        (tmp_path / "mine.yaml").write_text(text)
        assert main(arguments("mine")) == 2
        return capsys.readouterr().err

    return refused


def test_a_study_from_start_to_report(runs, capsys):
    """Eight experiments and the comparison as real papermill processes; then again, with nothing left to do."""
    assert main(arguments(**TINY)) == 0
    printed = capsys.readouterr().out
    assert "could not" not in printed
    (folder,) = runs.iterdir()
    for name in ("index.html", "report.html", "figures", "table.csv"):
        assert f" {folder}/{name}\n" in printed and (folder / name).exists()
    table, metadata = read_table(folder / "table.csv")
    assert table.policy.unique().tolist() == EIGHT
    assert metadata["study"] == "quick" and metadata["parameters"]["width"] == 3
    expected = run_experiment(Experiment("max-loss", **TINY))
    rows = table[table.policy == "max-loss"].reset_index(drop=True)
    pd.testing.assert_series_equal(rows.split_neuron, expected.split_neuron)
    pd.testing.assert_series_equal(rows.test_loss, expected.test_loss, check_dtype=False, rtol=1e-5)
    report = (folder / "report.html").read_text()
    assert "Family trees" in report and report.count("data:image/png") >= 9
    assert {"differences.png", "curves.png", "family-trees.png"} <= {f.name for f in (folder / "figures").iterdir()}
    for notebook in folder.glob("*.ipynb"):
        assert not failed_cells(notebook)

    started = time.time()
    assert main(arguments(**TINY)) == 0
    assert not [f for f in folder.glob("*-*.csv") if f.stat().st_mtime > started]


def failed_cells(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    return [c for c in cells if any(o.output_type == "error" for o in c.get("outputs", []))]


def test_divergence_is_reported(runs, capsys):
    assert main(arguments(**TINY | {"learning_rate": "1e30"})) == 0
    (report,) = runs.glob("*/report.html")
    assert "seeds that diverged: 16 of 16" in report.read_text()


def test_one_policy_alone_is_reported_by_its_own_notebook(runs):
    assert main(arguments(**TINY, policy="max-fire")) == 0
    (folder,) = runs.iterdir()
    assert "Which neurons were split" in (folder / "report.html").read_text()


def test_an_experiment_that_fails_is_named_with_its_notebook(runs, tmp_path, monkeypatch, capsys):
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    broken = nbformat.read(batch.NOTEBOOKS / "03_experiment.ipynb", as_version=4)
    broken.cells[-1].source = "raise ValueError('broken on purpose')"
    nbformat.write(broken, notebooks / "03_experiment.ipynb")
    monkeypatch.setattr(batch, "NOTEBOOKS", notebooks)
    assert main(arguments(**TINY, policy="random")) == 1
    error = capsys.readouterr().err
    (notebook,) = runs.glob("*/random-*.ipynb")
    assert str(notebook) in error and "ValueError: broken on purpose" in error
    assert failed_cells(notebook)


def test_a_number_written_as_yaml_takes_for_text_is_a_number(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "STUDIES", tmp_path)
    (tmp_path / "mine.yaml").write_text("dataset: digits\nlearning_rate: 1e-3\nwidth: 4\n")
    (first, *_) = studies.experiments(studies.read_study("mine"))
    assert first.learning_rate == 0.001 and first.width == 4


def test_every_committed_study_is_runnable():
    files = sorted(studies.STUDIES.glob("*.yaml"))
    assert len(files) >= 2
    for file in files:
        parameters = studies.read_study(file.stem)
        parameters.pop("report", None)
        assert studies.experiments(parameters)
    assert [e.policy for e in studies.experiments(studies.read_study("quick"))] == EIGHT


def test_lists_are_every_combination_once():
    parameters = {"policy": ["no-split", "random", "max-loss"], "growth": ["scaled", "even"], "width": 4}
    found = [(e.policy, e.growth) for e in studies.experiments(parameters)]
    pairs = [("random", "scaled"), ("random", "even"), ("max-loss", "scaled"), ("max-loss", "even")]
    assert found == [("no-split", "scaled"), *pairs]  # a control does not grow


def test_each_is_several_studies_in_one_and_no_experiment_twice():
    blocks = [{"policy": ["no-split", "random"]}, {"growth": ["scaled", "even"]}, {"seed": 5, "width": 3}]
    found = studies.experiments({"policy": "random", "width": 4, "each": blocks})
    assert [(e.policy, e.growth, e.seed, e.width) for e in found] == [
        ("no-split", "scaled", 0, 4), ("random", "scaled", 0, 4), ("random", "even", 0, 4), ("random", "scaled", 5, 3),
    ]  # fmt: skip


def test_of_experiments_that_would_train_the_same_the_first_is_kept():
    """Controls that differ in growth and schedule alone, growths without a parent that differ in policy alone."""
    parameters = {"policy": ["stay-narrow", "max-fire", "random"], "growth": ["even", "gradmax"]}
    found = [(e.policy, e.growth) for e in studies.experiments(parameters)]
    assert found == [("stay-narrow", "even"), ("max-fire", "even"), ("max-fire", "gradmax"), ("random", "even")]
    whole, real = studies.experiments({"each": [{"learning_rate": 1}, {"learning_rate": 1.0}, {"learning_rate": 2}]})
    assert (whole.learning_rate, real.learning_rate) == (1, 2)


def test_a_name_that_looks_like_a_number_stays_a_name(tmp_path, monkeypatch):
    names = ["nan", "1", "1e-3", "None"]
    for name in names:
        monkeypatch.setitem(POLICIES, name, POLICIES["random"])
    (tmp_path / "mine.yaml").write_text("policy: [nan, '1', '1e-3', None]\nlearning_rate: 1e-3\n")
    planned = studies.experiments(studies.read_study(str(tmp_path / "mine.yaml")))
    assert [(e.policy, e.learning_rate) for e in planned] == [(name, 0.001) for name in names]
    options = parser().parse_args(["status", "quick", "-p", "policy", "1", "-p", "width", "1"])
    assert changes_and_folder(options)[0] == {"policy": "1", "width": 1}


def test_zip_goes_side_by_side():
    found = studies.experiments({"growth": ["scaled", "even"], "zip": {"width": [3, 4], "seed": [0, 7]}})
    assert [(e.growth, e.width, e.seed) for e in found] == [
        ("scaled", 3, 0), ("even", 3, 0), ("scaled", 4, 7), ("even", 4, 7),
    ]  # fmt: skip


class Here(Executor):
    """Runs what it is given at once, in this process."""

    def submit(self, function, *arguments):
        (future := Future()).set_result(function(*arguments))
        return future


def test_what_trains_at_once_is_decided_by_the_plan_alone(tmp_path, monkeypatch):
    """Not by what is finished: else a result would depend, in its rounding, on what was there before."""
    planned = studies.experiments(studies.read_study("quick") | TINY)
    obtain(planned[2], tmp_path)
    trained, finished = [], []
    monkeypatch.setattr(batch, "learn", lambda group, *_: trained.append(group))
    monkeypatch.setattr(batch, "finish", lambda experiment, *_: finished.append(experiment))
    assert batch.work_through(planned, tmp_path, Here(), 2, force=False) == []
    met = [([e.policy for e in group], {(e.seed, e.n_seeds) for e in group}) for group in trained]
    assert met == [(EIGHT[1:], {(0, 1)}), (EIGHT[1:], {(1, 1)}), (EIGHT[:1], {(0, 1)}), (EIGHT[:1], {(1, 1)})]
    assert sorted(finished, key=planned.index) == [e for e in planned if e != planned[2]]


def test_an_experiment_joined_from_pieces_is_the_one_trained_whole(tmp_path):
    planned = [Experiment("random", **TINY | {"n_seeds": 5, "width": 10}), Experiment("no-split", **TINY)]
    groups = store.pieces(planned)
    assert [[(p.policy, p.seed, p.n_seeds) for p in group.values()] for group in groups] == [
        [("random", 0, 3)], [("random", 3, 2)], [("no-split", 0, 1)], [("no-split", 1, 1)],
    ]  # fmt: skip
    for group in groups:
        store.train(list(group.values()), tmp_path / store.PIECES)
    for whole, its_pieces in status.cut(planned).items():
        store.join(whole, its_pieces, tmp_path)
        pd.testing.assert_frame_equal(
            obtain(whole, tmp_path), obtain(whole, tmp_path / "whole"), rtol=1e-4, check_exact=False
        )


def test_a_large_group_is_cut_so_that_its_networks_fit():
    many = [Experiment(policy, **TINY | {"n_seeds": 10}) for policy in EIGHT[1:]]
    assert [[p.n_seeds for p in group.values()] for group in store.pieces(many)] == [[5] * 7, [5] * 7]
    several = [Experiment(seed=100 * n, **TINY) for n in range(8)]
    assert [list(group.values()) for group in store.pieces(several)] == [[e] for e in several]


def test_that_experiments_could_not_train_together_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(batch, "train", lambda *_: 1 / 0)
    monkeypatch.setattr(batch, "papermill", lambda *_: None)
    batch.work_through([Experiment(**TINY)], tmp_path, Here(), 1, force=False)
    assert "each is trained by itself, because together they could not be: ZeroDivisionError" in capsys.readouterr().out


def test_a_kernel_serves_many_notebooks_and_leaves_nothing_open_or_named(tmp_path):
    source, process = tmp_path / "in.ipynb", psutil.Process()
    cells = [nbformat.v4.new_code_cell("assert 'left' not in globals(); left = 1; import os; print(os.getpid())")]
    metadata = {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), source)
    opened, kernels = [], set()
    for n in range(5):
        assert batch.papermill(source, tmp_path / f"out{n}.ipynb", {}) is None
        kernels.add(nbformat.read(tmp_path / f"out{n}.ipynb", as_version=4).cells[0].outputs[0].text)
        opened.append(process.num_fds())
    assert len(kernels) == 1 and opened[-1] <= opened[1]


def test_what_is_imported_ahead_into_a_kernel_exists():
    subprocess.run([sys.executable, "-c", kernel.WARM], check=True)


def test_status_and_dry_run_say_how_far_a_study_is(runs, capsys):
    planned = studies.experiments(studies.read_study("quick") | TINY)
    folder = batch.results("quick", TINY)
    obtain(planned[0], folder)
    (folder / store.PIECES).mkdir()
    for piece in status.cut(planned)[planned[1]]:
        part_file(piece, folder / store.PIECES, os.getpid()).write_text("header\nrow\n")
    gone = subprocess.Popen(["true"])
    gone.wait()
    part_file(planned[2], folder, gone.pid).write_text("header\n")
    (folder / f"{planned[2].name}.another-machine.1.part").write_text("header\n")
    broken = nbformat.v4.new_notebook()
    broken.cells = [nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("error", ename="E", evalue="broken")])]
    nbformat.write(broken, folder / f"{planned[3].name}.ipynb")
    obtain(planned[4], folder)
    (folder / f"{planned[4].name}.csv").write_text("damaged")
    before = sorted(folder.iterdir())
    for command in (["status", *arguments(**TINY)[1:]], [*arguments(**TINY), "--dry-run"]):
        assert main(command) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"{planned[0].name}: done"
        assert lines[1] == f"{planned[1].name}: running, epoch 1 of 3"
        assert lines[2] == f"{planned[2].name}: missing"
        assert lines[3] == f"{planned[3].name}: failed: E: broken"
        assert lines[4].startswith(f"{planned[4].name}: damaged: ") and "(wrong checksum)" in lines[4]
        assert lines[-1] == "1 done, 1 running, 1 failed, 1 damaged, 4 missing"
    assert sorted(folder.iterdir()) == before


def test_force_trains_also_what_is_finished(runs):
    changes = TINY | {"policy": "random"}
    assert main(arguments(**changes)) == 0
    folder = batch.results("quick", changes)
    files = [*folder.glob("random-*.csv"), *(folder / store.PIECES).glob("*.csv")]
    before = {file: (file.read_text(), file.stat().st_mtime_ns) for file in files}
    assert main([*arguments(**changes), "--force"]) == 0
    assert len(files) == 3
    for file, (text, written) in before.items():
        assert file.read_text() == text and file.stat().st_mtime_ns > written


def test_force_that_is_cut_short_leaves_nothing_that_counts_as_finished(runs, monkeypatch):
    changes = TINY | {"policy": "random"}
    assert main(arguments(**changes)) == 0
    monkeypatch.setattr(batch, "as_they_end", lambda *_: iter(()))
    planned = studies.experiments(studies.read_study("quick") | changes)
    folder = batch.results("quick", changes)
    batch.work_through(planned, folder, None, 1, force=True)
    assert list(status.states(planned, folder).values()) == ["missing"]


def test_the_full_study_has_the_size_of_the_original():
    (control, *_), parameters = studies.experiments(studies.read_study("full")), studies.read_study("full")
    assert parameters["learning_rate"] == 0.001 and parameters["batch_size"] == 32 and parameters["n_seeds"] == 10
    assert (parameters["width"], parameters["splits"], parameters["epochs"]) == (10, 50, 100)
    assert control.policy == "no-split" and control.dataset == "fashion-mnist"


@pytest.mark.parametrize(
    "command, message",
    [
        (arguments("fast"), f"study 'fast': allowed are {', '.join(STUDIES)}"),
        (arguments("../full"), "study '../full': allowed are"),
        (arguments(policy="max_loss"), "policy 'max_loss': allowed are no-split, stay-narrow, random, max-loss"),
        (arguments(dataset="mnist"), "dataset 'mnist': allowed are fashion-mnist, fashion-mnist-2021, digits"),
        (arguments(learning_rat=0.1), "parameter 'learning_rat': allowed are policy, dataset, growth"),
        (
            arguments("replay", seed=100),
            "parameter 'seed' is set in the study's own `each` or `zip`: change it in the file",
        ),
        (arguments(width=0), "width 0: allowed are whole numbers from 1"),
        (arguments(n_seeds=-1), "n_seeds -1: allowed are whole numbers from 1"),
        (arguments(splits=1.5), "splits 1.5: allowed are whole numbers from 0"),
        (arguments(learning_rate="nan"), "learning_rate nan: allowed are numbers above 0"),
        (arguments(learning_rate="fast"), "learning_rate 'fast': allowed are numbers above 0"),
        (arguments(dataset="digits", batch_size=5000), "batch_size 5000: allowed are 1 to 1200 on digits"),
        ([*arguments(), "--workers", "0"], "workers 0: allowed are whole numbers from 1"),
        (["publish", "full", "x"], "study 'full' has not been run to its end: make run STUDY=full"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_nothing_is_started(command, message, runs, no_start, capsys):
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"neuronsplit: {message}") and error.count("\n") == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("width: [1", "is not YAML: while parsing"),
        ("- width", "holds list: allowed are lines of 'parameter: value'"),
        ("", "holds NoneType: allowed are lines"),
        ("width: !!python/object/apply:os.system ['true']", "is not YAML: could not determine a constructor"),
    ],
)
def test_a_bad_study_file_is_named(text, message, refusal):
    error = refusal(text)
    assert f"mine.yaml {message}" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("width: []", "width []: allowed are one value or more"),
        ("growth: [scaled, halved]", "growth 'halved': allowed are scaled"),
        ("report: 04_comparisons\nwidth: [3, 4]", "report '04_comparisons': allowed are 00_start_here, 01_split"),
        ("each: []", "each []: allowed are lists of parameters"),
        ("each: [random, even]", "each ['random', 'even']: allowed are lists of parameters"),
        ("each: [{widht: 3}]", "parameter 'widht': allowed are policy"),
        ("learning_rate: [1e-3, fast]", "learning_rate 'fast': allowed are numbers above 0"),
        ("policy: [random, random]", "policy ['random', 'random']: allowed are different values"),
        ("policy: {which: random}", "policy {'which': 'random'}: allowed are no-split"),
        ("width: [[3, 4]]", "width [3, 4]: allowed are whole numbers from 1"),
        ("width: true", "width True: allowed are whole numbers from 1"),
        ("width: 1000000000", "width 1000000000: allowed are whole numbers from 1 to 100000"),
        ("n_seeds: 1e9", "n_seeds 1000000000.0: allowed are whole numbers from 1 to 100000"),
        ("splits: -1", "splits -1: allowed are whole numbers from 0"),
        ("seed: none", "seed 'none': allowed are whole numbers from 0"),
        ("learning_rate: .inf", "learning_rate inf: allowed are numbers above 0"),
        ("learning_rate: 0", "learning_rate 0: allowed are numbers above 0"),
        ("learning_rate: '__import__(\"os\")'", "learning_rate '__import__(\"os\")': allowed are numbers above 0"),
        ("splits: 0\nepochs: 0", "epochs 0: allowed are whole numbers from 1 to 100000"),
        (
            "schedule: 5-per-5-epochs\nsplits: 12\nepochs: 12",
            "schedule '5-per-5-epochs' makes 10 of 12 splits in 12 epochs",
        ),
        (f"seed: {[*range(200)]}\nwidth: {[*range(1, 200)]}", "39800 experiments: allowed are 10000 in a study"),
        ("zip: [1]", "zip [1]: allowed are parameters with lists"),
        ("zip: {width: 3}", "zip {'width': 3}: allowed are parameters with lists"),
        ("zip: {width: [3, 4], seed: [1]}", "zip {'width': [3, 4], 'seed': [1]}: allowed are lists of one length"),
        ("folder: /tmp", "parameter 'folder': allowed are policy"),
        ("kind: branch", "kind 'branch': allowed are experiment, all-splits"),
        ("kind: [all-splits]", "kind ['all-splits']: allowed are experiment, all-splits"),
        ("kind: all-splits\npolicy: random", "parameter 'policy': allowed are dataset, growth"),
        (
            "kind: all-splits\nprior_splits: 9\nwidth: 9",
            "prior_splits 9: allowed are at most 5, one per epoch, of width 9 and epochs_before 5",
        ),
    ],
)
def test_a_bad_list_is_named(text, message, refusal):
    error = refusal(text)
    assert error.startswith(f"neuronsplit: {message}") and error.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_named(runs, no_start, capsys):
    runs.write_text("a file where the folder should be")
    assert main(arguments(**TINY)) == 2
    assert "cannot be written (" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "foreign", "no table"])
def test_what_is_damaged_or_foreign_is_set_aside_and_trained_anew(damage, runs, capsys):
    changes = TINY | {"policy": "random"}
    (experiment,) = studies.experiments(studies.read_study("quick") | changes)
    folder = batch.results("quick", changes)
    whole = obtain(experiment, folder)
    file = folder / f"{experiment.name}.csv"
    kept = {"cut": file.read_text()[:100], "foreign": file.read_text()}.get(damage)
    if damage == "cut":
        file.write_text(kept)
    elif damage == "foreign":
        other = json.loads(metadata_file(file).read_text())
        metadata_file(file).write_text(json.dumps(other | {"experiment": asdict(Experiment())}))
    else:
        file.unlink()
    assert main(arguments(**changes)) == 0
    assert f"set aside as {folder}/{experiment.name}.aside1.*" in capsys.readouterr().err
    assert kept is None or (folder / f"{experiment.name}.aside1.csv").read_text() == kept
    assert (folder / f"{experiment.name}.aside1.json").exists()
    pd.testing.assert_frame_equal(obtain(experiment, folder), whole)


def test_publish_packs_a_table_with_what_produced_it(runs, tmp_path, monkeypatch):
    folder, target = runs / "tiny", tmp_path / "data"
    target.mkdir()
    experiment = Experiment(**TINY)
    monkeypatch.setattr(batch, "PUBLISHED", target)
    obtain(experiment, folder)
    batch.collect([experiment], folder, {"study": "tiny"})
    assert main(["publish", "tiny", "digits"]) == 0
    table, metadata = read_table(target / "digits.csv.gz")
    assert len(table) == 6 and metadata["study"] == "tiny"


def test_a_worker_that_is_killed_is_an_error_and_the_rest_can_be_run_again(runs, monkeypatch, capsys):
    monkeypatch.setattr(batch, "learn", kill)
    assert main(arguments(**TINY)) == 1
    assert "a process was killed while these ran: half-fire-" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(batch, "RUNS", runs)
    assert main(arguments(**TINY)) == 0


def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)


def test_progress_is_read_off_the_table_as_it_grows(tmp_path):
    experiment = Experiment(**TINY)
    (first, second), folder = status.cut([experiment])[experiment], tmp_path / store.PIECES
    assert status.epochs_done({experiment: [first, second]}, tmp_path) == {experiment: 0}
    folder.mkdir()
    for piece in (first, second):
        part_file(piece, folder, 123).write_text("header\n" + "row\n" * 2)
    assert status.epochs_done({experiment: [first, second]}, tmp_path) == {experiment: 2}
    obtain(first, folder)
    assert status.epochs_done({experiment: [first, second]}, tmp_path) == {experiment: 2}  # 3 and 2
    store.train([second], folder)
    assert status.epochs_done({experiment: [first, second]}, tmp_path) == {experiment: experiment.epochs}


def test_help_explains_the_commands():
    text = subprocess.check_output([sys.executable, "-m", "neuronsplit", "--help"], text=True)
    assert "run a study" in text and "publish" in text


def test_a_study_of_several_ways_and_settings_is_reported_and_compared_from_a_zip(tmp_path, capsys):
    text = """
each:
  - policy: [no-split, random, max-loss]
  - {growth: [even, zero-outgoing]}
  - {policy: [no-split, random], width: 5, epochs: 5}
dataset: digits
width: 4
splits: 3
epochs: 4
n_seeds: 2
"""
    (tmp_path / "mine.yaml").write_text(text)
    assert main(["run", str(tmp_path / "mine.yaml"), "--folder", str(tmp_path / "a" / "mine")]) == 0
    shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "a")
    for setting, said in enumerate(("width 4, epochs 4", "width 5, epochs 5")):
        out = tmp_path / f"{setting}.ipynb"
        where = {"table": str(tmp_path / "all.zip"), "setting": setting}
        assert batch.papermill(batch.NOTEBOOKS / "04_comparison.ipynb", out, where) is None
        assert said in out.read_text() and f"this is {setting}" in out.read_text()
