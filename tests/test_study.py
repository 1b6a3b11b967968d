import math
import re
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import reference
import torch

from neuronsplit.core.mlp import MLP
from neuronsplit.core.split import SPLIT_RULES
from neuronsplit.data.datasets import DATASETS, Dataset, Subset, load_dataset
from neuronsplit.growing.how import GROWTHS
from neuronsplit.growing.train import Run
from neuronsplit.growing.when import SCHEDULES, Schedule
from neuronsplit.growing.which import POLICIES, Policy
from neuronsplit.names import GREEDY, NO_PARENT, TABLE_COLUMNS
from neuronsplit.study import experiment as study
from neuronsplit.study.experiment import Experiment, policy_names, run_epochs, run_experiment
from neuronsplit.study.grid import experiments
from neuronsplit.study.store import together

SMALL = Experiment(width=4, splits=4, epochs=6, n_seeds=3)
METRICS = [name for name in TABLE_COLUMNS if name.endswith(("_loss", "_accuracy"))]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


VARIANTS = [
    *({"policy": policy} for policy in policy_names() if policy not in ("learned", GREEDY)),
    {"policy": GREEDY, "n_seeds": 2},  # whose choices are not as near to a tie as that of the third
    *({"growth": rule} for rule in SPLIT_RULES),
    *({"schedule": schedule, "splits": 6, "epochs": 12} for schedule in SCHEDULES),
    *(
        {"optimizer": o, "learning_rate": 0.005, "growth": growth}
        for o in ("momentum", "adam")
        for growth in ("scaled", "outgoing")
    ),
]


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: "-".join(map(str, changes.values())))
def test_an_experiment_equals_the_reference_one_network_at_a_time(changes):
    experiment = replace(SMALL, **changes)
    table = run_experiment(experiment)
    for seed, rows in table.groupby("seed"):
        run = reference.run_greedily if experiment.policy == GREEDY else reference.run
        expected = pd.DataFrame(run(experiment, load_dataset("digits"), seed))
        assert rows.split_neuron.dropna().tolist() == expected.split_neuron.dropna().tolist()
        assert rows.hidden.tolist() == expected.hidden.tolist()
        assert rows.parameters.tolist() == expected.parameters.tolist()
        np.testing.assert_allclose(rows[METRICS], expected[METRICS], rtol=2e-4)


@pytest.mark.parametrize("policy", policy_names())
def test_a_seed_alone_equals_the_same_seed_in_a_batch(policy):
    batch = run_experiment(replace(SMALL, policy=policy))
    alone = run_experiment(replace(SMALL, policy=policy, seed=2, n_seeds=1))
    rows = batch[batch.seed == 2].reset_index(drop=True)
    pd.testing.assert_series_equal(rows.split_neuron, alone.split_neuron)
    np.testing.assert_allclose(rows[METRICS], alone[METRICS], rtol=1e-4)


@pytest.mark.parametrize("policy", policy_names())
def test_the_same_experiment_twice_gives_the_same_table_bit_for_bit(policy):
    experiment = replace(SMALL, policy=policy)
    pd.testing.assert_frame_equal(run_experiment(experiment), run_experiment(experiment), check_exact=True)


def test_policies_start_from_the_same_network_and_see_the_same_images():
    first = [run_experiment(replace(SMALL, policy=p)).query("epoch == 1") for p in policy_names()[1:]]
    for table in first[1:]:  # the policies have not chosen before the end of the first epoch
        assert table.train_loss.tolist() == first[0].train_loss.tolist()


def test_the_table_has_the_columns_and_rows_of_the_design():
    table = run_experiment(SMALL)
    assert " ".join(table) == (
        "policy growth schedule dataset seed epoch hidden parameters split_neuron "
        "train_loss train_accuracy val_loss val_accuracy test_loss test_accuracy "
        "optimizer learning_rate width splits epochs batch_size last_batch_loss last_batch_accuracy"
    )
    assert len(table) == 3 * 6
    rows = table[table.seed == 1]
    assert rows.hidden.tolist() == [5, 6, 7, 8, 8, 8]
    assert rows.parameters.tolist() == [64 * h + h + h * 10 + 10 for h in rows.hidden]
    assert rows.split_neuron.notna().tolist() == [True] * 4 + [False] * 2


