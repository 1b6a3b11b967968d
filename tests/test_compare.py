import itertools
from functools import partial

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


@pytest.mark.parametrize("n, least, most", [(10, 0.86, 0.93), (40, 0.91, 0.97)])
def test_intervals_cover_the_truth_about_as_often_as_they_say(n, least, most):
    """Of 800 intervals of normal differences: 9 in 10 where there are 10 repeats, near 95 % where there are more."""
    found = compare.intervals(pd.DataFrame(np.random.default_rng(2).normal(1, 1, size=(n, 800))))
    covered = ((found.low < 1) & (found.high > 1)).mean()
    assert least <= covered <= most


def test_a_true_null_is_called_a_difference_in_at_most_one_study_in_twenty():
    """Of 400 studies of 7 policies without any difference, with skewed and dependent errors, as theirs are."""
    rng = np.random.default_rng(3)
    called = 0
    for _ in range(400):
        own = rng.normal(size=(10, 1)) + rng.laplace(size=(10, 7))  # what the baseline did is in all
        p = pd.Series([compare.sign_flip_test(pd.Series(column)) for column in own.T])
        called += (compare.holm(p) < 0.05).any()
    assert called <= 29  # 20 expected at most; 29 has probability 0.02 at 1 in 20


def test_the_sign_flip_test_counts_every_flip():
    values = np.array([0.3, -0.1, 0.5, 0.2, 0.4])
    means = [abs(np.mean(values * signs)) for signs in itertools.product([1, -1], repeat=5)]
    expected = np.mean([mean >= abs(values.mean()) - 1e-12 for mean in means])
    assert compare.sign_flip_test(pd.Series(values)) == pytest.approx(expected)


def test_holm_by_hand():
    """0.01 × 4, 0.02 × 3, 0.04 × 2, 0.03 × 2: in order 0.01, 0.02, 0.03, 0.04, never falling."""
    found = compare.holm(pd.Series({"a": 0.04, "b": 0.01, "c": 0.02, "d": 0.03}))
    assert found.to_dict() == pytest.approx({"a": 0.06, "b": 0.04, "c": 0.06, "d": 0.06})


@pytest.mark.parametrize("n, level", [(5, 0.05), (10, 0.05), (10, 0.05 / 7), (30, 0.05)])
def test_a_detectable_difference_is_found_four_times_in_five(n, level):
    draws = np.random.default_rng(n).normal(compare.detectable(n, level), 1, size=(4000, n))
    found = stats.ttest_1samp(draws, 0, axis=1)
    assert ((found.pvalue < level) & (found.statistic > 0)).mean() == pytest.approx(0.8, abs=0.02)


def test_the_verdict_finds_about_what_is_said_to_be_detectable():
    """One policy of seven differs, by as much as ten repeats are said to find 4 times in 5."""
    rng, found = np.random.default_rng(5), 0
    for _ in range(150):
        differences = pd.DataFrame(rng.normal(size=(10, 7)))
        differences[0] += compare.detectable(10, 0.05 / 7)
        p = pd.Series({name: compare.sign_flip_test(column) for name, column in differences.items()})
        found += compare.holm(p)[0] < 0.05
    assert 0.65 < found / 150 < 0.9


def test_verdicts_by_hand():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, size=(10, 3))
    differences = pd.DataFrame(noise + [0.1, -0.1, 0], columns=["up", "down", "same"])
    differences["same"] -= differences["same"].mean()
    loss, accuracy = (compare.verdicts(differences, measure) for measure in ("test_loss", "test_accuracy"))
    assert loss.verdict.tolist() == ["worse", "better", "no difference found"]
    assert accuracy.verdict.tolist() == ["better", "worse", "no difference found"]
    assert accuracy.improvement["up"] == 1 and loss.improvement["up"] == 0
    middle = np.sort(differences["up"])[2:8]
    assert accuracy.iqm["up"] == pytest.approx(middle.mean())
    assert accuracy.p["up"] == pytest.approx(2 / 1024)
    text = compare.readable(accuracy).to_html()
    assert "no difference found" in text and "+0.1" in text and "−0." in text


def course(policy, widths, chosen, losses):
    """One repeat: hidden width after each epoch, what was split at its end, and the loss."""
    return pd.DataFrame(
        {"policy": policy, "seed": 0, "epoch": range(1, len(widths) + 1), "hidden": widths, "split_neuron": chosen}
        | {"test_loss": losses}
    )


