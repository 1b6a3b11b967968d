"""Intervals and tests agree with scipy, with counting by hand, and, by simulation, with their documentation."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from synthetic import final_table

from neuronsplit.analysis import stats
from neuronsplit.analysis.tables import paired_differences


def test_intervals_are_those_of_scipy():
    rng = np.random.default_rng(1)
    values = pd.DataFrame({"a": rng.normal(3, 1, 10), "b": rng.lognormal(size=10)})
    values.loc[7:, "b"] = np.nan
    found = stats.intervals(values)
    for name, column in values.items():
        sample = column.dropna()
        low, high = scipy.stats.t.interval(0.95, len(sample) - 1, sample.mean(), scipy.stats.sem(sample))
        assert found.loc[name].tolist() == pytest.approx([len(sample), sample.mean(), low, high])
        other = scipy.stats.ttest_1samp(sample, 0).confidence_interval(0.95)
        assert found.loc[name, ["low", "high"]].tolist() == pytest.approx([other.low, other.high])


DIFFERENCES = {  # distributions of paired differences, with their means
    "normal": (lambda rng, size: rng.normal(1, 1, size), 1),
    "log-normal": (lambda rng, size: rng.lognormal(0, 0.5, size), np.exp(0.125)),
    "t(3)": (lambda rng, size: rng.standard_t(3, size), 0),
}


@pytest.mark.parametrize(
    "name, least, most", [("normal", 0.945, 0.955), ("log-normal", 0.915, 0.93), ("t(3)", 0.95, 0.97)]
)
def test_intervals_of_ten_seeds_cover_the_true_mean_as_often_as_documented(name, least, most):
    """By simulation: of 40,000 samples, which gives the coverage to 0.0014 (one standard error)."""
    draw, mean = DIFFERENCES[name]
    found = stats.intervals(pd.DataFrame(draw(np.random.default_rng(2), (10, 40_000))))
    assert least < ((found.low < mean) & (found.high > mean)).mean() < most


@pytest.mark.parametrize("n", [3, 10, 40])
def test_intervals_of_a_standard_deviation_cover_it_in_95_of_100_normal_samples(n):
    draws = np.random.default_rng(4).normal(2, 3, size=(n, 40_000))
    found = stats.sd_intervals(pd.DataFrame(draws))
    assert found.sd[0] == pytest.approx(draws[:, 0].std(ddof=1)) and (found.n == n).all()
    assert 0.945 < ((found.low < 3) & (found.high > 3)).mean() < 0.955
    above, below = (found.low > 3).mean(), (found.high < 3).mean()
    assert above == pytest.approx(0.025, abs=0.004) and below == pytest.approx(0.025, abs=0.004)


def test_a_constant_has_an_interval_of_no_width_and_one_value_has_none():
    found = stats.intervals(pd.DataFrame({"a": [1.0, 1, 1], "b": [0.3, np.nan, np.nan], "c": [np.nan] * 3}))
    assert found.loc["a"].tolist() == [3, 1, 1, 1]
    assert found.loc["b", ["n", "mean"]].tolist() == [1, 0.3] and found.loc["c", "n"] == 0
    assert found.loc[["b", "c"], ["low", "high"]].isna().all(axis=None)
    assert stats.sd_intervals(pd.DataFrame({"b": [0.3]}))[["sd", "low", "high"]].isna().all(axis=None)


def test_without_any_difference_at_most_one_study_in_twenty_finds_one():
    """Of 400 studies of 7 policies without any difference, with skewed and dependent errors, as theirs are."""
    rng, found = np.random.default_rng(3), 0
    for _ in range(400):
        differences = rng.normal(size=(10, 1)) + rng.laplace(size=(10, 7))  # all of them share the baseline
        p = pd.Series([stats.sign_flip_test(pd.Series(column)) for column in differences.T])
        found += (stats.holm(p) < 0.05).any()
    assert found <= 29  # 20 expected at most; 29 has probability 0.02 at 1 in 20


def test_the_sign_flip_test_counts_every_flip():
    values = np.array([0.3, -0.1, 0.5, 0.2, 0.4])
    means = [abs(np.mean(values * signs)) for signs in itertools.product([1, -1], repeat=5)]
    expected = np.mean([mean >= abs(values.mean()) - 1e-12 for mean in means])
    assert stats.sign_flip_test(pd.Series(values)) == pytest.approx(expected)
    assert stats.sign_flip_test(pd.Series([0.0, 0.0])) == 1


def test_holm_by_hand():
    """0.01 × 4, 0.02 × 3, 0.04 × 2, 0.03 × 2: in order 0.01, 0.02, 0.03, 0.04, never falling."""
    found = stats.holm(pd.Series({"a": 0.04, "b": 0.01, "c": 0.02, "d": 0.03}))
    assert found.to_dict() == pytest.approx({"a": 0.06, "b": 0.04, "c": 0.06, "d": 0.06})


@pytest.mark.parametrize("n, level", [(5, 0.05), (10, 0.05), (10, 0.05 / 7), (30, 0.05)])
def test_the_minimum_detectable_effect_is_found_four_times_in_five(n, level):
    draws = np.random.default_rng(n).normal(stats.minimum_detectable_effect(n, level), 1, size=(4000, n))
    found = scipy.stats.ttest_1samp(draws, 0, axis=1)
    assert ((found.pvalue < level) & (found.statistic > 0)).mean() == pytest.approx(0.8, abs=0.02)


def test_the_verdict_finds_the_minimum_detectable_effect_about_as_often_as_documented():
    """One policy of seven differs, by as much as ten seeds are said to find 4 times in 5."""
    rng, found = np.random.default_rng(5), 0
    for _ in range(150):
        differences = pd.DataFrame(rng.normal(size=(10, 7)))
        differences[0] += stats.minimum_detectable_effect(10, 0.05 / 7)
        p = pd.Series({name: stats.sign_flip_test(column) for name, column in differences.items()})
        found += stats.holm(p)[0] < 0.05
    assert 0.65 < found / 150 < 0.9


def test_paired_tests_by_hand():
    noise = np.random.default_rng(0).normal(0, 0.01, size=(10, 3))
    differences = pd.DataFrame(noise + [0.1, -0.1, 0], columns=["up", "down", "same"])
    differences["same"] -= differences["same"].mean()
    loss, accuracy = (stats.paired_tests(differences, metric) for metric in ("test_loss", "test_accuracy"))
    assert loss.verdict.tolist() == ["worse", "better", "no difference found"]
    assert accuracy.verdict.tolist() == ["better", "worse", "no difference found"]
    assert accuracy.prob_improvement["up"] == 1 and loss.prob_improvement["up"] == 0
    middle = np.sort(differences["up"])[2:8]
    assert accuracy.interquartile_mean["up"] == pytest.approx(middle.mean())
    assert accuracy.p["up"] == pytest.approx(2 / 1024)
    intervals = stats.intervals(differences)
    pd.testing.assert_frame_equal(accuracy[["n", "mean", "low", "high"]], intervals)
    styled = stats.style_tests(accuracy)
    assert "95 % interval (Student's t)" in styled.data
    text = styled.to_html()
    assert "no difference found" in text and "+0.1" in text and "−0." in text


def test_a_seed_that_diverged_is_left_out_of_tests():
    values = {"no-split": [1.0, 2, 3, 4], "random": [1.1, np.inf, 3.3, 4.2], "max-loss": [np.nan] * 4}
    for metric in ("test_loss", "test_accuracy"):
        found = stats.paired_tests(paired_differences(final_table(values), metric, "no-split"), metric)
        assert found.n.tolist() == [3, 0]
        assert found["mean"]["random"] == pytest.approx(0.2)
        assert found.verdict.tolist() == ["no difference found", "too few seeds"]


def test_one_seed_has_no_verdict():
    found = stats.paired_tests(pd.DataFrame({"random": [0.3]}), "test_loss").loc["random"]
    assert found["mean"] == 0.3 and np.isnan(found.low) and np.isnan(found.p) and found.verdict == "too few seeds"


def test_nothing_to_compare_is_an_empty_table():
    found = stats.paired_tests(pd.DataFrame(index=range(3)), "test_loss")
    assert found.empty and {"mean", "p", "p_holm", "verdict"} <= set(found)
    assert len(stats.style_tests(found).data) == 0
