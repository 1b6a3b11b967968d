"""Tables are labelled and reduced to their last epoch, and family trees are read from them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import final_table, study_table

from neuronsplit.analysis import tables

POLICIES = ["no-split", "stay-narrow", "random", "max-loss", "min-fire"]


def test_experiments_are_labelled_by_what_tells_them_apart():
    rows = [("no-split", "scaled", "sgd"), ("random", "scaled", "sgd"), ("random", "zero-outgoing", "sgd")]
    table = pd.DataFrame(rows, columns=["policy", "growth", "optimizer"]).assign(schedule="every-epoch")
    assert tables.with_labels(table).policy.tolist() == ["no-split", "scaled", "zero-outgoing"]
    both = pd.concat([table, table.assign(optimizer="adam")], ignore_index=True)
    assert tables.with_labels(both).policy.tolist() == [
        "no-split · sgd", "scaled · sgd", "zero-outgoing · sgd",
        "no-split · adam", "scaled · adam", "zero-outgoing · adam",
    ]  # fmt: skip
    policies = pd.DataFrame({"policy": ["no-split", "random", "max-loss"], "growth": "scaled", "schedule": "plateau"})
    assert tables.with_labels(policies).policy.tolist() == ["no-split", "random", "max-loss"]
    assert tables.with_labels(policies.assign(width=[10, 10, 20])).policy.tolist() == [
        "no-split · width 10", "random · width 10", "max-loss · width 20"
    ]  # fmt: skip


def test_labels_name_rates_and_states_and_a_control_has_none_of_growth():
    rows = [("no-split", 0.0, 1.0, "carry"), ("random", 0.1, 0.5, "reset"), ("random", 0.1, 1.0, "warm-up")]
    table = pd.DataFrame(rows, columns=["policy", "weight_decay", "rate_after_split", "state"])
    assert tables.with_labels(table.assign(dropout=0.0, rate_schedule="cosine")).policy.tolist() == [
        "no-split · weight decay 0.0", "rate after split 0.5 · state reset · weight decay 0.1",
        "rate after split 1.0 · state warm-up · weight decay 0.1",
    ]  # fmt: skip
    both = pd.concat([table.assign(rate_schedule=name) for name in ("constant", "cosine")], ignore_index=True)
    assert tables.with_labels(both).policy[3] == "no-split · weight decay 0.0 · cosine"
    rates = tables.with_labels(table.assign(learning_rate=[0.1, 0.19, 0.1], weight_decay=0.0)).policy
    assert rates[1] == "rate after split 0.5 · state reset · learning rate 0.19"
    parts = tables.by_setting(table.assign(weight_decay=0.0, dropout=[0.0, 0.0, 0.1]))
    assert {name: len(part) for name, part in parts.items()} == {"dropout 0.0": 2, "dropout 0.1": 1}


def test_settings_are_told_apart_by_all_but_how_networks_grow():
    table = pd.concat([study_table(POLICIES).assign(learning_rate=rate, width=3) for rate in (0.1, 0.01)])
    parts = tables.by_setting(table)
    assert list(parts) == ["learning rate 0.1", "learning rate 0.01"]
    assert all(set(part.policy) == set(POLICIES) for part in parts.values())
    assert list(tables.by_setting(study_table(POLICIES))) == [""]


def test_paired_differences_are_taken_within_a_seed():
    table = final_table({"no-split": [1.0, 2, 4], "random": [1.5, 2, 3], "max-loss": [0, 0, 0]})
    paired = tables.paired_differences(table, "test_loss", "no-split")
    assert list(paired) == ["random", "max-loss"]
    assert paired["random"].tolist() == [0.5, 0, -1]
    assert paired["max-loss"].tolist() == [-1, -2, -4]


def test_diverged_seeds_are_counted_and_left_out_of_the_means():
    table = final_table({"no-split": [1.0, 3, np.nan], "random": [np.inf, np.nan, np.nan]})
    found = tables.summary(table, "test_accuracy")
    assert found["diverged"].tolist() == [1, 3] == tables.n_diverged(table).tolist()
    assert found["n"].tolist()[0] == 2
    assert found.loc["no-split", ["mean", "min", "max"]].tolist() == [2, 1, 3]
    assert np.isnan(found.loc["random", "mean"])


LOSSES = [0.1, 0.2, 0.3, np.nan, np.inf]


@given(st.lists(st.tuples(*[st.sampled_from(LOSSES)] * 2), min_size=8, max_size=8), st.randoms(use_true_random=False))
def test_validation_picks_the_first_epoch_of_the_lowest_loss(losses, random):
    """Of two networks of four epochs, whatever the order of their rows is: by a plain loop."""
    keys = [(policy, epoch) for policy in ("a", "b") for epoch in (1, 2, 3, 4)]
    rows = [{"policy": p, "seed": 7, "epoch": e, "val_loss": v, "test_loss": t} for (p, e), (v, t) in zip(keys, losses)]
    expected, picked = {}, {}
    for (policy, epoch), (val_loss, test_loss) in zip(keys, losses):
        if np.isfinite(val_loss) and val_loss < picked.get(policy, (np.inf,))[0]:
            picked[policy] = val_loss, test_loss if np.isfinite(test_loss) else np.nan
        expected[policy, epoch] = picked.get(policy, (None, np.nan))[1]
    table = pd.DataFrame(random.sample(rows, 8), index=[0, 1] * 4)
    table = pd.concat([table[table.policy == "a"], table[table.policy == "b"]])
    found = tables.best_so_far(table, "test_loss")
    assert list(found.index) == list(table.index)
    assert found.tolist() == pytest.approx([expected[key] for key in zip(table.policy, table.epoch)], nan_ok=True)
    values = tables.at_best_validation(table, "test_loss")
    assert values.loc[7].tolist() == pytest.approx([expected["a", 4], expected["b", 4]], nan_ok=True)


def test_differences_are_taken_of_the_values_that_are_asked_for():
    table = study_table(["no-split", "random"], n_seeds=3)
    found = tables.paired_differences(table, "test_loss", "no-split", tables.at_best_validation)
    rows = table.loc[table.groupby(["policy", "seed"]).val_loss.idxmin()].pivot(index="seed", columns="policy")
    expected = rows["test_loss", "random"] - rows["test_loss", "no-split"]
    assert found["random"].tolist() == pytest.approx(expected.tolist())
    assert not np.allclose(found, tables.paired_differences(table, "test_loss", "no-split"))


def test_lineage_by_hand():
    """Of 3 neurons: 1 splits (twin 3), 3 splits (twin 4), 0 splits (twin 5)."""
    rows = pd.DataFrame({"epoch": [1, 2, 3, 4], "hidden": [4, 5, 6, 6], "split_neuron": ["1", "3", "0", None]})
    tree = tables.lineage(rows.sample(frac=1, random_state=0))
    assert tree.founder.tolist() == [0, 1, 2, 1, 1, 0]
    assert tree.parent.tolist() == [0, 1, 2, 1, 3, 0]
    assert tree.born.tolist() == [0, 0, 0, 1, 2, 3]


def test_lineage_of_several_splits_per_epoch_and_of_new_neurons():
    """Of 2 neurons: 1 splits (twin 2), then its twin (3); a new one comes (4), which splits (5)."""
    rows = pd.DataFrame({"epoch": [1, 2, 3], "hidden": [4, 6, 6], "split_neuron": ["1 2", "new 4", None]})
    tree = tables.lineage(rows)
    assert tree.founder.tolist() == [0, 1, 1, 1, 4, 4]
    assert tree.parent.tolist() == [0, 1, 1, 2, 4, 4]
    assert tree.born.tolist() == [0, 0, 1, 1, 2, 2]


def test_lineage_of_numbers_as_pandas_reads_them():
    rows = pd.DataFrame({"epoch": [1, 2, 3], "hidden": [3, 4, 4], "split_neuron": [1.0, 2.0, np.nan]})
    assert tables.lineage(rows).parent.tolist() == [0, 1, 1, 2]


def test_every_neuron_has_a_lineage():
    for (policy, _), rows in study_table(POLICIES, splits=5, epochs=6).groupby(["policy", "seed"]):
        tree = tables.lineage(rows)
        assert len(tree) == (3 if policy == "stay-narrow" else 8)
        assert (tree.founder == tree.index).sum() == (8 if policy == "no-split" else 3)
        for neuron, row in tree[tree.born > 0].iterrows():
            assert row.parent < neuron and tree.founder[row.parent] == row.founder


def test_the_largest_family_is_counted_by_hand():
    """Of 2 neurons, 1 splits thrice with one policy; with the other, each splits once, and one comes without parent."""
    rows = {"seed": 0, "epoch": [1, 2, 3], "hidden": [3, 4, 5]}
    one = pd.DataFrame(rows | {"policy": "max-loss", "split_neuron": ["1", "2", "1"]})
    other = pd.DataFrame(rows | {"policy": "random", "split_neuron": ["0", "1", "new"]})
    found = tables.largest_family(pd.concat([one, other, one.assign(seed=1)]))
    assert found["max-loss"].tolist() == [4 / 5, 4 / 5] and found["random"].dropna().tolist() == [2 / 5]


def test_the_largest_family_is_that_of_a_plain_count():
    table = study_table(POLICIES, splits=5, epochs=6)
    found = tables.largest_family(table)
    for (policy, seed), rows in table.groupby(["policy", "seed"]):
        founders = list(range(rows["hidden"].iloc[-1] - rows["split_neuron"].notna().sum()))
        for parent in rows.sort_values("epoch")["split_neuron"].dropna():
            founders.append(founders[int(parent)])
        assert found.loc[seed, policy] == max(founders.count(f) for f in founders) / len(founders)
