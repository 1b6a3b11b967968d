"""Studies from start to report by real notebooks, in the environments in which that has failed before."""

import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import fields

import nbformat
import pytest
from sampling import one_in
from test_extensions import MINE, STUDY

import neuronsplit as ns
from neuronsplit.experiments.exhaustive_splits import ExhaustiveSplits
from neuronsplit.experiments.experiment import Experiment
from neuronsplit.growing.which import POLICIES
from neuronsplit.locations import NOTEBOOKS
from neuronsplit.names import RESULTS_VERSION
from neuronsplit.study import batches, grid
from neuronsplit.study.cli import main
from neuronsplit.study.executor import execute

AWKWARD = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "MPLBACKEND": "svg"}
NAMES = ["no-split", "random", "NA", "None", "nan", "größe"]


def start(folder, study, results, *options, **environment):
    """Run a study as a user does; return the exit code, and what was printed."""
    words = [sys.executable, "-m", "neuronsplit", "run", study, "--folder", str(folder / results), *options]
    found = subprocess.run(words, cwd=folder, env=os.environ | environment, capture_output=True)
    return found.returncode, found.stdout.decode(), found.stderr.decode()


def executed(folder):
    """Executed notebooks by name: their outputs of all cells."""
    notebooks = {file: nbformat.read(file, as_version=4) for file in sorted(folder.rglob("*.ipynb"))}
    return {file: [o for c in nb.cells for o in c.get("outputs", [])] for file, nb in notebooks.items()}


def written(folder):
    return {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a study that ran where nearly everything is awkward, and what the run printed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "my").mkdir()
    (folder / "my" / "own.py").write_text(MINE, encoding="utf-8")
    (folder / "mine.yml").write_bytes(b"\xef\xbb\xbf" + STUDY.encode().replace(b"\n", b"\r\n"))
    kernel = folder / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "x", "language": "python"}))
    environment = AWKWARD | {"JUPYTER_PATH": str(folder / "jupyter")}
    return folder, start(folder, "mine.yml", "r {run} [x]", "--workers", "2", **environment)


def test_a_study_runs_to_its_report_whatever_the_environment_is(finished):
    folder, (code, out, err) = finished
    assert code == 0, err
    assert "Traceback" not in err and "failed" not in err and "left alone" not in err
    lines = out.splitlines()
    assert lines[:2] == ["data: stripes, 96 training images", "experiments: 0 of 6 are finished"]
    assert [line.split(":")[0] for line in lines[-3:]] == ["report", "table", "figures"]
    for name in ("NA", "None", "nan"):
        assert [line for line in lines if line.startswith(f"{name}: test accuracy 0.") and "mean of 2 seeds" in line]


def test_policies_come_back_from_a_real_study_as_text(finished):
    results = finished[0] / "r {run} [x]"
    table, made_by = ns.read_table(results / "table.parquet"), ns.provenance(results / "table.parquet")
    assert table.policy.unique().tolist() == NAMES and made_by["unfinished"] == []
    assert (set(table.growth), set(table.schedule), set(table.dataset)) == ({"thirds"}, {"every-other"}, {"stripes"})
    for name in NAMES[2:]:
        rows = table[table.policy == name].sort_values(["seed", "epoch"])
        assert rows.split_neuron.fillna("").tolist() == ["", "2", "", "3", ""] * 2 and rows.hidden.max() == 5
    assert ns.read_table(results).groupby("policy").size().to_dict() == dict.fromkeys(NAMES, 10)


def test_every_unit_is_a_notebook_and_one_file_that_says_what_produced_it(finished):
    units = finished[0] / "r {run} [x]" / "units"
    tables = sorted(units.glob("[!.]*.parquet"))
    assert [file.stem for file in tables] == sorted(file.stem for file in units.glob("*.ipynb")) and len(tables) == 2
    for file in tables:
        made_by = ns.provenance(file)
        assert sorted(e["policy"] for e in made_by["experiments"]) == sorted(NAMES) and len(made_by["seeds"]) == 1
        assert made_by["results"] == RESULTS_VERSION and made_by["machine"] and made_by["versions"]["python"]
    left = {file.suffix for file in units.iterdir() if file.name.startswith(".")}
    assert left <= {".lock"}  # and no progress, and no part of a file


