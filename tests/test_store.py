"""The files of experiments: tables that are saved, read again, checked, moved and merged."""

import gzip
import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch

from neuronsplit.analysis import tables
from neuronsplit.growing.which import POLICIES, Policy, argmax
from neuronsplit.names import TABLE_COLUMNS
from neuronsplit.study import store
from neuronsplit.study.experiment import Experiment, run_experiment
from neuronsplit.study.store import load, obtain

SMALL = Experiment(width=4, splits=4, epochs=6, n_seeds=3)
TINY = Experiment(width=3, splits=1, epochs=2, n_seeds=1)
METRICS = [name for name in TABLE_COLUMNS if name.endswith(("_loss", "_accuracy"))]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.csv does not exist: make run and make publish make such tables"):
        store.read_results(tmp_path / "none.csv")


def test_a_finished_experiment_is_read_and_not_run_again(tmp_path, monkeypatch):
    first = obtain(SMALL, tmp_path)
    monkeypatch.setattr(Experiment, "run", lambda group: pytest.fail("ran again"))
    pd.testing.assert_frame_equal(obtain(SMALL, tmp_path), first)
    assert sorted(f.suffix for f in tmp_path.iterdir()) == [".csv", ".json"]


def test_a_saved_table_is_the_one_that_was_computed(tmp_path):
    expected = run_experiment(SMALL)
    table = obtain(SMALL, tmp_path)
    pd.testing.assert_series_equal(table.split_neuron, expected.split_neuron)
    np.testing.assert_allclose(table[METRICS], expected[METRICS], rtol=1e-5)


def test_a_policy_that_is_registered_anew_is_trained_anew(tmp_path, monkeypatch):
    def first(mlp, blocks):
        return -torch.arange(mlp.width).expand(mlp.n_replicas, -1)

    def last(mlp, blocks):
        return torch.arange(mlp.width).expand(mlp.n_replicas, -1)

    for score, neuron in ((first, 0), (last, 2), (first, 0)):
        monkeypatch.setitem(POLICIES, "mine", Policy(score, argmax))
        assert obtain(replace(TINY, policy="mine"), tmp_path).split_neuron.dropna().tolist() == [str(neuron)]
    assert len(list(tmp_path.glob("mine-*.csv"))) == 2


def test_an_interrupted_experiment_is_not_taken_for_a_finished_one(tmp_path, monkeypatch):
    whole = Experiment.run

    def interrupted(group):
        yield next(whole(group))
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "run", staticmethod(interrupted))
    with pytest.raises(KeyboardInterrupt):
        obtain(SMALL, tmp_path)
    assert load(SMALL, tmp_path) is None
    monkeypatch.undo()
    assert len(obtain(SMALL, tmp_path)) == 18


@pytest.mark.parametrize(
    "suffix, spoil, message",
    [
        (".csv", lambda text: text[:-50], r"\.csv is damaged \(wrong checksum\)"),
        (".json", lambda text: "{", r"\.json is damaged \(.*\)"),
        (".json", lambda text: text.replace('"width": 4', '"width": 5'), r"\.json is of another experiment"),
    ],
)
def test_what_is_damaged_or_foreign_is_set_aside_with_a_warning(suffix, spoil, message, tmp_path):
    whole, file = obtain(SMALL, tmp_path), tmp_path / f"{SMALL.name}{suffix}"
    for turn in (1, 2):
        spoiled = spoil(file.read_text())
        file.write_text(spoiled)
        with pytest.warns(UserWarning, match=f"{SMALL.name}{message}; set aside as .*/{SMALL.name}.aside{turn}"):
            pd.testing.assert_frame_equal(obtain(SMALL, tmp_path), whole)
        assert (tmp_path / f"{SMALL.name}.aside{turn}{suffix}").read_text() == spoiled


@pytest.mark.parametrize(
    "spoil, message",
    [(lambda data: data[:-9], "is damaged"), (lambda data: gzip.compress(b"a"), r"is damaged \(wrong checksum\)")],
)
def test_a_packed_table_is_read_and_checked_as_a_plain_one(spoil, message, tmp_path):
    whole, plain = obtain(SMALL, tmp_path), tmp_path / f"{SMALL.name}.csv"
    packed = plain.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    pd.testing.assert_frame_equal(tables.read_table(packed)[0], whole)
    packed.write_bytes(spoil(packed.read_bytes()))
    with pytest.raises(ValueError, match=f"{packed.name} {message}"):
        tables.read_table(packed)


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    store._commit.cache_clear()
    assert store.circumstances()["commit"] is None
    store._commit.cache_clear()


