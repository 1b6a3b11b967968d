"""Intervals and tests agree with scipy, with counting by hand, and, by simulation, with their documentation."""

import itertools
import pydoc
import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from synthetic import final_table

from neuronsplit.analysis import comparison, cost, stats
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


@pytest.mark.parametrize("n", range(2, 9))
def test_the_smallest_p_is_the_smallest_over_all_signs(n):
    """By brute force: over all signs of values of different sizes, the test gives no smaller p, and gives this one."""
    sizes = np.random.default_rng(n).exponential(size=n)
    found = [stats.sign_flip_test(pd.Series(sizes * signs)) for signs in itertools.product([1, -1], repeat=n)]
    assert stats.smallest_p(n) == pytest.approx(min(found), rel=1e-12)


def test_the_smallest_p_of_many_seeds_is_that_of_the_assignments_that_are_tried():
    for n in (13, 14, 40):
        assert stats.smallest_p(n) == pytest.approx(stats.sign_flip_test(pd.Series(np.arange(1.0, n + 1))), rel=1e-9)
    assert stats.smallest_p(5000) == stats.smallest_p(40)
    assert np.isnan(stats.smallest_p(1)) and np.isnan(stats.smallest_p(0))


def test_no_differences_have_a_smaller_corrected_p_than_the_smallest():
    """By brute force: over all signs of the differences of three policies, of 5, 4 and 3 seeds."""
    signs = [np.array(list(itertools.product([1, -1], repeat=n))) for n in (5, 4, 3)]
    p = [[stats.sign_flip_test(pd.Series(s * np.arange(1, len(s) + 1))) for s in some] for some in signs]
    corrected = pd.DataFrame(
        [stats.holm(pd.Series(found)) for found in itertools.product(*(sorted(set(x)) for x in p))]
    )
    differences = pd.DataFrame(np.random.default_rng(0).normal(size=(5, 3))).mask(np.tri(5, 3, -3, dtype=bool)[:, ::-1])
    assert differences.count().tolist() == [5, 4, 3]
    found = stats.paired_tests(differences, "test_loss").smallest_p_holm
    assert found.tolist() == pytest.approx(corrected.min().tolist())


@pytest.mark.parametrize("n_seeds, n_policies", [(4, 1), (5, 1), (6, 1), (6, 2), (10, 25), (10, 26), (5, 7), (9, 7)])
def test_a_verdict_is_given_where_one_can_be_reached_and_only_there(n_seeds, n_policies):
    """Differences that all have the same sign are the clearest there can be."""
    differences = pd.DataFrame(np.random.default_rng(0).uniform(1, 2, size=(n_seeds, n_policies)))
    found = stats.paired_tests(differences, "test_accuracy")
    reachable = n_policies * 2 / 2**n_seeds < 0.05
    assert (found.verdict == ("better" if reachable else "too few seeds")).all()
    needed = stats.n_seeds_needed(n_policies)
    assert (n_seeds >= needed) == reachable


def test_five_seeds_cannot_decide_between_seven_policies():
    found = stats.paired_tests(pd.DataFrame(np.ones((5, 7))), "test_loss")
    assert found.smallest_p_holm.round(2).unique().tolist() == [0.44]
    assert stats.n_seeds_needed(7) == 9 and stats.n_seeds_needed(10_000) == np.inf


def test_missing_p_values_are_not_counted_by_holm():
    found = stats.holm(pd.Series({"a": 0.01, "b": np.nan, "c": 0.03}))
    assert found[["a", "c"]].tolist() == pytest.approx([0.02, 0.03]) and np.isnan(found["b"])


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


def test_tables_of_verdicts_escape_names_and_have_an_id_of_their_own():
    differences = pd.DataFrame({"<script>": np.arange(1.0, 11), "b": np.ones(10)})
    page, other = (
        stats.style_tests(stats.paired_tests(d, "test_loss")).to_html() for d in (differences, differences + 1)
    )
    assert "<script>" not in page and "&lt;script&gt;" in page
    ids = [re.search(r'table id="(.*?)"', text).group(1) for text in (page, other)]
    assert ids[0] != ids[1]  # or else the colours of one would be those of the other
    assert page == stats.style_tests(stats.paired_tests(differences, "test_loss")).to_html()


def test_a_seed_that_diverged_is_left_out_of_tests():
    values = {"no-split": [1.0, 2, 3, 4], "random": [1.1, np.inf, 3.3, 4.2], "max-loss": [np.nan] * 4}
    for metric in ("test_loss", "test_accuracy"):
        found = stats.paired_tests(paired_differences(final_table(values), metric, "no-split"), metric)
        assert found.n.tolist() == [3, 0]
        assert found["mean"]["random"] == pytest.approx(0.2)
        assert found.verdict.tolist() == ["too few seeds"] * 2


def test_one_seed_has_no_verdict():
    found = stats.paired_tests(pd.DataFrame({"random": [0.3]}), "test_loss").loc["random"]
    assert found["mean"] == 0.3 and np.isnan(found.low) and np.isnan(found.p) and found.verdict == "too few seeds"


def test_nothing_to_compare_is_an_empty_table():
    found = stats.paired_tests(pd.DataFrame(index=range(3)), "test_loss")
    assert found.empty and {"mean", "p", "p_holm", "verdict"} <= set(found)
    assert len(stats.style_tests(found).data) == 0


def test_help_shows_what_a_module_is_for_and_nothing_of_what_it_uses():
    for module in (stats, cost, comparison):
        text = pydoc.plain(pydoc.render_doc(module))
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        assert len(text.splitlines()) < 60 + 25 * len(own) and "scipy.stats._" not in text
        assert "DATA" not in text or "<" not in text.split("DATA")[1].split("FILE")[0]  # no objects of other packages
