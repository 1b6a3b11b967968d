"""Results on disk: only what no file holds is trained, one file per unit of work says what produced it."""

import shutil
import threading
from dataclasses import asdict, replace
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
import torch
from sampling import one_in
from test_study import METRICS, SEEDS, SMALL, random_data

import neuronsplit as ns
from neuronsplit.analysis import circumstances, files, tables
from neuronsplit.analysis.files import read_results
from neuronsplit.data.datasets import DATASETS
from neuronsplit.experiments import base
from neuronsplit.experiments.exhaustive_splits import ExhaustiveSplits
from neuronsplit.experiments.experiment import Experiment, run_experiment
from neuronsplit.growing.which import POLICIES, Policy, argmax
from neuronsplit.names import EXPERIMENT, RESULTS_VERSION
from neuronsplit.study import progress, store
from neuronsplit.study.batches import Batch
from neuronsplit.study.store import load_or_run

TINY = Experiment(width=3, splits=1, epochs=2)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def trained(monkeypatch):
    """The policies and the seeds of each program that is trained."""
    calls, run = [], Experiment.train

    def spy(group, seeds):
        calls.append(([e.policy for e in group], list(seeds)))
        return run(group, seeds)

    monkeypatch.setattr(Experiment, "train", staticmethod(spy))
    return calls


def saved(folder):
    return sorted(folder.rglob("*.parquet"))


def content(folder):
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in saved(folder)}


def of_policy(table, policy):
    return table[table.policy == policy].reset_index(drop=True)


def last_one(mlp, blocks):
    return torch.arange(mlp.width).expand(mlp.n_replicas, -1)


def raising(error, epoch=1):
    """A score that raises at the end of some epoch of a network that starts with SMALL.width neurons."""

    def score(mlp, blocks):
        if mlp.width >= SMALL.width + epoch - 1:
            raise error
        return last_one(mlp, blocks)

    return score


def test_a_saved_table_is_the_one_that_was_computed(tmp_path):
    """Controls come first, though they train last; dtypes and order are those of run_experiment."""
    experiments = [replace(SMALL, policy=p) for p in ("no-split", "random", "max-loss", "greedy")]
    found = load_or_run(experiments, SEEDS, str(tmp_path / "new" / "folder"))
    assert found.policy.unique().tolist() == ["no-split", "random", "max-loss", "greedy"]
    for e in experiments:
        rows, expected = of_policy(found, e.policy), run_experiment(e, SEEDS)
        assert list(rows) == list(expected)
        pd.testing.assert_series_equal(rows.split_neuron, expected.split_neuron)
        pd.testing.assert_frame_equal(rows, expected, rtol=1e-4, check_dtype=False)
        if e.policy in ("no-split", "greedy"):  # which train by themselves
            pd.testing.assert_frame_equal(rows, expected, check_exact=True)
    assert len(saved(tmp_path)) == 1 and saved(tmp_path)[0].parent == tmp_path / "new" / "folder" / "units"


@pytest.mark.long
def test_all_splits_are_saved_as_they_were_computed(tmp_path):
    experiments = [ExhaustiveSplits(width=3, epochs_before=n) for n in (1, 2)]
    found = load_or_run(experiments, [4, 3], tmp_path)
    for e in experiments:
        rows = found[found.epochs_before == e.epochs_before].reset_index(drop=True)
        expected = run_experiment(e, [3, 4])
        expected = expected.sort_values(["horizon", "seed"], kind="stable", ignore_index=True)
        order = ["horizon", "seed", "branch_type", "neuron", "loss_shuffle_0"]
        pd.testing.assert_frame_equal(
            rows.sort_values(order, ignore_index=True)[list(expected)],
            expected.sort_values(order, ignore_index=True), rtol=1e-4,
        )  # fmt: skip
    assert len(saved(tmp_path)) == 1


