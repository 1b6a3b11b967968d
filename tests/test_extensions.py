"""A user's own policy, growth, schedule and data set, in a file of theirs, run in a study."""

import re
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import nbformat
import pytest

from neuronsplit.analysis.tables import read_table
from neuronsplit.data.datasets import DATASETS
from neuronsplit.growing.how import GROWTHS, Growth
from neuronsplit.growing.when import SCHEDULES, Schedule, every
from neuronsplit.growing.which import POLICIES, Policy, argmax, argmin
from neuronsplit.names import CONTROLS, GREEDY
from neuronsplit.study import run as batch
from neuronsplit.study.cli import main
from neuronsplit.study.experiment import Experiment
from neuronsplit.study.extensions import digests, load_extensions

MINE = '''
"""A policy, a growth, a schedule and a data set."""
import torch

from neuronsplit.core.optimizers import split_with_state
from neuronsplit.core.split import Coefficients
from neuronsplit.data.datasets import DATASETS, Dataset, Subset
from neuronsplit.growing.how import GROWTHS, Growth
from neuronsplit.growing.when import SCHEDULES, Schedule
from neuronsplit.growing.which import POLICIES, Policy, argmax


def last_one(mlp, blocks):
    return torch.arange(mlp.width).expand(mlp.n_replicas, -1)


def thirds(mlp, optimizer, neurons, sample, rngs):
    split_with_state(mlp, optimizer, neurons, [Coefficients(1.0, 1.0, 1 / 3, 2 / 3)] * len(rngs))


def stripes():
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(160, 4, generator=rng) - 0.5
    labels = (images[:, 0] > images[:, 1]).long()
    train, validation, test = (Subset(images[part], labels[part]) for part in torch.arange(160).split([96, 32, 32]))
    return Dataset(train, validation, test, shape=(2, 2), classes=("left", "right"))


for name in ("NA", "None", "nan"):
    POLICIES[name] = Policy(last_one, argmax)
GROWTHS["thirds"] = Growth(thirds)
SCHEDULES["every-other"] = Schedule(lambda epoch, val_losses, splits_left: epoch % 2 == 0)
DATASETS["stripes"] = stripes
'''
STUDY = """
extensions: my/own.py
policy: [no-split, random, NA, None, nan]
growth: thirds
schedule: every-other
dataset: stripes
width: 3
splits: 2
epochs: 5
n_seeds: 2
"""


@pytest.fixture(autouse=True)
def registries():
    """Take out of the registries what a test has put in."""
    kept = [(registry, dict(registry)) for registry in (POLICIES, GROWTHS, SCHEDULES, DATASETS)]
    yield
    for registry, entries in kept:
        registry.clear()
        registry.update(entries)


@pytest.fixture
def study(tmp_path):
    """A study file, and beside it the file that it names."""
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "own.py").write_text(MINE)
    (tmp_path / "mine.yaml").write_text(STUDY)
    return tmp_path / "mine.yaml"


