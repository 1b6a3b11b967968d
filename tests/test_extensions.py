"""A user's own policy, growth, schedule and data set, from a file of theirs or typed in."""

import os
import re
import subprocess
import sys
from functools import partial

import pytest
import torch
from in_process import train_in_process

import neuronsplit as ns
from neuronsplit.checks import describe_error
from neuronsplit.data.datasets import DATASETS
from neuronsplit.experiments.experiment import Experiment
from neuronsplit.extensions import load_extensions
from neuronsplit.growing.how import GROWTHS, Growth
from neuronsplit.growing.when import SCHEDULES, Schedule, every
from neuronsplit.growing.which import POLICIES, Policy, argmax, argmin
from neuronsplit.names import CONTROLS, GREEDY
from neuronsplit.study import executor
from neuronsplit.study.cli import main
from neuronsplit.study.store import load_or_run

MINE = '''
"""A policy of several names, one of them größe, a growth, a schedule and a data set."""
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


for name in ("NA", "None", "nan", "größe"):
    POLICIES[name] = Policy(last_one, argmax)
GROWTHS["thirds"] = Growth(thirds)
SCHEDULES["every-other"] = Schedule(lambda epoch, val_losses, splits_left: epoch % 2 == 0)
DATASETS["stripes"] = stripes
'''
STUDY = """
extensions: my/own.py
policy: [no-split, random, NA, None, nan, größe]
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
    """A study file, and next to it the file that it names."""
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "own.py").write_text(MINE, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(STUDY, encoding="utf-8")
    return tmp_path / "mine.yaml"


@pytest.fixture
def train_here(monkeypatch):
    """The parameters of all notebooks that have run, which train in this process instead of in kernels."""
    return train_in_process(monkeypatch)


def own(tmp_path, text, name="own.py"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_a_study_of_ones_own_policy_growth_schedule_and_data_is_trained_and_found_again(study, train_here, capsys):
    """A change of the file counts, but for controls: they have no growth, and their data are the same."""
    torch.set_num_threads(1)
    folder, file = study.parent / "results", study.parent / "my" / "own.py"
    assert main(["run", str(study), "--folder", str(folder)]) == 0
    table = ns.read_table(folder / "table.parquet")
    assert table.policy.unique().tolist() == ["no-split", "random", "NA", "None", "nan", "größe"]
    assert (set(table.growth), set(table.schedule), set(table.dataset)) == ({"thirds"}, {"every-other"}, {"stripes"})
    assert {parameters["extensions"] for parameters in train_here[:-1]} == {str(file)}
    assert ns.provenance(folder / "table.parquet")["extensions"] == str(file)
    assert main(["status", str(study), "--folder", str(folder)]) == 0
    assert capsys.readouterr().out.endswith("6 done, 0 running, 0 failed, 0 missing\n")
    file.write_text(MINE.replace("1 / 3, 2 / 3", "2 / 3, 1 / 3"), encoding="utf-8")
    assert main(["status", str(study), "--folder", str(folder)]) == 0
    assert capsys.readouterr().out.endswith("1 done, 0 running, 0 failed, 5 missing\n")
    train_here.clear()
    assert main(["run", str(study), "--folder", str(folder)]) == 0
    trained = {e["policy"] for parameters in train_here[:-1] for e in parameters["experiments"]}
    assert trained == {"random", "NA", "None", "nan", "größe"}
    file.write_text(MINE.replace("manual_seed(0)", "manual_seed(1)"), encoding="utf-8")  # other data
    assert main(["status", str(study), "--folder", str(folder)]) == 0
    assert capsys.readouterr().out.endswith("0 done, 0 running, 0 failed, 6 missing\n")
    file.write_text(MINE, encoding="utf-8")  # as it was: what it has trained counts again
    assert main(["status", str(study), "--folder", str(folder)]) == 0
    assert capsys.readouterr().out.endswith("6 done, 0 running, 0 failed, 0 missing\n")


def test_a_change_of_the_file_counts_though_its_length_and_time_are_the_same(tmp_path):
    file, ids = own(tmp_path, MINE), []
    time = file.stat().st_mtime_ns
    for numbers in ("1 / 3, 2 / 3", "2 / 3, 1 / 3", "1 / 3, 2 / 3"):
        own(tmp_path, MINE.replace("1 / 3, 2 / 3", numbers))
        os.utime(file, ns=(time, time))
        load_extensions(file)
        load_extensions(str(file))
        ids.append(Experiment("NA", growth="thirds").id)
    assert ids[0] == ids[2] != ids[1]
    assert not (tmp_path / "__pycache__").exists()


def test_what_trains_is_what_was_loaded_though_the_file_has_been_changed_since(tmp_path):
    """Else the results of the old text would be taken for those of the new one."""
    load_extensions(own(tmp_path, MINE))
    before = Experiment("NA").id
    own(tmp_path, MINE.replace("torch.arange(mlp.width)", "-torch.arange(mlp.width)"))
    assert Experiment("NA").id == before
    (tmp_path / "own.py").unlink()
    assert Experiment("NA").id == before
    load_extensions(own(tmp_path, MINE.replace("torch.arange(mlp.width)", "-torch.arange(mlp.width)")))
    assert Experiment("NA").id != before


def test_what_was_loaded_stays_what_it_is_though_the_file_fails_when_it_is_loaded_again(tmp_path):
    load_extensions(own(tmp_path, MINE))
    before = Experiment("NA").id
    with pytest.raises(ValueError, match="cannot be .*ZeroDivisionError"):
        load_extensions(own(tmp_path, MINE + "1 / 0\n"))
    assert Experiment("NA").id == before


def test_a_data_set_that_fails_is_told_in_one_line_with_the_line_of_the_file(tmp_path):
    text = MINE.replace("DATASETS[", "def failing():\n    return {}['x']\nDATASETS['failing'] = failing\nDATASETS[")
    load_extensions(own(tmp_path, text))
    line = text.splitlines().index("    return {}['x']") + 1
    said = (
        rf"^data set of failing fails \(KeyError: 'x' at own.py:{line}\): allowed are functions that return a Dataset$"
    )
    with pytest.raises(ValueError, match=said):
        _ = Experiment(dataset="failing").id


def test_the_same_text_counts_the_same_wherever_the_file_is(tmp_path):
    ids = []
    for name in ("a.py", "b.py"):
        load_extensions(own(tmp_path, MINE, name))
        ids.append(Experiment("NA").id)
    assert ids[0] == ids[1]


def test_the_file_that_is_loaded_last_is_current(tmp_path):
    for name, numbers in (("a", "1 / 3, 2 / 3"), ("b", "2 / 3, 1 / 3")):
        own(tmp_path, MINE.replace("1 / 3, 2 / 3", numbers), f"{name}.py")
    ids = []
    for name in "abab":
        load_extensions(tmp_path / f"{name}.py")
        ids.append(Experiment("NA").id)
    assert ids[:2] == ids[2:] and ids[0] != ids[1]


def test_an_entry_that_was_replaced_after_the_file_registered_it_does_not_count_as_the_files(tmp_path):
    load_extensions(own(tmp_path, MINE))
    before = {name: Experiment(name).id for name in ("NA", "nan")}
    POLICIES["NA"] = Policy(POLICIES["random"].score, argmax)
    after = Experiment("NA").id
    assert after != before["NA"] and Experiment("nan").id == before["nan"]
    load_extensions(own(tmp_path, MINE + "\n"))
    assert Experiment("NA").id not in (before["NA"], after)
    POLICIES["NA"] = Policy(POLICIES["random"].score, argmax)
    assert Experiment("NA").id == after  # whatever the file says


@pytest.mark.parametrize("name", [*CONTROLS, GREEDY])
def test_a_policy_with_the_name_of_a_control_or_of_greedy_is_refused(name, tmp_path):
    message = f"policy {name!r} in POLICIES: allowed are names other than no-split, stay-narrow, greedy"
    with pytest.raises(ValueError, match=message):
        load_extensions(own(tmp_path, MINE.replace('"NA"', repr(name))))
    assert name not in POLICIES and Experiment("random")  # as it was before
    POLICIES[name] = POLICIES["random"]
    with pytest.raises(ValueError, match=f"^{message}$"):
        Experiment("random")


@pytest.mark.parametrize(
    "end", ["1 / 0", "raise SystemExit(3)", 'POLICIES["x"] = print', 'GROWTHS[3] = GROWTHS["thirds"]',
            'SCHEDULES["x"] = lambda *_: 1', 'DATASETS["x"] = "digits"', 'POLICIES["greedy"] = POLICIES["NA"]',
            'POLICIES["max-loss"] = 3', 'del POLICIES["random"]; 1 / 0'],
)  # fmt: skip
def test_a_file_that_fails_leaves_the_registries_as_they_were(end, tmp_path):
    before = [(registry, dict(registry)) for registry in (POLICIES, GROWTHS, SCHEDULES, DATASETS)]
    with pytest.raises(ValueError, match="^(extensions|policy) .*: allowed "):
        load_extensions(own(tmp_path, MINE + end + "\n"))
    for registry, entries in before:
        assert dict(registry) == entries and list(registry) == list(entries)


def without_source(text):
    """A function as it was typed into the prompt of Python."""
    return eval(text)


class Scorer:
    def __init__(self, sign):
        self.sign = sign

    def __call__(self, mlp, blocks):
        return self.sign


SCORE, RULE = POLICIES["max-loss"].score, GROWTHS["even"].apply.func


def bound(number):
    return lambda mlp, blocks: number


def with_default(number):
    def score(mlp, blocks, by=number):
        return by

    return score


@pytest.mark.parametrize(
    "field, registry, entries",
    [
        ("policy", POLICIES, [Policy(SCORE, argmax), Policy(SCORE, argmin), Policy(lambda mlp, blocks: 1, argmin)]),
        ("policy", POLICIES, [Policy(without_source(f"lambda m, b: [m.{x} for _ in b]"), argmax) for x in "abc"]),
        ("policy", POLICIES, [Policy(without_source(f"lambda m, b: [m + {x} for _ in b]"), argmax) for x in "123"]),
        ("policy", POLICIES, [Policy(bound(n), argmax) for n in (1, 2)]),
        ("policy", POLICIES, [Policy(with_default(n), argmax) for n in (1, 2)]),
        ("policy", POLICIES, [Policy(Scorer(1), argmax), Policy(SCORE, argmax)]),
        ("growth", GROWTHS, [Growth(partial(RULE, "even"), exact) for exact in (True, False)]),
        ("growth", GROWTHS, [Growth(partial(RULE, rule)) for rule in ("even", "scaled")]),
        ("growth", GROWTHS, [Growth(partial(RULE, rule="even", x=x)) for x in (1, 2)]),
        ("schedule", SCHEDULES, [Schedule(every(1, n)) for n in (1, 2, 3)]),
    ],
)
def test_an_entry_of_a_notebook_counts_by_what_it_does(field, registry, entries):
    ids = []
    for entry in [*entries, *entries]:
        registry["mine"] = entry
        ids.append(Experiment(splits=5, **{field: "mine"}).id)
    assert ids[: len(entries)] == ids[len(entries) :] and len(set(ids)) == len(entries)


def test_ids_of_typed_functions_do_not_depend_on_where_they_are_in_memory():
    """Functions within functions have an address in their text."""
    ids = []
    for _ in range(2):
        POLICIES["mine"] = Policy(without_source("lambda m, b: sorted(b, key=lambda x: [y for y in x])"), argmax)
        ids.append(Experiment("mine").id)
        kept = POLICIES["mine"]  # so that the next has another address
    assert ids[0] == ids[1] and kept


def test_built_in_ids_do_not_depend_on_a_file_unless_it_replaces_them(tmp_path):
    names = ["no-split", "stay-narrow", "greedy", "random", "max-loss"]
    before = {name: Experiment(name).id for name in names}
    load_extensions(own(tmp_path, MINE + 'POLICIES["max-loss"] = POLICIES["NA"]\n'))
    assert {name for name in names if Experiment(name).id != before[name]} == {"max-loss"}


IN_ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
PRINT_IDS = """
import sys
from neuronsplit.extensions import load_extensions
from neuronsplit.experiments.experiment import Experiment