def test_cost_is_counted_before_the_split():
    """Width 2 grows by one, then by two: trained with 2, 3 and 5 neurons."""
    grown = course("random", [3, 5, 5], ["1", "0 new", None], [3.0, 2, 1])
    assert compare.spent(grown).tolist() == [2, 5, 10]


def test_equal_cost_takes_the_control_when_it_had_spent_as_much():
    grown = course("random", [3, 5, 5], ["1", "0 2", None], [3.0, 2, 1])
    control = course("no-split", [4, 4, 4, 4], None, [4.0, 3, 2.5, 2.2])  # spends 4, 8, 12, 16; the other 10
    table = pd.concat([control[:3], grown], ignore_index=True)
    assert compare.paired_at_equal_cost(table, "test_loss", "no-split")["random"].tolist() == [1 - 2.75]
    cheap = pd.concat([control[:3], course("random", [2, 2, 2], None, [5.0, 5, 5])], ignore_index=True)  # 6
    assert compare.paired_at_equal_cost(cheap, "test_loss", "no-split")["random"].tolist() == [5 - 3.5]


def test_a_lead_is_taken_after_every_epoch():
    grown = course("random", [3, 5, 5], ["1", "0 2", None], [3.0, 2, 1])  # spends 2, 5, 10
    control = course("no-split", [4, 4, 4], None, [4.0, 3, 2.5])  # 4, 8, 12
    found = compare.leads(pd.concat([control, grown], ignore_index=True), "test_loss", "no-split")
    np.testing.assert_allclose(found.lead, [np.nan, 2 - 3.75, 1 - 2.75])
    np.testing.assert_allclose(found.spent, [2 / 12, 5 / 12, 10 / 12])


def test_areas_are_means_over_what_was_spent():
    """From 4 to 10 spent the control falls straight from 4 to 3 (at 8) and to 2.5; the other is always 2."""
    control = course("no-split", [4, 4, 4], None, [4.0, 3, 2])  # spends 4, 8, 12
    flat = course("random", [4, 4, 4], ["1 new", None, None], [2.0, 2, 2])  # 2, 6, 10
    narrow = course("stay-narrow", [1, 1, 1], None, [5.0, 5, 5])  # 1, 2, 3: not so far
    found = compare.areas(pd.concat([control, flat, narrow], ignore_index=True), "test_loss")
    assert found["random"].tolist() == [2]
    assert found["no-split"].item() == pytest.approx((4 * 3.5 + 2 * 2.75) / 6, rel=1e-3)
    assert found["stay-narrow"].isna().all()


def test_a_repeat_that_diverged_is_left_out_of_verdicts():
    values = {"no-split": [1.0, 2, 3, 4], "random": [1.1, np.inf, 3.3, 4.2], "max-loss": [np.nan] * 4}
    for measure in ("test_loss", "test_accuracy"):
        found = compare.verdicts(compare.paired(table(values), measure, "no-split"), measure)
        assert found.n.tolist() == [3, 0]
        assert found["mean"]["random"] == pytest.approx(0.2)
        assert found.verdict.tolist() == ["no difference found", "too few repeats"]


def test_one_repeat_has_no_interval():
    found = compare.verdicts(pd.DataFrame({"random": [0.3]}), "test_loss").loc["random"]
    assert found["mean"] == 0.3 and np.isnan(found.low) and np.isnan(found.p) and found.verdict == "too few repeats"


def test_experiments_are_named_by_what_tells_them_apart():
    rows = [("no-split", "scaled", "sgd"), ("random", "scaled", "sgd"), ("random", "fresh", "sgd")]
    table = pd.DataFrame(rows, columns=["policy", "rule", "optimizer"]).assign(schedule="every-epoch")
    assert compare.named(table).policy.tolist() == ["no-split", "scaled", "fresh"]
    both = pd.concat([table, table.assign(optimizer="adam")], ignore_index=True)
    assert compare.named(both).policy.tolist() == [
        "no-split · sgd", "scaled · sgd", "fresh · sgd", "no-split · adam", "scaled · adam", "fresh · adam",
    ]  # fmt: skip
    policies = pd.DataFrame({"policy": ["no-split", "random", "max-loss"], "rule": "scaled", "schedule": "plateau"})
    assert compare.named(policies).policy.tolist() == ["no-split", "random", "max-loss"]


