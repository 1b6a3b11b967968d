"""Study files are read strictly, and mean what scikit-learn's ParameterGrid says of their grids."""

import subprocess
import sys
from dataclasses import fields

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import ParameterGrid

from neuronsplit.experiments.exhaustive_splits import ExhaustiveSplits
from neuronsplit.experiments.experiment import Experiment
from neuronsplit.growing.which import POLICIES
from neuronsplit.locations import NOTEBOOKS, STUDIES
from neuronsplit.study.grid import read_study, study_file

NAMES = ["None", "NA", "nan", "null", "1", "1e-3", "true", "~", "0.5", "größe"]
VALUES = {
    "policy": ["no-split", "random", "max-loss"],
    "growth": ["scaled", "even", "gradmax"],
    "width": [3, 4, 5],
    "learning_rate": [0.05, 0.05000001, 1.0],
    "batch_size": [16, 32],
    "dropout": [0.0, 0.5],
    "rate_after_split": [1.0, 0.5],
    "state": ["carry", "reset", "warm-up"],
    "n_seeds": [1, 3],
    "first_seed": [0, 2, 10],
}


def grids():
    """Dictionaries as ParameterGrid takes them: a list of values by name."""
    lists = {k: st.lists(st.sampled_from(v), min_size=1, unique=True) for k, v in VALUES.items()}
    return st.fixed_dictionaries({}, optional=lists)


