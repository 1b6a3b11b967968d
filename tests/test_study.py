"""Experiments: values that decide everything about a table, and the table that each trains."""

import math
import re
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import reference
import torch
from sampling import one_in

from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import OPTIMIZERS
from neuronsplit.core.split import SPLIT_RULES
from neuronsplit.data.datasets import DATASETS, Dataset, Subset, load_dataset
from neuronsplit.experiments.base import policy_names
from neuronsplit.experiments.exhaustive_splits import ExhaustiveSplits
from neuronsplit.experiments.experiment import Experiment, run_experiment, train_growing
from neuronsplit.growing import learned
from neuronsplit.growing.how import GROWTHS
from neuronsplit.growing.train import Run
from neuronsplit.growing.when import SCHEDULES, Schedule
from neuronsplit.growing.which import POLICIES
from neuronsplit.names import EXPERIMENT, GREEDY, NO_PARENT, TABLE_COLUMNS
from neuronsplit.study.batches import Batch

SMALL = Experiment(width=4, splits=4, epochs=6)
SEEDS = (0, 1, 2)
METRICS = [name for name in TABLE_COLUMNS if name.endswith(("_loss", "_accuracy"))]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


ALL = {"weight_decay": 0.05, "dropout": 0.2, "rate_schedule": "cosine", "rate_after_split": 0.5, "state": "reset"}
VARIANTS = [
    *({"policy": policy} for policy in policy_names() if policy not in learned.weights()),
    *({"growth": rule} for rule in SPLIT_RULES),
    *({"schedule": schedule, "splits": 6, "epochs": 12} for schedule in SCHEDULES),
    *(
        {"optimizer": o, "learning_rate": 0.005, "growth": growth}
        for o in ("momentum", "adam")
        for growth in ("scaled", "outgoing")
    ),
    *({"optimizer": o, "learning_rate": 0.005, "weight_decay": 0.5} for o in OPTIMIZERS),
    {"dropout": 0.3},
    {"dropout": 0.3, "policy": "no-split"},
    {"dropout": 0.1, "policy": "greedy"},
    {"rate_schedule": "cosine"},
    {"rate_after_split": 0.5, "schedule": "all-at-half"},
    {"rate_after_split": 0.5, "policy": "stay-narrow"},
    *({"optimizer": o, "learning_rate": 0.005, "state": "reset"} for o in ("momentum", "adam")),
    *({"optimizer": o, "learning_rate": 0.01} | ALL for o in OPTIMIZERS),
    {"policy": "greedy"} | ALL,
]


@pytest.mark.parametrize("changes", one_in(4, VARIANTS), ids=lambda changes: "-".join(map(str, changes.values())))
def test_an_experiment_equals_the_reference_one_network_at_a_time(changes):
    experiment = replace(SMALL, **changes)
    run = reference.run_greedily if experiment.policy == GREEDY else reference.run
    table = run_experiment(experiment, [1, 2, 4])  # with 0 and 3, a choice or an answer nearly ties
    for seed, rows in table.groupby("seed"):
        expected = pd.DataFrame(run(experiment, load_dataset("digits"), seed))
        assert rows.split_neuron.dropna().tolist() == expected.split_neuron.dropna().tolist()
        assert rows.hidden.tolist() == expected.hidden.tolist()
        assert rows.parameters.tolist() == expected.parameters.tolist()
        for part, n in {"train": 1184, "val": 297, "test": 300}.items():
            np.testing.assert_allclose(rows[f"{part}_loss"], expected[f"{part}_loss"], rtol=2e-4)
            answers = [n * one[f"{part}_accuracy"] for one in (rows, expected)]
            np.testing.assert_allclose(*answers, atol=1.01)  # one image may nearly tie


@pytest.mark.parametrize("policy", one_in(3, policy_names()))
def test_a_seed_alone_equals_the_same_seed_in_a_batch(policy):
    batch = run_experiment(replace(SMALL, policy=policy), SEEDS)
    alone = run_experiment(replace(SMALL, policy=policy), [2])
    rows = batch[batch.seed == 2].reset_index(drop=True)
    pd.testing.assert_series_equal(rows.split_neuron, alone.split_neuron)
    np.testing.assert_allclose(rows[METRICS], alone[METRICS], rtol=1e-4)