load_extensions(sys.argv[1])
experiments = Experiment("random"), Experiment("größe", "digits", "thirds", "every-other"), Experiment("no-split")
print(*(e.id for e in experiments))
"""


@pytest.mark.long
def test_ids_are_the_same_in_every_process(tmp_path):
    """As a kernel finds what the command has planned. Hashes of text differ from process to process."""
    file = own(tmp_path, MINE)
    script = own(tmp_path, PRINT_IDS, "print_ids.py")
    env = os.environ | {"PYTHONHASHSEED": "1"} | IN_ASCII
    found = subprocess.check_output([sys.executable, script, file], text=True, cwd=tmp_path, env=env)
    load_extensions(file)
    here = [Experiment("random"), Experiment("größe", "digits", "thirds", "every-other"), Experiment("no-split")]
    assert found == " ".join(e.id for e in here) + "\n"


def test_no_file_loads_nothing():
    before = dict(POLICIES)
    load_extensions("")
    assert dict(POLICIES) == before


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "import no_such_module",
            "(ModuleNotFoundError: No module named 'no_such_module' at own.py:1): allowed are files that",
        ),
        ("def broken(:", "(SyntaxError: "),
        ("1 / 0", "(ZeroDivisionError: division by zero at own.py:1): allowed are files that"),
        ("raise SystemExit(3)", "(SystemExit: 3 at own.py:1): allowed are files that"),
        ("raise ValueError('two\\nlines')", "(ValueError: two lines at own.py:1): allowed are files that"),
        ("x = '\udcff'", "own.py"),
        (
            'from neuronsplit.growing.which import POLICIES\nPOLICIES["NA"] = print',
            ": POLICIES['NA'] is a builtin_function_or_method: allowed is a Policy with a text as",
        ),
        (MINE.replace('"NA"', '"N/A"'), "policy 'NA' (did you mean 'N/A'?): allowed are no-split, stay-narrow, random"),
        (None, "my/own.py': allowed are Python files that exist"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line_before_anything_starts(
    text, message, study, tmp_path, monkeypatch, capsys
):
    for name in ("execute", "execute_all"):
        monkeypatch.setattr(executor, name, lambda *_: pytest.fail("a notebook was started"))
    file = tmp_path / "my" / "own.py"
    file.unlink() if text is None else file.write_bytes(text.encode("utf-8", "surrogateescape"))
    for command in ("run", "status"):
        assert main([command, str(study), "--folder", str(tmp_path / "results")]) == 2
        error = capsys.readouterr().err
        assert error.startswith("neuronsplit: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", ["own.pyc", "own.txt", "folder.py", "https://example.org/own.py", "none.py"])
def test_only_a_python_file_is_executed(name, tmp_path):
    (tmp_path / "folder.py").mkdir()
    for file in ("own.pyc", "own.txt"):
        (tmp_path / file).write_text("1 / 0")
    with pytest.raises(ValueError, match=f"^extensions '{re.escape(str(tmp_path / name))}': allowed are Python files"):
        load_extensions(tmp_path / name)


FAILING = """import neuronsplit as ns
from neuronsplit.growing.which import argmax


def layer(blocks):
    return blocks.hiden  # line 6


def score(mlp, blocks):
    return layer(mlp)


ns.POLICIES["failing"] = ns.Policy(score, argmax)
ns.SCHEDULES["failing"] = ns.Schedule(
    lambda epoch, val_losses, splits_left: int(val_losses[-1] < 1)  # line 15
)
"""


def test_an_error_while_training_names_the_innermost_line_of_the_users_file(tmp_path):
    load_extensions(own(tmp_path, FAILING))
    with pytest.raises(
        RuntimeError, match="first .*AttributeError: 'MLP' object has no attribute 'hiden' at own.py:6$"
    ):
        load_or_run([Experiment("failing", splits=1, epochs=1)], [0], tmp_path)
    message = (
        "^schedule 'failing' gives IndexError: list index out of range at own.py:15 for epoch 1: allowed are whole"
    )
    with pytest.raises(ValueError, match=message):
        Experiment(schedule="failing")


def test_a_line_of_the_package_is_not_named():
    try:
        Experiment(policy="none")
    except ValueError as error:
        assert describe_error(error) == f"ValueError: {error}" and " at " not in str(error)