def test_the_control_has_the_final_width_from_the_start():
    table = run_experiment(replace(SMALL, policy="no-split"))
    assert set(table.hidden) == {8} and table.split_neuron.isna().all()


def test_the_narrow_control_keeps_the_starting_width():
    table = run_experiment(replace(SMALL, policy="stay-narrow"))
    assert set(table.hidden) == {4} and table.split_neuron.isna().all()


def test_the_control_stopped_earlier_is_the_control_of_fewer_epochs():
    """So a control of as many multiply-adds as a growing run is read off the control's own table."""
    control = run_experiment(replace(SMALL, policy="no-split"))
    shorter = run_experiment(Experiment(policy="no-split", width=8, splits=0, epochs=4, n_seeds=3))
    control = control[control.epoch <= 4].assign(width=8, splits=0, epochs=4).reset_index(drop=True)
    pd.testing.assert_frame_equal(control, shorter, check_exact=True)


@pytest.mark.parametrize("growth", GROWTHS)
def test_every_growth_ends_at_the_final_width(growth):
    table = run_experiment(replace(SMALL, growth=growth))
    assert set(table[table.epoch >= 4].hidden) == {8}
    assert table.split_neuron.notna().sum() == 12
    assert (table.split_neuron.dropna() == NO_PARENT).all() != GROWTHS[growth].needs_parent


def test_experiments_train_together_as_alone():
    """All policies at once give the choices and, up to rounding, the numbers of each by itself."""
    group = [replace(SMALL, policy=policy, width=5) for policy in POLICIES]
    assert together(group) == [group]
    tables = [pd.concat(parts, ignore_index=True) for parts in zip(*run_epochs(group))]
    for experiment, table in zip(group, tables):
        alone = run_experiment(experiment)
        assert table.split_neuron.equals(alone.split_neuron)
        pd.testing.assert_frame_equal(table, alone, rtol=1e-4, atol=1e-6)


def test_what_trains_together_differs_in_its_policy_alone():
    control, random, loss = (Experiment(policy) for policy in ("no-split", "random", "max-loss"))
    even, plateau = replace(random, growth="even"), replace(loss, schedule="plateau")
    late = replace(random, schedule="plateau")
    groups = together([control, random, even, plateau, loss, late])
    assert groups == [[control], [random, loss], [even], [plateau], [late]]


@pytest.mark.parametrize("policy", ["no-split", "stay-narrow"])
def test_growth_and_schedule_of_a_control_have_no_effect_and_are_kept_as_given(policy):
    control = replace(SMALL, policy=policy)
    other = replace(control, growth="net2net", schedule="plateau")
    assert other.growth == "net2net" and other.schedule == "plateau" and not other.by_seed
    table, expected = run_experiment(other), run_experiment(control)
    assert set(table.growth) == {"net2net"} and set(table.schedule) == {"plateau"}
    pd.testing.assert_frame_equal(table.assign(growth="scaled", schedule="every-epoch"), expected, check_exact=True)


@pytest.mark.parametrize("growth", ["zero-outgoing", "gradmax"])
def test_the_policy_of_a_growth_without_parent_has_no_effect_and_is_kept_as_given(growth):
    table = run_experiment(replace(SMALL, policy="max-loss", growth=growth))
    expected = run_experiment(replace(SMALL, policy="random", growth=growth))
    assert set(table.policy) == {"max-loss"}
    pd.testing.assert_frame_equal(table.assign(policy="random"), expected, check_exact=True)


def test_the_last_mini_batch_is_recorded():
    data, table = load_dataset("digits"), run_experiment(replace(SMALL, n_seeds=1, splits=0, epochs=1))
    run = Run.start(MLP((64, 4, 10), [0]), [0], "sgd", SMALL.learning_rate, 32)
    losses, correct = run.epoch(data.train)
    assert table.last_batch_loss.item() == pytest.approx(losses[0, -32:].mean().item())
    assert table.last_batch_accuracy.item() == pytest.approx(correct[0, -32:].double().mean().item())