@pytest.fixture
def read(tmp_path):
    """A function that reads a text as a study file."""

    def read_text(text, changes=None, name="mine.yaml"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_study(str(tmp_path / name), changes)

    return read_text


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A file for hypothesis, which uses it again and again."""
    return tmp_path_factory.mktemp("studies") / "mine.yaml"


def trained(plan):
    """Pairs of what is trained, and a seed."""
    return {(e.canonical, seed) for e, seeds in plan.items() for seed in seeds}


@pytest.mark.long
@given(grids(), st.lists(grids().filter(bool), max_size=3), st.booleans())
def test_a_study_has_the_experiments_of_parameter_grid(scratch, top, further, flow):
    text = top | ({"grids": further} if further else {})
    scratch.write_text(yaml.safe_dump(text, default_flow_style=flow), encoding="utf-8")
    points = list(ParameterGrid([top | grid for grid in further or [{}]]))
    assume(len(points) <= 1000)  # a study has at most MAX_EXPERIMENTS, and many take long
    expected = set()
    for point in points:
        n_seeds, first = point.pop("n_seeds", 5), point.pop("first_seed", 0)
        expected |= {(Experiment(**point).canonical, seed) for seed in range(first, first + n_seeds)}
    plan = read_study(str(scratch)).plan if text else {Experiment(): tuple(range(5))}
    assert trained(plan) == expected and len(plan) <= len(points)
    assert len({e.id for e in plan}) == len(plan)
    assert all(len(set(seeds)) == len(seeds) for seeds in plan.values())


def test_lists_are_every_combination_in_their_order(read):
    plan = read("policy: [random, max-loss]\ngrowth: [scaled, even]\nwidth: 4\nn_seeds: 2\nfirst_seed: 7").plan
    assert [(e.policy, e.growth, e.width, seeds) for e, seeds in plan.items()] == [
        ("random", "scaled", 4, (7, 8)), ("random", "even", 4, (7, 8)), ("max-loss", "scaled", 4, (7, 8)),
        ("max-loss", "even", 4, (7, 8)),
    ]  # fmt: skip


def test_several_grids_are_several_studies_in_one_and_no_experiment_twice(read):
    text = """
policy: random
width: 4
grids:
  - policy: [no-split, random]
  - growth: [scaled, even]
  - {first_seed: 5, width: 3}
"""
    plan = read(text).plan
    assert [(e.policy, e.growth, seeds[0], e.width) for e, seeds in plan.items()] == [
        ("no-split", "scaled", 0, 4), ("random", "scaled", 0, 4), ("random", "even", 0, 4), ("random", "scaled", 5, 3),
    ]  # fmt: skip
    alone = (
        "- policy: [no-split, random]\n  width: 4\n- {growth: [scaled, even], width: 4}\n- {first_seed: 5, width: 3}"
    )
    assert read(alone).plan == plan


def test_of_experiments_that_would_train_the_same_the_first_is_kept(read):
    """Controls that differ in growth and schedule alone, growths without a parent that differ in policy alone."""
    plan = read("policy: [stay-narrow, max-fire, random]\ngrowth: [even, gradmax]").plan
    found = [(e.policy, e.growth) for e in plan]
    assert found == [("stay-narrow", "even"), ("max-fire", "even"), ("max-fire", "gradmax"), ("random", "even")]
    plan = read("grids: [{learning_rate: 1}, {learning_rate: 1.0}, {learning_rate: 2}]").plan
    assert [e.learning_rate for e in plan] == [1, 2]
    plan = read("learning_rate: [0.05, 0.05000001]").plan
    assert [e.learning_rate for e in plan] == [0.05, 0.05000001]


def test_seeds_of_the_same_experiment_are_put_together(read):
    text = "n_seeds: 3\ngrids:\n  - first_seed: [10, 0, 11]\n  - {policy: no-split, growth: [scaled, even]}\n"
    assert list(read(text).plan.values()) == [(10, 11, 12, 0, 1, 2, 13), (0, 1, 2)]


@pytest.mark.parametrize("quote", ["{}", "'{}'", '"{}"'])
def test_a_name_that_looks_like_something_else_stays_a_name(quote, read, monkeypatch):
    for name in NAMES:
        monkeypatch.setitem(POLICIES, name, POLICIES["random"])
    policies = ", ".join(quote.format(name) for name in NAMES)
    plan = read(f"policy: [{policies}]\nlearning_rate: {quote.format('1e-3')}\nwidth: {quote.format('1')}").plan
    assert [(e.policy, e.learning_rate, e.width) for e in plan] == [(name, 0.001, 1) for name in NAMES]
    for name in NAMES:
        (one,) = read("width: 1", {"policy": name, "learning_rate": "1e-3"}).plan
        assert (one.policy, one.learning_rate) == (name, 0.001)


@pytest.mark.parametrize("name", ["mine.yaml", "mine.yml"])
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf", b"# comment \xc3\xbc\r\n", b"---\n"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_files_of_any_editor_are_read(newline, begin, name, read):
    study = read(begin + newline.join([b"policy: [random,", b"  max-loss]", b"width: 4", b""]), name=name)
    assert study.name == "mine" and [(e.policy, e.width) for e in study.plan] == [("random", 4), ("max-loss", 4)]


def test_a_study_is_found_by_name_or_path(tmp_path, monkeypatch):
    assert study_file("quick") == STUDIES / "quick.yaml"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick.yml").write_text("width: 3")
    (tmp_path / "full").mkdir()
    assert study_file("quick") == STUDIES / "quick.yaml" and study_file("full") == STUDIES / "full.yaml"
    assert study_file("quick.yml").read_text() == "width: 3"
    names = ", ".join(sorted(file.stem for file in STUDIES.glob("*.yaml")))
    for name in ("quick.yaml", "full.yml"):
        with pytest.raises(ValueError, match=f"^{name} does not exist in {tmp_path}.*: allowed are files of studies$"):
            study_file(name)
    for name in ("fast", "../full", "", "next.txt"):
        with pytest.raises(ValueError) as caught:
            study_file(name)
        assert str(caught.value) == f"study {name!r}: allowed are {names}, and paths of .yaml files"


def test_paths_count_from_the_study_file_and_on_the_command_line_from_here(read, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for folder in (tmp_path, here):
        (folder / "own.py").write_text("")
        (folder / "mine.ipynb").write_text("{}")
    study = read("extensions: own.py\nreport: mine.ipynb")
    assert (study.extensions, study.report) == (str(tmp_path / "own.py"), tmp_path / "mine.ipynb")
    study = read("extensions: own.py", {"extensions": "own.py", "report": "mine.ipynb"})
    assert (study.extensions, study.report) == (str(here / "own.py"), here / "mine.ipynb")
    study = read("extensions: here/own.py\nreport: here/mine.ipynb")
    assert (study.extensions, study.report) == (str(here / "own.py"), here / "mine.ipynb")
    assert read("width: 3").extensions == "" and read("width: 3").report == NOTEBOOKS / "report.ipynb"
    assert read("type: all-splits").report == NOTEBOOKS / "all_splits.ipynb"


def test_what_is_given_twice_in_a_list_trains_once(read):
    for text in ("policy: [random, random]", "width: [3, '3']", "learning_rate: [0.1, 1e-1]"):
        assert len(read(text).plan) == 1
    assert read("grids: {width: 3}").plan == read("grids: [{width: 3}]").plan == read("width: 3").plan


def test_a_list_of_extensions_is_refused(read):
    with pytest.raises(ValueError, match=r"^extensions '.*a.py, b.py': allowed are Python files that exist$"):
        read("extensions: [a.py, b.py]")


def test_the_command_line_wins_over_a_grid_too(read):
    study = read(
        "width: 3\ngrids:\n  - policy: [random, max-loss]\n  - {width: 4}", {"policy": "min-fire", "width": "5"}
    )
    assert [(e.policy, e.width) for e in study.plan] == [("min-fire", 5)]


def test_parameters_are_changed_as_on_the_command_line(read):
    text = "width: 3\ngrids:\n  - policy: [random, max-loss]\n"
    study = read(text, {"width": "[4, 5]", "n_seeds": "2", "epochs": 30})
    expected = {(policy, width, 30): (0, 1) for policy in ("random", "max-loss") for width in (4, 5)}
    assert {(e.policy, e.width, e.epochs): seeds for e, seeds in study.plan.items()} == expected
    (one,) = read("type: experiment", {"type": "all-splits", "width": "4"}).plan
    assert one == ExhaustiveSplits(width=4)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"depth": 3}, "-p depth: parameter 'depth': allowed are policy, dataset, growth"),
        ({"width": "[3"}, "-p width is not YAML: while parsing"),
        ({"width": "a"}, "-p width: width 'a': allowed are whole numbers"),
        ({"width": "{a: 3}"}, "-p width: width"),
        ({"width": ""}, "-p width: width"),
        ({"width": "0"}, "-p width: width 0: allowed are whole numbers from 1 to 100000"),
        ({"dataset": "mnist"}, "-p dataset: dataset 'mnist' (did you mean 'mnist-1d'?): allowed are fashion-mnist"),
        ({"type": "all-splits"}, "line 2: parameter 'policy': allowed are dataset, growth"),
        ({"report": "none.ipynb"}, "allowed are notebooks that exist"),
        ({"grids": "[{width: 3}]"}, "grids"),
        ({"grids": "3"}, "grids"),
    ],
)
def test_a_change_that_is_not_allowed_is_named(changes, message, read):
    with pytest.raises(ValueError) as caught:
        read("grids:\n  - policy: [random, max-loss]\n", changes)
    assert message in str(caught.value) and "\n" not in str(caught.value) and "Node" not in str(caught.value)


ALL = (
    "policy, dataset, growth, schedule, optimizer, width, splits, epochs, learning_rate, batch_size, "
    "weight_decay, dropout, rate_schedule, rate_after_split, state"
)
REFUSED = [
    ("width: [1", " is not YAML: while parsing"),
    ("width: 3\n---\nwidth: 4", " is not YAML: expected a single document"),
    (b"width: \xff", " is not YAML: unacceptable character #x00ff"),
    ("width: *a", " is not YAML: found undefined alias"),
    ("width: " + "[" * 5000, " is not YAML"),
    ("- width", ": allowed are lines of 'parameter: value'"),
    ("\nhello", ": allowed are lines of 'parameter: value'"),
    ("", ": allowed are lines of 'parameter: value'"),
    ("# nothing", ": allowed are lines of 'parameter: value'"),
    ("width: 3\nsplits: 1\nwidth: 3", ", line 3: 'width' is given twice: allowed is once"),
    ("grids:\n  - width: 3\n    splits: 1\n    width: 4", ", line 4: 'width' is given twice: allowed is once"),
    ("- {width: 3}\n- {width: 4,\n   splits: 1, width: 4}", ", line 3: 'width' is given twice: allowed is once"),
    ("grids: [{width: 3}]\ngrids: [{width: 4}]", ", line 2: 'grids' is given twice: allowed is once"),
    ("width: 3\n'width': 3", ", line 2: 'width' is given twice: allowed is once"),
    ("width: 3\n\ndepth: 3", f", line 3: parameter 'depth': allowed are {ALL}"),
    ("grids:\n  - {width: 3}\n  - {widht: 3}", ", line 3: parameter 'widht' (did you mean 'width'?)"),
    ("folder: /tmp", f", line 1: parameter 'folder': allowed are {ALL}"),
    ("<<: {width: 3}", f", line 1: parameter '<<': allowed are {ALL}"),
    ("{[a, b]: 3}", ", line 1: "),
    ("? {a: 1}\n: 3", ", line 1: "),
    ("width: 3\nn_seeds: []", ", line 2: n_seeds"),
    ("width: 3\ngrids: []", ", line 2: allowed are lines of 'parameter: value', or a list of grids"),
    ("grids: 3", ", line 1: allowed are lines of 'parameter: value', or a list of grids"),
    ("width: 3\ngrids: [random]", ", line 2: allowed are lines of 'parameter: value'"),
    ("grids:\n  - {grids: [{width: 3}]}", ", line 2: parameter 'grids': allowed are policy"),
    ("grids:\n  - extensions: own.py", ", line 2: parameter 'extensions': allowed are policy"),
    ("- report: own.ipynb", ", line 1: parameter 'report': allowed are policy"),
    ("- {type: all-splits}", ", line 1: parameter 'type': allowed are policy"),
    ("width: [[3, 4]]", ", line 1: width"),
    ("width: {a: 3}", ", line 1: width"),
    ("width: &a [*a]", " is not YAML: found unconstructable recursive node"),
    ("policy: {which: random}", ", line 1: policy"),
    ("width: true", ", line 1: width 'true': allowed are whole numbers"),
    ("width: 3.0", ", line 1: width '3.0': allowed are whole numbers"),
    ("splits: 0x3", ", line 1: splits '0x3': allowed are whole numbers"),
    ("width:", ", line 1: width '': allowed are whole numbers"),
    ("width: 3\nwidth :", ", line 2: 'width' is given twice"),
    ("n_seeds: 1e9", ", line 1: n_seeds '1e9': allowed are whole numbers"),
    ("first_seed: none", ", line 1: first_seed 'none': allowed are whole numbers"),
    ("epochs: 20\nlearning_rate: [1e-3, fast]", ", line 2: learning_rate '1e-3, fast': allowed are numbers"),
    ("epochs: 20\ndropout: [0, 1]", ", line 2: dropout 1.0: allowed are numbers from 0 to below 1"),
    ("weight_decay: -1", ", line 1: weight_decay -1.0: allowed are numbers from 0"),
    ("state: keep", ", line 1: state 'keep': allowed are carry, reset, warm-up"),
    ("rate_schedule: linear", ", line 1: rate_schedule 'linear': allowed are constant, cosine"),
    ("learning_rate: .inf", ", line 1: learning_rate '.inf': allowed are numbers"),
    ("learning_rate: inf", ", line 1: learning_rate inf: allowed are numbers above 0"),
    ("learning_rate: nan", ", line 1: learning_rate nan: allowed are numbers above 0"),
    ("learning_rate: 0", ", line 1: learning_rate 0.0: allowed are numbers above 0"),
    ("learning_rate: '__import__(\"os\")'", ", line 1: learning_rate '__import__(\"os\")': allowed are numbers"),
    ("width: !!python/object/apply:os.system ['true']", ", line 1: width"),
    ("epochs: 20\nwidth: 1000000000", ", line 2: width 1000000000: allowed are whole numbers from 1 to 100000"),
    ("splits: -1", ", line 1: splits -1: allowed are whole numbers from 0 to 100000"),
    ("splits: 0\nepochs: 0", ", line 2: epochs 0: allowed are whole numbers from 1 to 100000"),
    ("width: 3\ngrowth: [scaled, halved]", ", line 2: growth 'halved': allowed are scaled"),
    ("width: 3\npolicy:", ", line 2: policy '': allowed are no-split, stay-narrow"),
    ("grids:\n  - policy: random\n  - policy: [random,\n      rando]", "policy 'rando' (did you mean 'random'?)"),
    (
        "splits: 12\nepochs: 12\nschedule: 5-per-5-epochs",
        ", line 3: schedule '5-per-5-epochs' makes 10 of 12 splits in 12 epochs: allowed are more epochs or",
    ),
    ("width: 3\nepochs: 5", ", line 2: schedule 'every-epoch' makes 5 of 10 splits in 5 epochs: allowed are more"),
    ("n_seeds: 0", ", line 1: n_seeds 0: allowed are whole numbers from 1 to 100000"),
    ("n_seeds: 100001", ", line 1: n_seeds 100001: allowed are whole numbers from 1 to 100000"),
    ("first_seed: -1", ", line 1: first_seed -1: allowed are whole numbers from 0 to 4294967292"),
    ("first_seed: 4294967296\nn_seeds: 2", ", line 1: first_seed 4294967296: allowed are whole numbers from 0 to"),
    (f"batch_size: {[*range(1, 201)]}\nwidth: {[*range(1, 200)]}", ": 39800 experiments: allowed are 10000"),
    ("report: 04_comparisons", ": report '"),
    ("report: own.py", ": report '"),
    ("type: branch", ": type 'branch': allowed are experiment, all-splits"),
    ("type: [experiment, all-splits]", ": type 'experiment, all-splits': allowed are experiment, all-splits"),
    ("type: all-splits\npolicy: random", ", line 2: parameter 'policy': allowed are dataset, growth, optimizer"),
    ("width: 3\nprior_splits: 3", ", line 2: parameter 'prior_splits': allowed are policy"),
    (
        "type: all-splits\nwidth: 9\nprior_splits: 9",
        ", line 3: prior_splits 9: allowed are at most 5, one per epoch, of width 9 and epochs_before 5",
    ),
    ("type: all-splits\ngrowth: [scaled, gradmax]", ", line 2: growth 'gradmax': allowed are scaled, even"),
    ("width: 3\nseed: 5", ", line 2: parameter 'seed': allowed are policy"),
]  # fmt: skip


@pytest.mark.parametrize("text, message", REFUSED, ids=[str(text)[:40] for text, _ in REFUSED])
def test_a_bad_study_file_is_refused_with_its_line_in_one_line(text, message, read, tmp_path):
    with pytest.raises(ValueError) as caught:
        read(text)
    error = str(caught.value)
    assert error.startswith(f"{tmp_path}/mine.yaml") and message in error
    assert "\n" not in error and len(error) < 700 and "Node(" not in error  # of yaml, which no reader knows


def test_a_small_file_cannot_need_much_memory(tmp_path):
    """Lists that refer to one another eight times over, seven levels deep: two million values if written out."""
    text = "x"
    for level in range(7):
        text = f"&l{level} [{text}, {', '.join([f'*l{level - 1}'] * 7) if level else 'x'}]"
    (tmp_path / "mine.yaml").write_text(f"width: [{text}]")
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
from neuronsplit.study.grid import read_study
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_study({str(tmp_path / "mine.yaml")!r})
except ValueError as error:
    print(len(str(error)) < 700, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert found.stdout == "True True\n", found.stderr[-300:]


COMMITTED = sorted(file.stem for file in STUDIES.glob("*.yaml"))


@pytest.mark.parametrize("name", COMMITTED)
def test_every_committed_study_is_runnable(name):
    study = read_study(name)
    assert study.plan and study.extensions == "" and study.report.parent == NOTEBOOKS
    kinds = {type(e) for e in study.plan}
    assert kinds == ({ExhaustiveSplits} if "oracle" in name else {Experiment})


def test_the_full_study_has_the_size_of_the_original():
    plan = read_study("full").plan
    eight = ["no-split", "random", "max-loss", "min-loss", "loss-probs", "max-fire", "min-fire", "half-fire"]
    assert [e.policy for e in plan] == eight == [e.policy for e in read_study("quick").plan]
    (one,) = {(e.width, e.splits, e.epochs, e.learning_rate, e.batch_size, e.dataset) for e in plan}
    assert one == (10, 50, 100, 0.001, 32, "fashion-mnist") and set(plan.values()) == {tuple(range(10))}


def test_the_replay_has_the_seeds_of_each_column():
    seeds = {e.policy: found for e, found in read_study("replay").plan.items()}
    assert seeds["no-split"] == tuple(range(10)) and seeds["min-loss"] == tuple(range(30, 40))
    assert seeds["loss-probs"] == tuple(range(40, 70)) and seeds["half-fire"] == tuple(range(60, 70))


def test_the_names_in_a_study_file_are_the_fields_of_experiments():
    for kind in (Experiment, ExhaustiveSplits):
        assert {field.type for field in fields(kind)} <= {int, float, str}
        assert not {"n_seeds", "first_seed"} & {field.name for field in fields(kind)}
