import gzip
import json
import math
import shutil
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import plain
import pytest
import torch

from neuronsplit import compare, study
from neuronsplit.data import load_dataset
from neuronsplit.growth import GROWTHS, WITHOUT_PARENT
from neuronsplit.model import MLP
from neuronsplit.optimizers import start
from neuronsplit.policies import POLICIES
from neuronsplit.seeds import stream
from neuronsplit.split import RULES
from neuronsplit.study import (
    COLUMNS,
    GREEDY,
    Experiment,
    load,
    obtain,
    policy_names,
    run_epochs,
    run_experiment,
    together,
)
from neuronsplit.training import SCHEDULES, train_epoch

SMALL = Experiment(width=4, splits=4, still=2, repeats=3)
MEASURES = [name for name in COLUMNS if name.endswith(("_loss", "_accuracy"))]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


VARIANTS = [
    *({"policy": policy} for policy in policy_names() if policy not in ("learned", GREEDY)),
    {"policy": GREEDY, "repeats": 2},  # whose choices are not as near to a tie as that of the third
    *({"rule": rule} for rule in RULES),
    *({"schedule": schedule, "splits": 6, "still": 6} for schedule in SCHEDULES),
    *(
        {"optimizer": o, "learning_rate": 0.005, "rule": r}
        for o in ("momentum", "adam")
        for r in ("scaled", "outgoing")
    ),
]


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: "-".join(map(str, changes.values())))
def test_an_experiment_equals_the_plain_way_one_network_at_a_time(changes):
    experiment = replace(SMALL, **changes)
    table = run_experiment(experiment)
    for seed, rows in table.groupby("seed"):
        plainly = plain.run_greedily if experiment.policy == GREEDY else plain.run
        expected = pd.DataFrame(plainly(experiment, load_dataset("digits"), seed))
        assert rows.split_neuron.dropna().tolist() == expected.split_neuron.dropna().tolist()
        assert rows.hidden.tolist() == expected.hidden.tolist()
        assert rows.parameters.tolist() == expected.parameters.tolist()
        np.testing.assert_allclose(rows[MEASURES], expected[MEASURES], rtol=2e-4)


@pytest.mark.parametrize("policy", policy_names())
def test_a_repeat_alone_equals_the_same_repeat_in_a_batch(policy):
    batch = run_experiment(replace(SMALL, policy=policy))
    alone = run_experiment(replace(SMALL, policy=policy, seed=2, repeats=1))
    rows = batch[batch.seed == 2].reset_index(drop=True)
    pd.testing.assert_series_equal(rows.split_neuron, alone.split_neuron)
    np.testing.assert_allclose(rows[MEASURES], alone[MEASURES], rtol=1e-4)


@pytest.mark.parametrize("policy", policy_names())
def test_the_same_experiment_twice_gives_the_same_table_bit_for_bit(policy):
    experiment = replace(SMALL, policy=policy)
    pd.testing.assert_frame_equal(run_experiment(experiment), run_experiment(experiment), check_exact=True)


def test_policies_start_from_the_same_network_and_see_the_same_images():
    first = [run_experiment(replace(SMALL, policy=p)).query("epoch == 1") for p in policy_names()[1:]]
    for table in first[1:]:  # the first epoch ends before the policies part
        assert table.train_loss.tolist() == first[0].train_loss.tolist()


def test_the_table_has_the_columns_and_rows_of_the_design():
    table = run_experiment(SMALL)
    assert " ".join(table) == (
        "policy rule schedule dataset seed epoch hidden parameters split_neuron "
        "train_loss train_accuracy val_loss val_accuracy test_loss test_accuracy "
        "optimizer learning_rate width splits still batch_size last_batch_loss last_batch_accuracy"
    )
    assert len(table) == 3 * 6
    repeat = table[table.seed == 1]
    assert repeat.hidden.tolist() == [5, 6, 7, 8, 8, 8]
    assert repeat.parameters.tolist() == [64 * h + h + h * 10 + 10 for h in repeat.hidden]
    assert repeat.split_neuron.notna().tolist() == [True] * 4 + [False] * 2