def test_intervals_are_the_same_every_time():
    values = pd.DataFrame({"a": [0.1, 0.4, 0.2, 0.9], "b": [1.0, 1, 1, 1]})
    first = compare.intervals(values)
    pd.testing.assert_frame_equal(compare.intervals(values), first)
    assert first.loc["b", ["mean", "low", "high"]].tolist() == [1, 1, 1]


def test_an_interval_of_the_spread_holds_it():
    draws = np.random.default_rng(4).normal(size=(30, 200))
    found = compare.intervals(pd.DataFrame(draws), partial(np.std, ddof=1))
    assert found["mean"][0] == pytest.approx(draws[:, 0].std(ddof=1))
    assert 0.85 < ((found.low < 1) & (found.high > 1)).mean() < 0.99


def test_the_overview_says_what_the_parts_say():
    parts = [run_experiment(Experiment(p, width=3, splits=3, still=2, repeats=3)) for p in ("no-split", "random")]
    rows = pd.concat(parts, ignore_index=True)
    found = compare.overview(rows, "no-split")
    assert found["cost", "mean"].tolist() == pytest.approx([1, (3 + 4 + 5 + 6 + 6) / 30])
    ends = compare.summary(rows, "test_accuracy")
    assert found["test accuracy", "mean"].tolist() == pytest.approx(ends["mean"].tolist())
    assert found["spread", "mean"].tolist() == pytest.approx(ends["sd"].tolist())


def test_diverged_repeats_are_counted_and_left_out_of_the_means():
    found = compare.summary(table({"no-split": [1.0, 3, np.nan], "random": [np.inf, np.nan, np.nan]}), "test_accuracy")
    assert found["diverged"].tolist() == [1, 3]
    assert found["n"].tolist()[0] == 2
    assert found.loc["no-split", ["mean", "lowest", "highest"]].tolist() == [2, 1, 3]
    assert np.isnan(found.loc["random", "mean"])


def test_lineage_by_hand():
    """Of 3 neurons: 1 splits (twin 3), 3 splits (twin 4), 0 splits (twin 5)."""
    repeat = pd.DataFrame({"epoch": [1, 2, 3, 4], "hidden": [4, 5, 6, 6], "split_neuron": [1, 3, 0, None]})
    repeat["split_neuron"] = repeat["split_neuron"].astype("Int64").astype("string")
    tree = compare.lineage(repeat)
    assert tree.founder.tolist() == [0, 1, 2, 1, 1, 0]
    assert tree.parent.tolist() == [0, 1, 2, 1, 3, 0]
    assert tree.born.tolist() == [0, 0, 0, 1, 2, 3]


def test_lineage_of_several_splits_an_epoch_and_of_new_neurons():
    """Of 2 neurons: 1 splits (twin 2), then its twin (3); a new one comes (4), which splits (5)."""
    repeat = pd.DataFrame({"epoch": [1, 2, 3], "hidden": [4, 6, 6], "split_neuron": ["1 2", "new 4", None]})
    tree = compare.lineage(repeat)
    assert tree.founder.tolist() == [0, 1, 1, 1, 4, 4]
    assert tree.parent.tolist() == [0, 1, 1, 2, 4, 4]
    assert tree.born.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("policy", policy_names())
def test_every_neuron_has_a_lineage(policy):
    experiment = Experiment(policy=policy, width=3, splits=5, still=1, repeats=2)
    for _, repeat in run_experiment(experiment).groupby("seed"):
        tree = compare.lineage(repeat)
        assert len(tree) == (3 if policy == "stay-narrow" else 8)
        assert (tree.founder == tree.index).sum() == (8 if policy == "no-split" else 3)
        for neuron, row in tree[tree.born > 0].iterrows():
            assert row.parent < neuron and tree.founder[row.parent] == row.founder


def test_nothing_to_compare_is_an_empty_table():
    found = compare.verdicts(pd.DataFrame(index=range(3)), "test_loss")
    assert found.empty and {"mean", "p", "holm", "verdict"} <= set(found)
    assert len(compare.readable(found).data) == 0
