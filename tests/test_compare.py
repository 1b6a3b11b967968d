import numpy as np
import pandas as pd
import pytest
from scipy import stats

from neuronsplit import compare
from neuronsplit.study import Experiment, policy_names, run_experiment


def table(values):
    """A table of final values, {policy: [a value a seed]}, with an earlier epoch to be ignored."""
    rows = [
        {"policy": policy, "seed": seed, "epoch": epoch, "test_loss": value * epoch, "test_accuracy": value * epoch}
        for policy, column in values.items() for seed, value in enumerate(column) for epoch in (0.5, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_paired_differences_are_taken_within_a_seed():
    paired = compare.paired(
        table({"no-split": [1.0, 2, 4], "random": [1.5, 2, 3], "max-loss": [0, 0, 0]}), "test_loss", "no-split"
    )
    assert list(paired) == ["random", "max-loss"]
    assert paired["random"].tolist() == [0.5, 0, -1]
    assert paired["max-loss"].tolist() == [-1, -2, -4]


def test_intervals_agree_with_the_normal_ones_on_normal_data():
    rng = np.random.default_rng(1)
    values = pd.DataFrame({"a": rng.normal(3, 1, 200)})
    found = compare.intervals(values).loc["a"]
    low, high = stats.t.interval(0.95, 199, values.a.mean(), values.a.std() / 200**0.5)
    assert found["n"] == 200 and found["mean"] == pytest.approx(values.a.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_intervals_cover_the_truth():
    """95 % intervals of the mean of 20 draws from a skewed distribution miss it in 3 to 10 % of 300 tries."""
    draws = np.random.default_rng(2).exponential(size=(300, 20))
    found = compare.intervals(pd.DataFrame(draws.T))
    missed = ((found.low > 1) | (found.high < 1)).mean()
    assert 0.03 <= missed <= 0.10


def test_intervals_are_the_same_every_time():
    values = pd.DataFrame({"a": [0.1, 0.4, 0.2, 0.9], "b": [1.0, 1, 1, 1]})
    first = compare.intervals(values)
    pd.testing.assert_frame_equal(compare.intervals(values), first)
    assert first.loc["b", ["mean", "low", "high"]].tolist() == [1, 1, 1]


def test_diverged_repeats_are_counted_and_left_out_of_the_means():
    found = compare.summary(table({"no-split": [1.0, 3, np.nan], "random": [np.inf, np.nan, np.nan]}), "test_accuracy")
    assert found["diverged"].tolist() == [1, 3]
    assert found["n"].tolist()[0] == 2
    assert found.loc["no-split", ["mean", "lowest", "highest"]].tolist() == [2, 1, 3]
    assert np.isnan(found.loc["random", "mean"])


def test_lineage_by_hand():
    """Of 3 neurons: 1 splits (twin 3), 3 splits (twin 4), 0 splits (twin 5)."""
    repeat = pd.DataFrame({"epoch": [1, 2, 3, 4], "hidden": [4, 5, 6, 6], "split_neuron": [1, 3, 0, None]})
    tree = compare.lineage(repeat)
    assert tree.founder.tolist() == [0, 1, 2, 1, 1, 0]
    assert tree.parent.tolist() == [0, 1, 2, 1, 3, 0]
    assert tree.born.tolist() == [0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize("policy", policy_names())
def test_every_neuron_has_a_lineage(policy):
    experiment = Experiment(policy=policy, width=3, splits=5, still=1, repeats=2)
    for _, repeat in run_experiment(experiment).groupby("seed"):
        tree = compare.lineage(repeat)
        assert len(tree) == 8
        assert (tree.founder == tree.index).sum() == (8 if policy == "no-split" else 3)
        for neuron, row in tree[tree.born > 0].iterrows():
            assert row.parent < neuron and tree.founder[row.parent] == row.founder