def test_the_control_has_the_final_width_from_the_start():
    table = run_experiment(replace(SMALL, policy="no-split"))
    assert set(table.hidden) == {8} and table.split_neuron.isna().all()


def test_the_narrow_control_keeps_the_starting_width():
    table = run_experiment(replace(SMALL, policy="stay-narrow"))
    assert set(table.hidden) == {4} and table.split_neuron.isna().all()


def test_the_control_stopped_earlier_is_the_control_of_fewer_epochs():
    """So a control of as many multiply-adds as a growing run is read off the control's own table."""
    control = run_experiment(replace(SMALL, policy="no-split"))
    shorter = run_experiment(Experiment(policy="no-split", width=8, splits=0, still=4, repeats=3))
    control = control[control.epoch <= 4].assign(width=8, splits=0, still=4).reset_index(drop=True)
    pd.testing.assert_frame_equal(control, shorter, check_exact=True)


@pytest.mark.parametrize("rule", GROWTHS)
def test_every_way_to_grow_ends_at_the_final_width(rule):
    table = run_experiment(replace(SMALL, rule=rule))
    assert set(table[table.epoch >= 4].hidden) == {8}
    assert table.split_neuron.notna().sum() == 12
    assert (table.split_neuron.dropna() == "new").all() == (rule in WITHOUT_PARENT)


def test_experiments_train_together_as_alone():
    """All policies at once give the choices and, to rounding, the numbers of each by itself."""
    group = [replace(SMALL, policy=policy, width=5) for policy in POLICIES]
    assert together(group) == [group]
    tables = [pd.concat(parts, ignore_index=True) for parts in zip(*run_epochs(group))]
    for experiment, table in zip(group, tables):
        alone = run_experiment(experiment)
        assert table.split_neuron.equals(alone.split_neuron)
        pd.testing.assert_frame_equal(table, alone, rtol=1e-4, atol=1e-6)


def test_what_trains_together_differs_in_its_policy_alone():
    control, random, loss = (Experiment(policy) for policy in ("no-split", "random", "max-loss"))
    even, plateau = replace(random, rule="even"), replace(loss, schedule="plateau")
    late = replace(random, schedule="plateau")
    groups = together([control, random, even, plateau, loss, late])
    assert groups == [[control], [random, loss], [even], [plateau], [late]]


def test_what_has_no_effect_is_no_other_experiment():
    assert Experiment("no-split", rule="even", schedule="plateau") == Experiment("no-split")
    assert Experiment("max-loss", rule="fresh") == Experiment("random", rule="fresh")


def test_the_last_mini_batch_is_recorded():
    data, table = load_dataset("digits"), run_experiment(replace(SMALL, repeats=1, splits=0, still=1))
    mlp = MLP((64, 4, 10))
    optimizer = start("sgd", mlp, SMALL.learning_rate)
    losses, hits = train_epoch(mlp, data.train, [stream(0, "order")], optimizer, 32)
    assert table.last_batch_loss.item() == pytest.approx(losses[0, -32:].mean().item())
    assert table.last_batch_accuracy.item() == pytest.approx(hits[0, -32:].double().mean().item())


@pytest.mark.parametrize("rule", GROWTHS)
def test_divergence_stands_in_the_table(rule):
    table = run_experiment(replace(SMALL, learning_rate=1e30, rule=rule))
    assert not np.isfinite(table.test_loss[table.epoch == 6]).any()


def test_training_learns():
    last = run_experiment(Experiment()).query("epoch == 20")
    assert last.test_accuracy.mean() > 0.85