def test_a_study_of_ones_own_policy_growth_schedule_and_data_runs_to_its_report(study, tmp_path):
    folder = tmp_path / "results"
    command = [sys.executable, "-m", "neuronsplit", "run", str(study), "--folder", str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "each is trained by itself" not in found.stdout + found.stderr
    assert len(list((folder / "pieces").glob("*-????????.csv"))) == 5 * 2  # of each experiment, in two pieces
    table, metadata = read_table(folder / "table.csv")
    assert table.policy.unique().tolist() == ["no-split", "random", "NA", "None", "nan"]
    assert (set(table.growth), set(table.schedule), set(table.dataset)) == ({"thirds"}, {"every-other"}, {"stripes"})
    assert metadata["parameters"]["extensions"] == "my/own.py"
    for name in ("NA", "None", "nan"):
        own = table[table.policy == name].sort_values(["seed", "epoch"])
        assert own.split_neuron.fillna("").tolist() == ["", "2", "", "3", ""] * 2 and own.hidden.max() == 5
    index, report = ((folder / f"{name}.html").read_text() for name in ("index", "report"))
    assert "growth thirds" in index
    for name in ("NA", "None", "nan"):
        assert f'<td>{name}</td><td class="done">done</td>' in index and re.search(rf">\s*{name}\s*<", report)
    (notebook,) = folder.glob("NA-????????.ipynb")
    outputs = [o for cell in nbformat.read(notebook, as_version=4).cells for o in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error"] and "dataset='stripes'" in str(outputs)


def test_status_knows_a_study_with_a_file_of_its_own_and_a_change_of_the_file_counts(study, tmp_path, capsys):
    folder = tmp_path / "results"
    assert main(["run", str(study), "--folder", str(folder)]) == 0
    assert main(["status", str(study), "--folder", str(folder)]) == 0
    assert "5 done, 0 running, 0 failed, 0 damaged, 0 missing" in capsys.readouterr().out
    (tmp_path / "my" / "own.py").write_text(MINE.replace("1 / 3, 2 / 3", "2 / 3, 1 / 3"))
    assert main(["status", str(study), "--folder", str(folder)]) == 0
    assert "0 done, 0 running, 0 failed, 0 damaged, 5 missing" in capsys.readouterr().out


def test_a_file_is_imported_once_and_again_when_its_text_has_changed(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(MINE)
    load_extensions(file)
    first, name = GROWTHS["thirds"], Experiment("NA").name
    load_extensions(file)
    assert GROWTHS["thirds"] is first and Experiment("NA").name == name
    file.write_text(MINE.replace("1 / 3, 2 / 3", "2 / 3, 1 / 3"))  # of the same length, within the same second
    load_extensions(file)
    assert GROWTHS["thirds"] is not first and Experiment("NA").name != name
    assert not (tmp_path / "__pycache__").exists()


def test_the_file_that_is_loaded_last_is_current_though_it_was_imported_before(tmp_path):
    for name, numbers in (("a", "1 / 3, 2 / 3"), ("b", "2 / 3, 1 / 3")):
        (tmp_path / f"{name}.py").write_text(MINE.replace("1 / 3, 2 / 3", numbers))
    found = []
    for name in "abab":
        load_extensions(tmp_path / f"{name}.py")
        found.append((GROWTHS["thirds"], Experiment("NA").name))
    assert found[:2] == found[2:] and found[0][0] is not found[1][0] and found[0][1] != found[1][1]


def test_what_a_changed_file_no_longer_registers_is_removed(tmp_path):
    file, built_in = tmp_path / "own.py", POLICIES["max-loss"]
    file.write_text(MINE + 'POLICIES["max-loss"] = POLICIES["NA"]\n')
    load_extensions(file)
    assert POLICIES["max-loss"] is POLICIES["NA"]
    file.write_text(MINE.replace('"NA", ', ""))
    load_extensions(file)
    assert "NA" not in POLICIES and "nan" in POLICIES and POLICIES["max-loss"] is built_in
    file.write_text("1 / 0")
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        load_extensions(file)
    assert "nan" in POLICIES


def test_an_entry_that_was_replaced_after_the_file_registered_it_does_not_count_as_the_files(tmp_path):
    (tmp_path / "own.py").write_text(MINE)
    load_extensions(tmp_path / "own.py")
    (of_file,) = digests(Experiment("nan"))
    assert digests(Experiment("NA")) == [of_file]
    POLICIES["NA"] = Policy(POLICIES["random"].score, argmax)
    assert of_file not in digests(Experiment("NA"))


@pytest.mark.parametrize("name", [*CONTROLS, GREEDY])
def test_a_policy_with_the_name_of_a_control_or_of_greedy_is_refused(name, tmp_path):
    (tmp_path / "own.py").write_text(MINE.replace('"NA"', repr(name)))
    message = f"^policy {name!r} in POLICIES: allowed are names other than no-split, stay-narrow, greedy$"
    with pytest.raises(ValueError, match=message):
        load_extensions(tmp_path / "own.py")
    assert name not in POLICIES and "thirds" not in GROWTHS
    POLICIES[name] = POLICIES["random"]
    with pytest.raises(ValueError, match=message):
        Experiment("random")


def without_source(text):
    """A function as it was typed into the prompt of Python."""
    return eval(text)


SCORE, RULE = POLICIES["max-loss"].score, GROWTHS["even"].apply.func


@pytest.mark.parametrize(
    "field, registry, entries",
    [
        ("policy", POLICIES, [Policy(SCORE, argmax), Policy(SCORE, argmin), Policy(lambda mlp, blocks: 1, argmin)]),
        ("policy", POLICIES, [Policy(without_source(f"lambda m, b: [m.{x} for _ in b]"), argmax) for x in "abc"]),
        ("policy", POLICIES, [Policy(without_source(f"lambda m, b: [m + {x} for _ in b]"), argmax) for x in "123"]),
        ("growth", GROWTHS, [Growth(partial(RULE, "even"), exact) for exact in (True, False)]),
        ("growth", GROWTHS, [Growth(partial(RULE, rule)) for rule in ("even", "scaled")]),
        ("schedule", SCHEDULES, [Schedule(every(1, n)) for n in (1, 2, 3)]),
    ],
)
def test_an_entry_of_a_notebook_counts_by_what_it_does(field, registry, entries):
    names = []
    for entry in [*entries, *entries]:
        registry["mine"] = entry
        names.append(Experiment(**{field: "mine"}).name)
    assert names[: len(entries)] == names[len(entries) :] and len(set(names)) == len(entries)


@pytest.mark.parametrize("registry, field", [(POLICIES, "policy"), (GROWTHS, "growth"), (SCHEDULES, "schedule")])
def test_entries_of_the_package_add_nothing_to_names(registry, field):
    assert {name for name in registry if digests(SimpleNamespace(**{field: name}))} == set()


def test_no_policy_adds_nothing_to_a_name():
    assert [digests(Experiment(name)) for name in (*CONTROLS, GREEDY)] == [[]] * 3


def test_built_in_names_do_not_depend_on_a_file_unless_it_replaces_them(tmp_path):
    before = Experiment("random").name, Experiment("max-loss").name
    (tmp_path / "own.py").write_text(MINE + 'POLICIES["max-loss"] = POLICIES["NA"]\n')
    load_extensions(tmp_path / "own.py")
    assert Experiment("random").name == before[0] and Experiment("max-loss").name != before[1]


def test_no_file_loads_nothing():
    load_extensions("")


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "import no_such_module",
            "cannot be imported (ModuleNotFoundError: No module named 'no_such_module'): allowed",
        ),
        ("def broken(:", "cannot be imported (SyntaxError: "),
        ("1 / 0", "cannot be imported (ZeroDivisionError: division by zero): allowed are files that can"),
        ("raise SystemExit(3)", "cannot be imported (SystemExit: 3): allowed"),
        (
            'from neuronsplit.growing.which import POLICIES\nPOLICIES["NA"] = print',
            ": POLICIES['NA'] is a builtin_function_or_method: allowed is a Policy with a text as its name",
        ),
        (MINE.replace('"NA"', '"N/A"'), "policy 'NA': allowed are no-split, stay-narrow, random"),
        (None, "my/own.py: allowed are Python files that exist"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line_before_anything_starts(
    text, message, study, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(batch, "work_through", lambda *_: pytest.fail("an experiment was started"))
    file = tmp_path / "my" / "own.py"
    file.unlink() if text is None else file.write_text(text)
    for command in ("run", "status"):
        assert main([command, str(study), "--folder", str(tmp_path / "results")]) == 2
        error = capsys.readouterr().err
        assert error.startswith("neuronsplit: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "results").exists()