def test_a_file_says_what_produced_it(tmp_path):
    load_or_run([SMALL, replace(SMALL, policy="no-split")], SEEDS, tmp_path)
    (file,) = saved(tmp_path)
    made_by, table = ns.provenance(file), pd.read_parquet(file)
    assert made_by["experiments"] == [asdict(SMALL), asdict(replace(SMALL, policy="no-split"))]
    assert made_by["seeds"] == [0, 1, 2] and made_by["results"] == RESULTS_VERSION and made_by["seconds"] > 0
    assert torch.__version__.startswith(made_by["versions"]["torch"])
    assert made_by["versions"]["neuronsplit"] == ns.__version__
    assert datetime.fromisoformat(made_by["finished"]).tzinfo and {"commit", "machine"} <= set(made_by)
    assert set(table[EXPERIMENT]) == {SMALL.id, replace(SMALL, policy="no-split").id}
    assert {str(table[name].dtype) for name in METRICS if name.endswith("loss")} == {"float32"}


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    circumstances._commit.cache_clear()
    assert circumstances.circumstances()["commit"] is None
    circumstances._commit.cache_clear()


def test_what_is_finished_is_read_and_not_trained_again(tmp_path, trained):
    first, before = load_or_run([SMALL], SEEDS, tmp_path), content(tmp_path)
    assert trained == [(["random"], [0, 1, 2])]
    pd.testing.assert_frame_equal(load_or_run([SMALL], SEEDS, tmp_path), first, check_exact=True)
    fewer = load_or_run([SMALL], [2, 0], tmp_path)
    pd.testing.assert_frame_equal(fewer, first[first.seed != 1].reset_index(drop=True), check_exact=True)
    assert len(trained) == 1 and content(tmp_path) == before


def test_only_what_is_missing_is_trained(tmp_path, trained):
    """More policies, then more seeds, then both at once; each adds a file, and changes none."""
    policies = ["no-split", "random", "max-loss", "min-fire"]
    experiments = [replace(SMALL, policy=policy) for policy in policies]
    steps = [
        (experiments[:2], [0, 1], [(["no-split"], [0, 1]), (["random"], [0, 1])]),
        (experiments[:3], [0, 1], [(["max-loss"], [0, 1])]),
        (experiments[:3], [0, 1, 2], [(["no-split"], [2]), (["random", "max-loss"], [2])]),
        (
            experiments, [1, 5, 0],
            [(["no-split"], [5]), (["random", "max-loss"], [5]), (["min-fire"], [1, 5, 0])],
        ),
    ]  # fmt: skip
    for chosen, seeds, expected in steps:
        before = content(tmp_path)
        table = load_or_run(chosen, seeds, tmp_path)
        assert sorted(trained) == sorted(expected)
        assert content(tmp_path).items() >= before.items()
        assert table.groupby("policy", sort=False)["seed"].unique().map(sorted).to_dict() == {
            e.policy: sorted(seeds) for e in chosen
        }
        trained.clear()
    for policy in policies:
        rows, alone = of_policy(table, policy), run_experiment(replace(SMALL, policy=policy), [0, 1, 5])
        assert rows.split_neuron.equals(alone.split_neuron)
        pd.testing.assert_frame_equal(rows, alone, rtol=1e-4, check_dtype=False)


def test_units_of_seeds_put_together_are_the_experiment_trained_whole(tmp_path):
    experiments = [replace(SMALL, policy=policy) for policy in ("random", "max-loss")]
    for seeds in ([3, 4], [0, 1, 2]):
        load_or_run(experiments, seeds, tmp_path / "parts")
    assert len(saved(tmp_path / "parts")) == 2
    found, whole = (load_or_run(experiments, range(5), tmp_path / name) for name in ("parts", "whole"))
    assert len(saved(tmp_path / "parts")) == 2
    pd.testing.assert_frame_equal(found, whole, rtol=1e-4)


@pytest.mark.parametrize("other", [{}, {"growth": "even", "schedule": "plateau"}])
def test_what_trains_the_same_is_trained_once(other, tmp_path, trained):
    """The same experiment twice in a list, and a control whose growth and schedule have no effect."""
    control = replace(SMALL, policy="no-split")
    load_or_run([control, replace(control, **other)], SEEDS, tmp_path)
    assert trained == [(["no-split"], [0, 1, 2])]
    held, _ = read_results(tmp_path)
    assert held[control.id].groupby(["seed", "epoch"]).size().max() == 1
    table = load_or_run([replace(control, growth="outgoing")], SEEDS, tmp_path)
    assert len(trained) == 1 and set(table.growth) == {"outgoing"} and len(table) == 18


ERRORS = [ZeroDivisionError("two\nlines"), SystemExit(3), KeyError("a"), RuntimeError(), MemoryError("CUDA")]