@pytest.mark.parametrize(
    "name, value, allowed",
    [
        ("policy", "max_loss", "no-split, stay-narrow, random, max-loss, min-loss, loss-probs, max-fire"),
        ("policy", None, "no-split, stay-narrow, random"),
        ("dataset", "mnist", "fashion-mnist, fashion-mnist-2021, digits"),
        ("rule", "halved", "scaled, even, outgoing, scaled-outgoing, opposed, noisy, steepest, fresh, gradmax"),
        ("schedule", "never", "every-epoch, 5-every-5, at-once, at-first, at-tenth, plateau"),
        ("optimizer", "lbfgs", "sgd, momentum, adam"),
        ("width", 0, "whole numbers from 1"),
        ("width", 2.5, "whole numbers from 1"),
        ("width", True, "whole numbers from 1"),
        ("splits", -1, "whole numbers from 0"),
        ("still", "5", "whole numbers from 0"),
        ("repeats", 0, "whole numbers from 1"),
        ("seed", -3, "whole numbers from 0"),
        ("batch_size", 0, "whole numbers from 1"),
        ("learning_rate", 0, "numbers above 0"),
        ("learning_rate", "1e-3", "numbers above 0"),
        ("learning_rate", math.nan, "numbers above 0"),
        ("learning_rate", math.inf, "numbers above 0"),
    ],
)
def test_a_value_not_allowed_is_named(name, value, allowed):
    with pytest.raises(ValueError, match=f"^{name} {value!r}: allowed are {allowed}"):
        Experiment(**{name: value})


@pytest.mark.parametrize("changes", [{"still": 0}, {"schedule": "at-first"}, {"rule": "noisy"}, {"rule": "fresh"}])
def test_greedy_has_to_look_an_epoch_ahead_at_exact_splits(changes):
    message = "^policy 'greedy' with rule '.*', schedule '.*', still .*: allowed are exact splits, 'every-epoch' and"
    with pytest.raises(ValueError, match=message):
        Experiment("greedy", **changes)


def test_other_weights_make_another_experiment_of_the_policy_that_they_decide(monkeypatch, tmp_path):
    before = Experiment("learned").name, Experiment("random").name
    monkeypatch.setattr(study.learned, "FILE", tmp_path / "other.npz")
    (tmp_path / "other.npz").write_bytes(b"other")
    assert Experiment("learned").name != before[0] and Experiment("random").name == before[1]


def test_a_schedule_that_does_not_come_to_its_splits_is_refused():
    message = "^schedule 'at-tenth' makes 0 of 4 splits in 6 epochs: allowed are as many still epochs as it needs$"
    with pytest.raises(ValueError, match=message):
        replace(SMALL, schedule="at-tenth")


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.csv does not exist: make run and make publish make such tables"):
        study.read_table(tmp_path / "none.csv")


def test_no_epoch_at_all_is_refused():
    with pytest.raises(ValueError, match="^splits 0 with still 0: allowed are at least one epoch$"):
        Experiment(splits=0, still=0)


def test_a_batch_larger_than_the_training_set_is_refused():
    with pytest.raises(ValueError, match="^batch_size 1201: allowed are 1 to 1200 on digits$"):
        run_experiment(Experiment(batch_size=1201))


def test_a_whole_number_as_learning_rate_is_the_same_experiment():
    assert Experiment(learning_rate=1).name == Experiment(learning_rate=1.0).name


def test_every_field_is_in_the_name():
    changed = {"policy": "max-fire", "dataset": "fashion-mnist", "rule": "even", "schedule": "at-once"}
    changed |= {"optimizer": "adam"}
    names = {SMALL.name}
    for field, value in asdict(SMALL).items():
        other = changed.get(field, value + 1 if isinstance(value, int | float) else value)
        names.add(replace(SMALL, **{field: other}).name)
    assert len(names) == len(asdict(SMALL)) + 1


def test_a_finished_experiment_is_read_and_not_run_again(tmp_path, monkeypatch):
    first = obtain(SMALL, tmp_path)
    monkeypatch.setattr(study, "run_epochs", lambda experiment: pytest.fail("ran again"))
    pd.testing.assert_frame_equal(obtain(SMALL, tmp_path), first)
    assert sorted(f.suffix for f in tmp_path.iterdir()) == [".csv", ".json"]