@pytest.mark.parametrize("growth", GROWTHS)
def test_divergence_stands_in_the_table(growth):
    table = run_experiment(replace(SMALL, learning_rate=1e30, growth=growth))
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
        ("growth", "halved", "scaled, even, outgoing, scaled-outgoing, antisymmetric, net2net, steepest-descent"),
        ("schedule", "never", "every-epoch, 5-per-5-epochs, all-at-half, all-at-1, all-at-10, plateau"),
        ("optimizer", "lbfgs", "sgd, momentum, adam"),
        ("width", 0, "whole numbers from 1"),
        ("width", 2.5, "whole numbers from 1"),
        ("width", True, "whole numbers from 1"),
        ("splits", -1, "whole numbers from 0"),
        ("epochs", 0, "whole numbers from 1"),
        ("epochs", "5", "whole numbers from 1"),
        ("n_seeds", 0, "whole numbers from 1"),
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


@pytest.mark.parametrize(
    "changes", [{"epochs": 10}, {"schedule": "all-at-1"}, {"growth": "net2net"}, {"growth": "zero-outgoing"}]
)
def test_greedy_has_to_look_an_epoch_ahead_at_exact_splits(changes):
    message = "^policy 'greedy' with growth '.*', schedule '.*', epochs .*: allowed are exact splits, 'every-epoch' and"
    with pytest.raises(ValueError, match=message):
        Experiment("greedy", **changes)


def test_a_schedule_that_does_not_make_all_splits_is_refused():
    message = (
        "^schedule 'all-at-10' makes 0 of 4 splits in 6 epochs: allowed are as many epochs as it needs "
        r"\(a schedule that looks at losses needs data_dependent=True\)$"
    )
    with pytest.raises(ValueError, match=message):
        replace(SMALL, schedule="all-at-10")
    with pytest.raises(ValueError, match="^schedule 'every-epoch' makes 10 of 20 splits in 10 epochs: allowed are as"):
        Experiment(splits=20, epochs=10)


@pytest.mark.parametrize(
    "due, given",
    [
        (lambda epoch, val_losses, splits_left: int(val_losses[-1] < 1), "'IndexError: list index out of range'"),
        (lambda epoch, val_losses, splits_left: None, "None"),
        (lambda epoch, val_losses, splits_left: 0.5, "0.5"),
        (lambda epoch, val_losses, splits_left: -1, "-1"),
    ],
)
def test_a_schedule_that_cannot_do_without_losses_has_to_say_so(due, given, monkeypatch):
    monkeypatch.setitem(SCHEDULES, "mine", Schedule(due))
    message = f"schedule 'mine' gives {given} at epoch 1: allowed are whole numbers from 0 (a schedule that looks at"
    with pytest.raises(ValueError, match="^" + re.escape(message + " losses needs data_dependent=True)") + "$"):
        replace(SMALL, schedule="mine")
    monkeypatch.setitem(SCHEDULES, "mine", Schedule(due, data_dependent=True))
    assert replace(SMALL, schedule="mine").by_seed


def test_seeds_of_a_schedule_that_looks_at_losses_train_one_by_one(monkeypatch):
    def by_parity(epoch, val_losses, splits_left):
        return int(val_losses[-1] * 1e6) % 2 if val_losses else 0

    monkeypatch.setitem(SCHEDULES, "mine", Schedule(by_parity, data_dependent=True))
    experiment = replace(SMALL, schedule="mine", epochs=10)
    table = run_experiment(experiment)
    alone = [run_experiment(replace(experiment, seed=seed, n_seeds=1)) for seed in (0, 1, 2)]
    pd.testing.assert_frame_equal(table, pd.concat(alone, ignore_index=True), check_exact=True)
    assert len({tuple(one.hidden) for one in alone}) == 3  # each grows at epochs of its own