@pytest.mark.parametrize("error", one_in(3, ERRORS), ids=lambda error: type(error).__name__)
def test_a_policy_that_raises_does_not_take_its_unit_along(error, tmp_path, trained, monkeypatch):
    """Early or late, alone or with others; the others are what they are by themselves."""
    monkeypatch.setitem(POLICIES, "early", Policy(raising(error), argmax))
    monkeypatch.setitem(POLICIES, "late", Policy(raising(error, epoch=4), argmax))
    names = ["random", "early", "max-loss", "late", "no-split"]
    experiments = [replace(SMALL, policy=name) for name in names]
    text = " ".join(f"{type(error).__name__}: {error}".split())
    with pytest.raises(RuntimeError) as caught:
        load_or_run(experiments, SEEDS, tmp_path)
    assert str(caught.value) == f"2 of 5 experiments failed, first early: {text}"
    held, problems = read_results(tmp_path)
    assert sorted(held) == sorted(e.id for e in experiments if e.policy not in ("early", "late")) and not problems
    for name in ("random", "max-loss", "no-split"):
        rows, alone = held[replace(SMALL, policy=name).id], run_experiment(replace(SMALL, policy=name), SEEDS)
        rows = rows.sort_values(["epoch", "seed"], ignore_index=True)[list(alone)]
        assert rows.split_neuron.equals(alone.split_neuron)
        pd.testing.assert_frame_equal(rows, alone, rtol=1e-4, check_dtype=False)
    (noted,) = progress.read(tmp_path / "units").values()
    assert noted.errors == {e.id: text for e in experiments if e.policy in ("early", "late")} and not noted.running

    trained.clear()
    before = content(tmp_path)
    for name in ("early", "late"):
        monkeypatch.setitem(POLICIES, name, Policy(last_one, argmax))
    table = load_or_run(experiments, SEEDS, tmp_path)
    assert trained == [(["early", "late"], [0, 1, 2])] and content(tmp_path).items() >= before.items()
    assert table.policy.unique().tolist() == names
    noted = [unit.errors for unit in progress.read(tmp_path / "units").values()]
    assert not {e.id for e in experiments} & {name for errors in noted for name in errors}


def test_a_file_names_those_experiments_only_that_it_holds(tmp_path, monkeypatch):
    monkeypatch.setitem(POLICIES, "bad", Policy(raising(ValueError("no")), argmax))
    with pytest.raises(RuntimeError, match="^1 of 2 experiments failed, first bad: ValueError: no$"):
        load_or_run([replace(SMALL, policy="bad"), SMALL], SEEDS, tmp_path)
    (file,) = saved(tmp_path)
    assert ns.provenance(file)["experiments"] == [asdict(SMALL)]


def test_where_all_experiments_fail_no_file_is_left(tmp_path, monkeypatch):
    monkeypatch.setitem(POLICIES, "bad", Policy(raising(ValueError("no")), argmax))
    with pytest.raises(RuntimeError, match="^1 of 1 experiments failed, first bad: ValueError: no$"):
        load_or_run([replace(SMALL, policy="bad")], SEEDS, tmp_path)
    assert saved(tmp_path) == []


def test_an_interrupted_experiment_is_not_taken_for_a_finished_one(tmp_path, monkeypatch):
    whole = Experiment.train

    def interrupted(group, seeds):
        yield next(whole(group, seeds))
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "train", staticmethod(interrupted))
    with pytest.raises(KeyboardInterrupt):
        load_or_run([SMALL], SEEDS, tmp_path)
    assert read_results(tmp_path) == ({}, [])
    monkeypatch.undo()
    assert len(load_or_run([SMALL], SEEDS, tmp_path)) == 18


def cut(file):
    file.write_bytes(file.read_bytes()[:-50])