def test_executed_notebooks_have_png_figures_and_no_errors(finished):
    notebooks = executed(finished[0] / "r {run} [x]")
    assert len(notebooks) == 3
    for outputs in notebooks.values():
        kinds = [kind for output in outputs for kind in output.get("data", {})]
        assert "image/png" in kinds and not {"image/svg+xml", "application/pdf"} & set(kinds)
        assert not [o for o in outputs if o.output_type == "error"]


def test_the_report_is_a_page_of_this_study_that_needs_no_net(finished):
    results = finished[0] / "r {run} [x]"
    page = (results / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") >= 4 and "<title>mine</title>" in page
    assert all(name in page for name in NAMES)
    assert not re.search("""<(script|link|img|iframe)[^>]*(src|href)=["']?http""", page)
    assert {file.suffix for file in (results / "figures").iterdir()} == {".png"}


def test_the_same_command_again_says_that_all_is_finished(finished):
    """Within ten seconds of computing, though the environment and the present folder are others."""
    folder, _ = finished
    before, used = written(folder), resource.getrusage(resource.RUSAGE_CHILDREN)
    code, out, err = start(folder / "my", "../mine.yml", folder / "r {run} [x]")
    used = [getattr(resource.getrusage(resource.RUSAGE_CHILDREN), name) - getattr(used, name)
            for name in ("ru_utime", "ru_stime")]  # fmt: skip
    assert (code, err) == (0, "") and sum(used) < 10
    assert "experiments: 6 of 6 are finished\nreport: it is there, and the table is the same\n" in out
    assert out.splitlines()[-2] == f"table:   {folder}/r {{run}} [x]/table.parquet"
    assert written(folder) == before


FAILING = """
import os
from neuronsplit.growing.which import POLICIES, Policy, argmax

def kill(mlp, blocks):
    os.kill(os.getpid(), 9)

def bad(mlp, blocks):
    1 / 0

POLICIES["kill"] = Policy(kill, argmax)
POLICIES["bad"] = Policy(bad, argmax)
"""
FAILING_STUDY = """
extensions: own.py
report: own.ipynb
splits: 1
epochs: 2
width: 3
n_seeds: 1
grids:
  - policy: [random, bad]
  - {policy: kill, first_seed: 10}
"""
CELLS = [
    "table = figures = title = ''",
    "from pathlib import Path",
    "print(title, figures, Path(table).stat().st_size)",
]


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A study of which one policy raises and another kills its process, with a report of the user's own."""
    folder = tmp_path_factory.mktemp("failed")
    (folder / "own.py").write_text(FAILING)
    (folder / "mine.yaml").write_text(FAILING_STUDY)
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    cells[0].metadata["tags"] = ["parameters"]
    metadata = {"kernelspec": {"name": "another", "display_name": "", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / "own.ipynb")
    return folder, start(folder, "mine.yaml", "größe {run} – 大", "--workers", "1")


def test_a_process_that_is_killed_loses_its_unit_only(failed, monkeypatch):
    folder, (code, out, err) = failed
    for name in ("kill", "bad"):  # which own.py registers here too, when the study is read
        monkeypatch.setitem(POLICIES, name, POLICIES["random"])
    units = folder / "größe {run} – 大" / "units"
    lines = [line for line in err.splitlines() if line.startswith("neuronsplit: failed: ")]
    plan = grid.read_study(str(folder / "mine.yaml")).plan
    _, killed = (units / f"{unit.name}.ipynb" for unit in batches.cut_into_units(plan))
    assert code == 1 and sorted(lines) == [
        "neuronsplit: failed: bad: ZeroDivisionError: division by zero at own.py:9",
        f"neuronsplit: failed: kill: {killed}: DeadKernelError: Kernel died",
    ]
    assert "Traceback" not in err and "random: test accuracy 0." in out
    assert set(ns.read_table(folder / "größe {run} – 大" / "table.parquet").policy) == {"random"}
    assert ns.provenance(folder / "größe {run} – 大" / "table.parquet")["unfinished"] == [
        "bad: failed: ZeroDivisionError: division by zero at own.py:9",
        f"kill: failed: {killed}: DeadKernelError: Kernel died",
    ]  # fmt: skip


def test_status_says_which_failed_and_why(failed, monkeypatch, capsys):
    for name in ("kill", "bad"):  # so that what the file registers is taken out again
        monkeypatch.setitem(POLICIES, name, POLICIES["random"])
    folder, _ = failed
    before = written(folder)
    assert main(["status", str(folder / "mine.yaml"), "--folder", str(folder / "größe {run} – 大")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["random: done", "bad: failed: ZeroDivisionError: division by zero at own.py:9"]
    assert lines[2].startswith("kill: failed: ") and lines[2].endswith("DeadKernelError: Kernel died")
    assert lines[3:] == ["1 done, 0 running, 2 failed, 0 missing"] and written(folder).keys() == before.keys()


def test_a_report_of_ones_own_is_given_the_table(failed):
    folder, (_, out, _) = failed
    results = folder / "größe {run} – 大"
    (output,) = executed(results)[results / "report.ipynb"]
    assert output.text == f"mine {results}/figures/ {(results / 'table.parquet').stat().st_size}\n"
    assert f"report:  {results}/report.html\n" in out and "mine" in (results / "report.html").read_text()


@pytest.mark.long
def test_a_study_of_all_splits_is_trained_and_reported_by_its_own_notebook(tmp_path):
    (tmp_path / "mine.yaml").write_text("type: all-splits\nn_seeds: 1\nepochs_before: 1\nwidth: 3\n")
    code, out, err = start(tmp_path, "mine.yaml", "results", "--workers", "1")
    assert code == 0, err
    table = ns.read_table(tmp_path / "results" / "table.parquet")
    assert set(table.epochs_before) == {1} and ns.provenance(tmp_path / "results" / "table.parquet")["study"] == "mine"
    notebooks = executed(tmp_path / "results")
    assert len(notebooks) == 2 and all(
        [o for o in outputs if "image/png" in o.get("data", {})] for outputs in notebooks.values()
    )
    assert (tmp_path / "results" / "report.html").read_text(encoding="utf-8").count("data:image/png") >= 1


@pytest.mark.long
def test_the_experiment_notebook_by_hand_is_what_a_study_runs(tmp_path, capsys):
    """By papermill's own command, with fields as parameters; then the study finds that nothing is missing."""
    words = ["-p", "policy", "max-loss", "-p", "splits", "2", "-p", "epochs", "3", "-p", "learning_rate", "0.1"]
    words += ["-y", "{seeds: [3, 4]}", "-p", "folder", str(tmp_path / "results")]
    command = [sys.executable, "-m", "papermill", str(NOTEBOOKS / "03_experiment.ipynb"), str(tmp_path / "out.ipynb")]
    subprocess.run([*command, *words], check=True, capture_output=True, cwd=tmp_path)
    (outputs,) = executed(tmp_path).values()
    assert [o for o in outputs if "image/png" in o.get("data", {})]
    text = "policy: max-loss\nsplits: 2\nepochs: 3\nlearning_rate: 0.1\nfirst_seed: 3\nn_seeds: 2"
    (tmp_path / "mine.yaml").write_text(text)
    assert main(["status", str(tmp_path / "mine.yaml"), "--folder", str(tmp_path / "results")]) == 0
    assert capsys.readouterr().out == "max-loss: done\n1 done, 0 running, 0 failed, 0 missing\n"


@pytest.mark.parametrize("kind", one_in(2, [Experiment, ExhaustiveSplits]))
def test_an_unknown_field_of_an_experiment_is_one_line_that_names_it(kind, tmp_path):
    parameters = {"experiments": [{"width": 3}, {"widht": 3}], "seeds": [0], "folder": str(tmp_path)}
    failure = execute(NOTEBOOKS / f"{kind.notebook}.ipynb", tmp_path / "out.ipynb", parameters)
    allowed = sorted(field.name for field in fields(kind))
    assert re.search(r"ValueError: experiments with 'widht': allowed are [a-z_, ]+$", failure)
    assert sorted(failure.split("allowed are ")[1].split(", ")) == allowed


def test_in_a_notebook_progress_is_a_widget(tmp_path):
    code = f"""
from pathlib import Path
from neuronsplit.study import progress
from neuronsplit.study.batches import Batch
from neuronsplit.experiments.experiment import Experiment
unit = Batch((Experiment(splits=1, epochs=2),), (0,))
with progress.bar([unit], Path({str(tmp_path)!r}), lambda: "0 of 1 experiments") as end:
    end(unit.name)
"""
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), tmp_path / "in.ipynb")
    assert execute(tmp_path / "in.ipynb", tmp_path / "out.ipynb", {}) is None
    outputs = executed(tmp_path)[tmp_path / "out.ipynb"]
    assert [o for o in outputs if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]