def test_the_first_of_experiments_that_differ_in_an_unused_policy_is_kept():
    found = experiments({"policy": ["max-loss", "random", "no-split"], "growth": ["scaled", "gradmax"]})
    assert [(e.policy, e.growth) for e in found] == [
        ("max-loss", "scaled"), ("max-loss", "gradmax"), ("random", "scaled"), ("no-split", "scaled"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"rule": "even"}, "parameter 'rule': allowed is now growth"),
        ({"still": 10}, "parameter 'still': allowed is now epochs = splits + still"),
        ({"each": [{"repeats": 3}]}, "parameter 'repeats': allowed is now n_seeds"),
        ({"kind": "all-splits", "grown": 3}, "parameter 'grown': allowed is now prior_splits"),
        ({"kind": "all-splits", "zip": {"age": [3, 4]}}, "parameter 'age': allowed is now epochs_before"),
        ({"kind": "branches"}, "kind 'branches': allowed is now all-splits"),
        ({"kind": ["branches"]}, "kind ['branches']: allowed are experiment, all-splits"),
        ({"depth": 3}, f"parameter 'depth': allowed are {', '.join(asdict(SMALL))}"),
    ],
)
def test_a_name_of_an_earlier_version_is_refused_with_the_name_of_today(parameters, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        experiments(parameters)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_images_per_seed_are_refused_in_a_study(part, monkeypatch):
    data = random_data(0)
    own = Subset(*(torch.stack([values, values]) for values in getattr(data, part)))
    monkeypatch.setitem(DATASETS, "mine", lambda: data._replace(**{part: own}))
    message = "^dataset 'mine' has images per seed: allowed in a study are data that all seeds share$"
    with pytest.raises(ValueError, match=message):
        run_experiment(replace(SMALL, dataset="mine", n_seeds=2))


def test_a_control_may_have_fewer_epochs_than_splits_for_it_makes_none():
    assert Experiment("no-split", splits=20, epochs=10).epochs == 10


def test_a_batch_larger_than_the_training_set_is_refused():
    with pytest.raises(ValueError, match="^batch_size 1201: allowed are 1 to 1200 on digits$"):
        run_experiment(Experiment(batch_size=1201))


def test_a_whole_number_as_learning_rate_is_the_same_experiment():
    whole, real = Experiment(learning_rate=1), Experiment(learning_rate=1.0)
    assert whole == real and whole.name == real.name and type(whole.learning_rate) is int


def test_every_field_is_in_the_name(small_fashion_mnist):
    changed = {"policy": "max-fire", "dataset": "fashion-mnist", "growth": "even", "schedule": "all-at-half"}
    changed |= {"optimizer": "adam"}
    names = {SMALL.name}
    for field, value in asdict(SMALL).items():
        other = changed.get(field, value + 1 if isinstance(value, int | float) else value)
        names.add(replace(SMALL, **{field: other}).name)
    assert len(names) == len(asdict(SMALL)) + 1


@pytest.fixture
def small_fashion_mnist(monkeypatch):
    """Other data under that name, so that the test needs no download."""
    monkeypatch.setitem(DATASETS, "fashion-mnist", lambda: random_data(0))


def random_data(seed):
    rng = torch.Generator().manual_seed(seed)
    subsets = (Subset(torch.rand(n, 4, generator=rng), torch.arange(n) % 2) for n in (64, 32, 32))
    return Dataset(*subsets, shape=(2, 2), classes=("a", "b"))


def test_other_weights_make_another_experiment_of_the_policy_that_they_decide(monkeypatch, tmp_path):
    before = Experiment("learned").name, Experiment("random").name
    monkeypatch.setattr(study.learned, "FILE", tmp_path / "other.npz")
    (tmp_path / "other.npz").write_bytes(b"other")
    assert Experiment("learned").name != before[0] and Experiment("random").name == before[1]


def test_other_data_of_the_same_name_make_another_experiment(monkeypatch):
    names = []
    for seed in (0, 1, 0):
        monkeypatch.setitem(DATASETS, "mine", lambda seed=seed: random_data(seed))
        names.append(Experiment(dataset="mine").name)
    assert names[0] == names[2] != names[1]


def test_what_is_registered_is_allowed_at_once(monkeypatch):
    with pytest.raises(ValueError, match="^policy 'widest': allowed are"):
        Experiment("widest")
    monkeypatch.setitem(POLICIES, "widest", POLICIES["max-loss"])
    monkeypatch.setitem(GROWTHS, "mine", GROWTHS["even"])
    monkeypatch.setitem(SCHEDULES, "mine", SCHEDULES["every-epoch"])
    monkeypatch.setitem(DATASETS, "mine", lambda: random_data(0))
    experiment = Experiment("widest", "mine", "mine", "mine", width=2, splits=1, epochs=2, n_seeds=1)
    table = run_experiment(experiment)
    assert table.hidden.tolist() == [3, 3] and set(table.policy) == {"widest"}


def test_a_name_makes_a_file_name_of_any_system(monkeypatch):
    monkeypatch.setitem(POLICIES, "a/b: ½.x", Policy(*POLICIES["random"]))
    assert Experiment("a/b: ½.x").name.startswith("a_b____x-")