def test_what_produced_a_table_stands_beside_it(tmp_path):
    obtain(SMALL, tmp_path)
    metadata = json.loads((tmp_path / f"{SMALL.name}.json").read_text())
    assert metadata["experiment"] == asdict(SMALL)
    assert metadata["versions"]["torch"] == torch.__version__
    assert {"sha256", "seconds", "finished", "commit", "machine"} <= set(metadata)


def test_experiments_of_several_lengths_and_of_more_seeds_later_are_compared(tmp_path):
    few, many, longer = (Experiment(width=3, splits=1, **one) for one in (
        {"epochs": 2, "n_seeds": 2}, {"epochs": 2, "n_seeds": 3}, {"epochs": 4, "n_seeds": 3}
    ))  # fmt: skip
    for experiment in (few, many, longer):
        obtain(experiment, tmp_path)
    table = tables.with_labels(store.read_results(tmp_path)[0])
    found = tables.summary(table, "test_loss")
    assert found.n.to_dict() == {"random · epochs 2": 3, "random · epochs 4": 3}
    assert len(tables.final_values(table, "test_loss")) == 3


def test_a_control_or_a_neuron_without_parent_that_was_trained_twice_is_read_once(tmp_path):
    """Growth and schedule of a control, and the policy of a growth without a parent, have no effect."""
    control, added = replace(TINY, policy="no-split"), replace(TINY, growth="zero-outgoing")
    for experiment in (
        control, replace(control, growth="even", n_seeds=2), added, replace(added, policy="max-loss"), TINY,
        replace(TINY, policy="max-loss"),
    ):  # fmt: skip
        obtain(experiment, tmp_path)
    table, _ = store.read_results(tmp_path)
    last = table[table.epoch == 2]
    assert last.groupby(["policy", "seed"]).size().to_dict() == {
        ("max-loss", 0): 1, ("no-split", 0): 1, ("no-split", 1): 1, ("random", 0): 2,
    }  # fmt: skip
    assert set(last[last.policy == "random"].growth) == {"scaled", "zero-outgoing"}


def test_results_of_another_version_are_refused(tmp_path, monkeypatch):
    obtain(replace(SMALL, n_seeds=1), tmp_path)
    monkeypatch.setattr(store, "RESULTS", store.RESULTS + 1)
    message = r"is among files of another version or kind: move them away; allowed are experiments of .* \(results"
    with pytest.raises(ValueError, match=message):
        store.read_results(tmp_path)


def test_a_folder_may_be_moved_zipped_and_merged(tmp_path):
    random, control = replace(SMALL, n_seeds=1), replace(SMALL, n_seeds=1, policy="no-split")
    other = replace(random, width=5)
    for folder, held in (("a", [random, control]), ("b", [random, other])):
        for experiment in held:
            obtain(experiment, tmp_path / folder)
    (tmp_path / "b" / "inner").mkdir()
    (tmp_path / "b").rename(tmp_path / "a" / "b")  # merged, one experiment in both
    shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "elsewhere")
    for place in (tmp_path / "elsewhere", tmp_path / "study.zip"):
        table, metadata = store.read_results(place)
        assert table.groupby(["policy", "width"], sort=False).size().to_dict() == {
            ("no-split", 4): 6, ("random", 4): 6, ("random", 5): 6,
        }  # fmt: skip
        assert metadata["parameters"]["width"] == [4, 5] and metadata["parameters"]["policy"] == ["no-split", "random"]
        labels = tables.with_labels(table).policy.unique().tolist()
        assert sorted(labels) == ["no-split · width 4", "random · width 4", "random · width 5"]
    (tmp_path / "elsewhere" / f"{control.name}.csv").write_text("damaged")
    with pytest.raises(ValueError, match="wrong checksum"):
        store.read_results(tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no finished experiment: allowed are folders of a study"):
        store.read_results(tmp_path / "empty")


def test_results_of_policies_that_are_not_registered_here_come_last(tmp_path, monkeypatch):
    """Whatever they are called: what looks like a missing value, or like a number, stays a name."""
    names = ["None", "NA", "nan", "1"]
    for name in names:
        monkeypatch.setitem(POLICIES, name, POLICIES["max-loss"])
        obtain(replace(TINY, policy=name), tmp_path)
        assert set(load(replace(TINY, policy=name), tmp_path).policy) == {name}
    monkeypatch.undo()
    obtain(TINY, tmp_path)
    obtain(replace(TINY, policy="no-split"), tmp_path)
    table, metadata = store.read_results(tmp_path)
    assert table.policy.unique().tolist() == ["no-split", "random", *sorted(names)]
    assert metadata["parameters"]["policy"] == sorted(["no-split", "random", *names])