def flipped(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def of_another_program(file):
    pd.DataFrame({"policy": ["random"], "seed": [0]}).to_parquet(file)


def of_another_version(file):
    files.write_table(pd.read_parquet(file), file, ns.provenance(file) | {"results": RESULTS_VERSION - 1})


def empty(file):
    file.write_bytes(b"")


def text(file):
    file.write_text("policy,seed\nrandom,0\n")


@pytest.mark.parametrize("spoil", [cut, flipped, of_another_program, of_another_version, empty, text])
def test_a_file_that_cannot_be_used_stays_as_it_is_and_what_it_should_hold_is_trained(spoil, tmp_path, trained):
    whole = load_or_run([SMALL], SEEDS, tmp_path)
    spoiled, trained[:] = {}, []
    for _ in range(3):
        file = next(file for file in saved(tmp_path) if file not in spoiled)
        spoil(file)
        spoiled[file] = file.read_bytes()
        held, problems = read_results(tmp_path)
        assert held == {} and len(problems) == len(spoiled) and any(file.name in line for line in problems)
        pd.testing.assert_frame_equal(load_or_run([SMALL], SEEDS, tmp_path), whole, check_exact=True)
        assert {file: file.read_bytes() for file in spoiled} == spoiled
    assert trained == [(["random"], [0, 1, 2])] * 3 and len(saved(tmp_path)) == 4


def test_results_of_another_version_of_the_maths_are_not_mixed_in(tmp_path, monkeypatch, trained):
    for module in (files, base, circumstances):
        monkeypatch.setattr(module, "RESULTS_VERSION", RESULTS_VERSION - 1)
    load_or_run([SMALL], [0, 1], tmp_path)
    monkeypatch.undo()
    before = content(tmp_path)
    table = load_or_run([SMALL], SEEDS, tmp_path)
    assert len(table) == 18 and content(tmp_path).items() > before.items()
    held, (problem,) = read_results(tmp_path)
    assert held[SMALL.id]["seed"].unique().tolist() == [0, 1, 2]
    assert problem.endswith(f"(results version {RESULTS_VERSION - 1}): allowed is version {RESULTS_VERSION}")


def test_a_folder_may_be_moved_zipped_and_merged(tmp_path, trained):
    control, other = replace(SMALL, policy="no-split"), replace(SMALL, width=5)
    for folder, held in (("a", [SMALL, control]), ("b", [SMALL, other])):
        load_or_run(held, [0], tmp_path / folder)
    for n, file in enumerate(saved(tmp_path / "b")):  # merged under any name, one experiment in both
        shutil.copy(file, tmp_path / "a" / "units" / f"{n} of b.parquet")
    shutil.copytree(tmp_path / "b", tmp_path / "a" / "deep" / "er")
    shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "elsewhere")
    trained.clear()
    for place in (tmp_path / "elsewhere", tmp_path / "study.zip"):
        table = ns.read_table(place)
        assert table.groupby(["policy", "width"], sort=False).size().to_dict() == {
            ("no-split", 4): 6, ("random", 4): 6, ("random", 5): 6,
        }  # fmt: skip
        labels = tables.with_labels(table).policy.unique().tolist()
        assert sorted(labels) == ["no-split · width 4", "random · width 4", "random · width 5"]
    assert len(load_or_run([SMALL, control, other], [0], tmp_path / "elsewhere")) == 18 and trained == []


def test_experiments_of_several_lengths_and_of_more_seeds_later_are_compared(tmp_path):
    few, longer = Experiment(width=3, splits=1, epochs=2), Experiment(width=3, splits=1, epochs=4)
    for experiment, seeds in ((few, 2), (few, 3), (longer, 3)):
        load_or_run([experiment], range(seeds), tmp_path)
    table = tables.with_labels(ns.read_table(tmp_path))
    assert tables.summary(table, "test_loss").n.to_dict() == {"random · epochs 2": 3, "random · epochs 4": 3}
    assert len(tables.final_values(table, "test_loss")) == 3


def test_a_control_or_a_neuron_without_parent_that_was_trained_twice_is_read_once(tmp_path, trained):
    """Growth and schedule of a control, and the policy of a growth without a parent, have no effect."""
    control, added = replace(TINY, policy="no-split"), replace(TINY, growth="zero-outgoing")
    for experiment, n_seeds in (
        (control, 1), (replace(control, growth="even"), 2), (added, 1), (replace(added, policy="max-loss"), 1),
        (TINY, 1), (replace(TINY, policy="max-loss"), 1),
    ):  # fmt: skip
        load_or_run([experiment], range(n_seeds), tmp_path)
    assert [seeds for policies, seeds in trained if policies == ["no-split"]] == [[0], [1]] and len(trained) == 5
    table = ns.read_table(tmp_path)
    last = table[table.epoch == 2]
    assert last.groupby(["policy", "seed"]).size().to_dict() == {
        ("max-loss", 0): 1, ("no-split", 0): 1, ("no-split", 1): 1, ("random", 0): 2,
    }  # fmt: skip
    assert set(last[last.policy == "random"].growth) == {"scaled", "zero-outgoing"}