def test_a_saved_table_is_the_one_that_was_computed(tmp_path):
    expected = run_experiment(SMALL)
    found = obtain(SMALL, tmp_path)
    pd.testing.assert_series_equal(found.split_neuron, expected.split_neuron)
    np.testing.assert_allclose(found[MEASURES], expected[MEASURES], rtol=1e-5)


def test_an_interrupted_experiment_is_not_taken_for_a_finished_one(tmp_path, monkeypatch):
    whole = study.run_epochs

    def interrupted(experiment):
        yield next(whole(experiment))
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "run_epochs", interrupted)
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
    pd.testing.assert_frame_equal(study.read_table(packed)[0], whole)
    packed.write_bytes(spoil(packed.read_bytes()))
    with pytest.raises(ValueError, match=f"{packed.name} {message}"):
        study.read_table(packed)


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    study._commit.cache_clear()
    assert study.circumstances()["commit"] is None
    study._commit.cache_clear()


def test_what_produced_a_table_stands_beside_it(tmp_path):
    obtain(SMALL, tmp_path)
    about = json.loads((tmp_path / f"{SMALL.name}.json").read_text())
    assert about["experiment"] == asdict(SMALL)
    assert about["versions"]["torch"] == torch.__version__
    assert {"sha256", "seconds", "finished", "commit", "machine"} <= set(about)


def test_experiments_of_several_lengths_and_of_more_repeats_later_are_compared(tmp_path):
    few, many, longer = (Experiment(width=3, splits=1, **one) for one in (
        {"still": 1, "repeats": 2}, {"still": 1, "repeats": 3}, {"still": 3, "repeats": 3}
    ))  # fmt: skip
    for experiment in (few, many, longer):
        obtain(experiment, tmp_path)
    table = compare.named(study.read_results(tmp_path)[0])
    found = compare.summary(table, "test_loss")
    assert found.n.to_dict() == {"random · still 1": 3, "random · still 3": 3}
    assert len(compare.ends(table, "test_loss")) == 3


def test_results_of_another_version_are_refused(tmp_path, monkeypatch):
    obtain(replace(SMALL, repeats=1), tmp_path)
    monkeypatch.setattr(study, "RESULTS", study.RESULTS + 1)
    with pytest.raises(ValueError, match=r"is of another version or kind: allowed are experiments of .* \(results"):
        study.read_results(tmp_path)


def test_a_folder_may_be_moved_zipped_and_merged(tmp_path):
    random, control = replace(SMALL, repeats=1), replace(SMALL, repeats=1, policy="no-split")
    other = replace(random, width=5)
    for folder, held in (("a", [random, control]), ("b", [random, other])):
        for experiment in held:
            obtain(experiment, tmp_path / folder)
    (tmp_path / "b" / "inner").mkdir()
    (tmp_path / "b").rename(tmp_path / "a" / "b")  # merged, one experiment in both
    shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "elsewhere")
    for place in (tmp_path / "elsewhere", tmp_path / "study.zip"):
        table, about = study.read_results(place)
        assert table.groupby(["policy", "width"], sort=False).size().to_dict() == {
            ("no-split", 4): 6, ("random", 4): 6, ("random", 5): 6,
        }  # fmt: skip
        assert about["parameters"]["width"] == [4, 5] and about["parameters"]["policy"] == ["no-split", "random"]
        named = compare.named(table).policy.unique().tolist()
        assert sorted(named) == ["no-split · width 4", "random · width 4", "random · width 5"]
    (tmp_path / "elsewhere" / f"{control.name}.csv").write_text("damaged")
    with pytest.raises(ValueError, match="wrong checksum"):
        study.read_results(tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no finished experiment: allowed are folders of a study"):
        study.read_results(tmp_path / "empty")