@pytest.mark.parametrize("policy", one_in(3, policy_names()))
def test_the_same_experiment_twice_gives_the_same_table_bit_for_bit(policy):
    experiment = replace(SMALL, policy=policy)
    tables = [run_experiment(experiment, SEEDS) for _ in range(2)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_seeds_may_be_any_and_in_any_order():
    seeds = np.array([2**32, 0, 17])
    table = run_experiment(SMALL, seeds)
    assert table.seed.tolist() == seeds.tolist() * 6
    for seed in seeds:
        rows, alone = table[table.seed == seed].reset_index(drop=True), run_experiment(SMALL, [seed])
        pd.testing.assert_frame_equal(rows, alone, rtol=1e-4)


@pytest.mark.parametrize(
    "seeds, shown",
    [([], "[]"), ([0, 0], "[0, 0]"), ([0, -1], "[0, -1]"), ([1.5], "[1.5]"), ([True], "[True]"), (["0"], "['0']"),
     ([2**32 + 1], "[4294967297]"), (np.array([3, 3]), "[3, 3]"), ([None], "[None]")],
)  # fmt: skip
def test_seeds_that_are_not_different_whole_numbers_are_refused(seeds, shown):
    message = f"^seeds {re.escape(shown)}: allowed are different whole numbers from 0 to 4294967296$"
    with pytest.raises(ValueError, match=message):
        run_experiment(SMALL, seeds)


def test_policies_start_from_the_same_network_and_see_the_same_images():
    first = [run_experiment(replace(SMALL, policy=p), SEEDS).query("epoch == 1") for p in policy_names()[1:]]
    for table in first[1:]:  # the policies have not chosen before the end of the first epoch
        assert table.train_loss.tolist() == first[0].train_loss.tolist()


def test_the_table_has_the_columns_and_rows_of_the_design():
    table = run_experiment(SMALL, SEEDS)
    assert " ".join(table) == (
        "policy growth schedule dataset seed epoch hidden parameters split_neuron "
        "train_loss train_accuracy val_loss val_accuracy test_loss test_accuracy "
        "optimizer learning_rate width splits epochs batch_size "
        "weight_decay dropout rate_schedule rate_after_split state last_batch_loss last_batch_accuracy"
    )
    assert len(table) == 3 * 6
    rows = table[table.seed == 1]
    assert rows.hidden.tolist() == [5, 6, 7, 8, 8, 8]
    assert rows.parameters.tolist() == [64 * h + h + h * 10 + 10 for h in rows.hidden]
    assert rows.split_neuron.notna().tolist() == [True] * 4 + [False] * 2


@pytest.mark.parametrize("policy, width", [("no-split", 8), ("stay-narrow", 4)])
def test_a_control_has_one_width_throughout(policy, width):
    table = run_experiment(replace(SMALL, policy=policy), SEEDS)
    assert set(table.hidden) == {width} and table.split_neuron.isna().all()


def test_the_control_stopped_earlier_is_the_control_of_fewer_epochs():
    """So a control of as many multiply-adds as a growing run is read off the control's own table."""
    control = run_experiment(replace(SMALL, policy="no-split"), SEEDS)
    shorter = run_experiment(Experiment(policy="no-split", width=8, splits=0, epochs=4), SEEDS)
    control = control[control.epoch <= 4].assign(width=8, splits=0, epochs=4).reset_index(drop=True)
    pd.testing.assert_frame_equal(control, shorter, check_exact=True)


@pytest.mark.parametrize("growth", GROWTHS)
def test_every_growth_ends_at_the_final_width(growth):
    table = run_experiment(replace(SMALL, growth=growth), SEEDS)
    assert set(table[table.epoch >= 4].hidden) == {8}
    assert table.split_neuron.notna().sum() == 12
    assert (table.split_neuron.dropna() == NO_PARENT).all() != GROWTHS[growth].needs_parent


@pytest.mark.parametrize("policies", [list(POLICIES)[::2], list(POLICIES)[1::2]])  # all do not fit into a program
def test_experiments_train_together_as_alone(policies):
    """Many policies at once give the choices and, up to rounding, the numbers of each by itself."""
    group = tuple(replace(SMALL, policy=policy, width=5) for policy in policies)
    assert Batch(group, SEEDS).programs() == [Batch(group, SEEDS)]
    rows = pd.concat(train_growing(group, SEEDS))
    assert list(rows[EXPERIMENT].unique()) == [experiment.id for experiment in group]
    for experiment in group:
        table = rows[rows[EXPERIMENT] == experiment.id].drop(columns=EXPERIMENT).reset_index(drop=True)
        alone = run_experiment(experiment, SEEDS)
        assert table.split_neuron.equals(alone.split_neuron)
        pd.testing.assert_frame_equal(table, alone, rtol=1e-4, atol=1e-6)


RATES = [
    {"learning_rate": 0.01, "weight_decay": 0.1, "dropout": 0.5},
    {"learning_rate": 0.2, "rate_schedule": "cosine"},
    {"dropout": 0.1, "rate_after_split": 0.3},
    {"learning_rate": 0.03},
]


@pytest.mark.parametrize("policy", ["no-split", "greedy", "max-fire"])
@pytest.mark.parametrize("optimizer", one_in(3, OPTIMIZERS))
def test_rates_train_together_as_alone(policy, optimizer):
    group = tuple(replace(SMALL, policy=policy, optimizer=optimizer, **rates) for rates in RATES)
    if policy == "max-fire":
        group += tuple(replace(e, policy="random") for e in group)
    assert len({e.group for e in group}) == 1
    rows = pd.concat(train_growing(group, SEEDS[:2]))
    assert list(rows[EXPERIMENT].unique()) == [experiment.id for experiment in group]
    for experiment in group:
        table = rows[rows[EXPERIMENT] == experiment.id].drop(columns=EXPERIMENT).reset_index(drop=True)
        alone = run_experiment(experiment, SEEDS[:2])
        assert table.split_neuron.equals(alone.split_neuron)
        pd.testing.assert_frame_equal(table, alone, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("policy", ["no-split", "stay-narrow"])
def test_growth_and_schedule_of_a_control_have_no_effect_and_are_kept_as_given(policy):
    control = replace(SMALL, policy=policy)
    other = replace(control, growth="net2net", schedule="plateau", rate_after_split=0.5, state="warm-up")
    assert other.growth == "net2net" and other.schedule == "plateau" and not other.by_seed
    assert other.canonical == control.canonical and other.id == control.id
    table, expected = run_experiment(other, SEEDS), run_experiment(control, SEEDS)
    assert set(table.growth) == {"net2net"} and set(table.schedule) == {"plateau"}
    assert set(table.rate_after_split) == {0.5} and set(table.state) == {"warm-up"}
    as_control = {"growth": "scaled", "schedule": "every-epoch", "rate_after_split": 1.0, "state": "carry"}
    pd.testing.assert_frame_equal(table.assign(**as_control), expected, check_exact=True)


def test_without_a_state_there_is_nothing_to_reset():
    reset, carry = replace(SMALL, state="reset"), replace(SMALL, state="carry")
    assert reset.canonical == carry and reset.id == carry.id
    table, expected = run_experiment(reset, SEEDS), run_experiment(carry, SEEDS)
    pd.testing.assert_frame_equal(table.assign(state="carry"), expected, check_exact=True)
    for other in (replace(reset, optimizer="momentum"), replace(SMALL, state="warm-up")):
        assert other.canonical == other


@pytest.mark.parametrize("growth", ["zero-outgoing", "gradmax"])
def test_the_policy_of_a_growth_without_parent_has_no_effect_and_is_kept_as_given(growth):
    given, random = replace(SMALL, policy="max-loss", growth=growth), replace(SMALL, policy="random", growth=growth)
    assert given.policy == "max-loss" and given.canonical == random.canonical and given.id == random.id
    table, expected = run_experiment(given, SEEDS), run_experiment(random, SEEDS)
    assert set(table.policy) == {"max-loss"}
    pd.testing.assert_frame_equal(table.assign(policy="random"), expected, check_exact=True)


def test_the_last_mini_batch_is_recorded():
    data, table = load_dataset("digits", [0]), run_experiment(replace(SMALL, splits=0, epochs=1), [0])
    run = Run.start(MLP((64, 4, 10), [0]), [0], "sgd", SMALL.learning_rate, 32)
    losses, correct = run.epoch(data.train)
    assert table.last_batch_loss.item() == pytest.approx(losses[0, -32:].mean().item())
    assert table.last_batch_accuracy.item() == pytest.approx(correct[0, -32:].double().mean().item())


@pytest.mark.parametrize("growth", GROWTHS)
def test_divergence_stands_in_the_table(growth):
    table = run_experiment(replace(SMALL, learning_rate=1e30, growth=growth), SEEDS)
    assert not (table.test_loss[table.epoch == 6] < 1e20).any()  # a dead network has a finite loss


def test_training_learns():
    last = run_experiment(Experiment(), range(5)).query("epoch == 20")
    assert last.test_accuracy.mean() > 0.85


@pytest.mark.parametrize(
    "name, value, allowed",
    [
        ("policy", "max_loss", "no-split, stay-narrow, random, max-loss, min-loss, loss-probs, max-fire"),
        ("policy", None, "no-split, stay-narrow, random"),
        ("policy", ["random"], "no-split, stay-narrow, random"),
        ("dataset", "mnist", "fashion-mnist, fashion-mnist-2021, digits, mnist-1d"),
        ("growth", "halved", "scaled, even, outgoing, scaled-outgoing, antisymmetric, net2net, steepest-descent"),
        ("schedule", "never", "every-epoch, 5-per-5-epochs, all-at-half, all-at-1, all-at-10, plateau"),
        ("optimizer", "lbfgs", "sgd, momentum, adam"),
        ("width", 0, "whole numbers from 1 to 100000$"),
        ("width", 2.5, "whole numbers from 1 to 100000$"),
        ("width", True, "whole numbers from 1 to 100000$"),
        ("width", 100_001, "whole numbers from 1 to 100000$"),
        ("splits", -1, "whole numbers from 0 to 100000$"),
        ("epochs", 0, "whole numbers from 1 to 100000$"),
        ("epochs", "5", "whole numbers from 1 to 100000$"),
        ("batch_size", 0, "whole numbers from 1 to 100000$"),
        ("learning_rate", 0, "numbers above 0$"),
        ("learning_rate", "1e-3", "numbers above 0$"),
        ("learning_rate", True, "numbers above 0$"),
        ("learning_rate", math.nan, "numbers above 0$"),
        ("learning_rate", math.inf, "numbers above 0$"),
        ("weight_decay", -0.1, "numbers from 0$"),
        ("weight_decay", math.nan, "numbers from 0$"),
        ("weight_decay", math.inf, "numbers from 0$"),
        ("dropout", 1, "numbers from 0 to below 1$"),
        ("dropout", -0.1, "numbers from 0 to below 1$"),
        ("dropout", "0.5", "numbers from 0 to below 1$"),
        ("rate_after_split", 0, "numbers above 0$"),
        ("rate_schedule", "linear", "constant, cosine$"),
        ("state", "keep", "carry, reset, warm-up$"),
    ],
)
def test_a_value_not_allowed_is_named(name, value, allowed):
    near = r"( \(did you mean .*\?\))?"
    with pytest.raises(ValueError, match=f"^{name} {re.escape(repr(value))}{near}: allowed are {allowed}"):
        Experiment(**{name: value})


@pytest.mark.parametrize("name", ["seed", "seeds", "n_seeds"])
def test_an_experiment_has_no_seeds(name):
    with pytest.raises(TypeError, match=name):
        Experiment(**{name: 1})


@pytest.mark.parametrize(
    "changes", [{"epochs": 10}, {"schedule": "all-at-1"}, {"growth": "net2net"}, {"growth": "zero-outgoing"}]
)
def test_greedy_has_to_look_an_epoch_ahead_at_exact_splits(changes):
    message = "^policy 'greedy' with growth '.*', schedule '.*', epochs .*: allowed are exact splits, 'every-epoch' and"
    with pytest.raises(ValueError, match=message):
        Experiment("greedy", **changes)


def test_a_schedule_that_does_not_make_all_splits_is_refused():
    message = "^schedule 'all-at-10' makes 0 of 4 splits in 6 epochs: allowed are more epochs or fewer splits$"
    with pytest.raises(ValueError, match=message):
        replace(SMALL, schedule="all-at-10")
    with pytest.raises(
        ValueError, match="^schedule 'every-epoch' makes 10 of 20 splits in 10 epochs: allowed are more"
    ):
        Experiment(splits=20, epochs=10)


@pytest.mark.parametrize(
    "due, given",
    [
        (lambda epoch, val_losses, splits_left: int(val_losses[-1] < 1), "IndexError: list index out of range"),
        (lambda epoch, val_losses, splits_left: None, "None"),
        (lambda epoch, val_losses, splits_left: 0.5, "0.5"),
        (lambda epoch, val_losses, splits_left: -1, "-1"),
    ],
)
def test_a_schedule_that_cannot_do_without_losses_has_to_say_so(due, given, monkeypatch):
    monkeypatch.setitem(SCHEDULES, "mine", Schedule(due))
    allowed = "whole numbers from 0, and data_dependent=True for a schedule that looks at losses"
    message = f"^schedule 'mine' gives {re.escape(given)} for epoch 1: allowed are {allowed}$"
    with pytest.raises(ValueError, match=message):
        replace(SMALL, schedule="mine")
    monkeypatch.setitem(SCHEDULES, "mine", Schedule(due, data_dependent=True))
    assert replace(SMALL, schedule="mine").by_seed


def test_seeds_of_a_schedule_that_looks_at_losses_train_one_by_one(monkeypatch):
    def by_parity(epoch, val_losses, splits_left):
        return int(val_losses[-1] * 1e6) % 2 if val_losses else 0

    monkeypatch.setitem(SCHEDULES, "mine", Schedule(by_parity, data_dependent=True))
    experiment = replace(SMALL, schedule="mine", epochs=10)
    table = run_experiment(experiment, SEEDS)
    alone = [run_experiment(experiment, [seed]) for seed in SEEDS]
    pd.testing.assert_frame_equal(table, pd.concat(alone, ignore_index=True), check_exact=True)
    assert len({tuple(one.hidden) for one in alone}) == 3  # each grows at epochs of its own


def test_a_control_may_have_fewer_epochs_than_splits_for_it_makes_none():
    assert Experiment("no-split", splits=20, epochs=10).epochs == 10


def test_a_batch_larger_than_the_training_set_is_refused():
    with pytest.raises(ValueError, match="^batch_size 1201: allowed are 1 to 1200 on digits$"):
        run_experiment(Experiment(batch_size=1201), [0])


def test_a_whole_number_as_learning_rate_is_the_same_experiment():
    whole, real = Experiment(learning_rate=1), Experiment(learning_rate=1.0)
    assert whole == real and whole.id == real.id and type(whole.learning_rate) is float


@pytest.mark.parametrize("experiment", [SMALL, ExhaustiveSplits(width=4)], ids=["experiment", "all-splits"])
def test_every_field_counts_in_the_id(experiment, small_fashion_mnist):
    changed = {"policy": "max-fire", "dataset": "fashion-mnist", "growth": "even", "schedule": "all-at-half"}
    changed |= {"optimizer": "adam", "learning_rate": np.nextafter(experiment.learning_rate, 1).item()}
    changed |= {"dropout": 0.1, "rate_schedule": "cosine", "state": "warm-up"}
    ids = {experiment.id}
    for field, value in asdict(experiment).items():
        ids.add(replace(experiment, **{field: changed.get(field, value if isinstance(value, str) else value + 1)}).id)
    assert len(ids) == len(asdict(experiment)) + 1
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in ids)


@pytest.fixture
def small_fashion_mnist(monkeypatch):
    """Other data under that name, so that the test needs no download."""
    monkeypatch.setitem(DATASETS, "fashion-mnist", lambda: random_data(0))


def random_data(seed):
    rng = torch.Generator().manual_seed(seed)
    subsets = (Subset(torch.rand(n, 4, generator=rng), torch.arange(n) % 2) for n in (64, 32, 32))
    return Dataset(*subsets, shape=(2, 2), classes=("a", "b"))


def test_other_weights_make_another_experiment_of_the_policy_that_they_decide(monkeypatch):
    before = {policy: Experiment(policy).id for policy in POLICIES}
    weights = {policy: dict(own) for policy, own in learned.weights().items()}
    weights["ridge"]["coefficients"] = weights["ridge"]["coefficients"] + np.float32(1e-3)
    monkeypatch.setattr(learned, "weights", lambda: weights)
    assert [policy for policy in POLICIES if Experiment(policy).id != before[policy]] == ["ridge"]


def test_other_data_of_the_same_name_make_another_experiment(monkeypatch):
    ids = []
    for seed in (0, 1, 0):
        monkeypatch.setitem(DATASETS, "mine", lambda seed=seed: random_data(seed))
        ids.append(Experiment(dataset="mine").id)
    assert ids[0] == ids[2] != ids[1]


def test_what_is_registered_is_allowed_at_once(monkeypatch):
    with pytest.raises(ValueError, match="^policy 'widest': allowed are"):
        Experiment("widest")
    monkeypatch.setitem(POLICIES, "widest", POLICIES["max-loss"])
    monkeypatch.setitem(GROWTHS, "mine", GROWTHS["even"])
    monkeypatch.setitem(SCHEDULES, "mine", SCHEDULES["every-epoch"])
    monkeypatch.setitem(DATASETS, "mine", lambda: random_data(0))
    experiment = Experiment("widest", "mine", "mine", "mine", width=2, splits=1, epochs=2)
    table = run_experiment(experiment, [0])
    assert table.hidden.tolist() == [3, 3] and set(table.policy) == {"widest"}