def test_policies_of_any_name_and_learning_rates_of_many_digits_come_back(tmp_path, monkeypatch):
    """Whatever they are called: what looks like a missing value, or like a number, stays a name."""
    names = ["None", "NA", "nan", "null", "1", "größe"]
    for name in names:
        monkeypatch.setitem(POLICIES, name, POLICIES["max-loss"])
    rates = [0.05, 0.05000001, np.nextafter(0.05, 1).item()]
    experiments = [replace(TINY, policy=name, learning_rate=rate) for name in names for rate in rates]
    table = load_or_run(experiments, [0], tmp_path)
    assert table.policy.unique().tolist() == names and table.learning_rate.unique().tolist() == rates
    assert len(table) == len(names) * len(rates) * 2
    pd.testing.assert_frame_equal(load_or_run(experiments, [0], tmp_path), table, check_exact=True)
    monkeypatch.undo()  # where they are not registered
    load_or_run([TINY, replace(TINY, policy="no-split")], [0], tmp_path)
    assert ns.read_table(tmp_path).policy.unique().tolist() == ["no-split", *sorted([*names, "random"])]


def test_a_policy_that_is_registered_anew_is_trained_anew(tmp_path, monkeypatch, trained):
    def first_one(mlp, blocks):
        return -torch.arange(mlp.width).expand(mlp.n_replicas, -1)

    for score, neuron in ((first_one, 0), (last_one, 2), (first_one, 0)):
        monkeypatch.setitem(POLICIES, "mine", Policy(score, argmax))
        table = load_or_run([replace(TINY, policy="mine")], [0], tmp_path)
        assert table.split_neuron.dropna().tolist() == [str(neuron)]
    assert len(saved(tmp_path)) == len(trained) == 2


def test_data_of_ones_own_that_have_changed_are_trained_anew(tmp_path, monkeypatch, trained):
    losses = []
    for seed in (0, 1, 0):
        monkeypatch.setitem(DATASETS, "mine", lambda seed=seed: random_data(seed))
        losses.append(load_or_run([replace(TINY, dataset="mine")], [0], tmp_path).train_loss.tolist())
    assert losses[0] == losses[2] != losses[1] and len(trained) == 2


def test_a_unit_that_is_run_twice_at_once_is_trained_once(tmp_path, trained):
    found = []
    threads = [threading.Thread(target=lambda: found.append(load_or_run([SMALL], SEEDS, tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trained) == len(saved(tmp_path)) == 1
    assert len(found) == 3 and all(table.equals(found[0]) for table in found)


def test_progress_is_noted_while_a_unit_trains_and_forgotten_when_it_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "NOTE_SECONDS", 0)
    experiments, noted = [replace(SMALL, policy=p) for p in ("no-split", "random", "max-loss")], []
    run = Experiment.train

    def watched(group, seeds):
        for tables_of_epoch in run(group, seeds):
            noted.extend(progress.read(tmp_path / "units").items())
            yield tables_of_epoch

    monkeypatch.setattr(Experiment, "train", staticmethod(watched))
    load_or_run(experiments, SEEDS, tmp_path)
    name = Batch(tuple(experiments), SEEDS).name
    assert {one for one, _ in noted} == {name} and all(unit.running for _, unit in noted)
    assert [unit.at for _, unit in noted] == [f"epoch {n} of 6" for n in (1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5)]
    expected = [n / 6 / 2 for n in range(1, 12)]  # of two programs
    assert [unit.fraction for _, unit in noted] == pytest.approx(expected)
    assert progress.read(tmp_path / "units") == {}


@pytest.mark.parametrize("seeds", [[], [0, 0], [-1], ["0"]])
def test_seeds_that_are_not_allowed_are_refused_and_nothing_is_left(seeds, tmp_path):
    with pytest.raises(ValueError, match="^seeds .*: allowed are different whole numbers from 0 to 4294967296$"):
        load_or_run([SMALL], seeds, tmp_path / "new")
    assert not (tmp_path / "new").exists()
