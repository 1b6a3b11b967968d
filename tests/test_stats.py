"""Intervals and tests agree with scipy, with counting by hand, and, by simulation, with their documentation."""

import itertools
import pydoc
import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
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


VALUES = [-0.3, -0.1, 0.0, 0.1, 0.2, 0.5]  # of random differences
DIFFERENCES = {  # distributions of paired differences, with their means
    "normal": (lambda rng, size: rng.normal(1, 1, size), 1),
    "log-normal": (lambda rng, size: rng.lognormal(0, 0.5, size), np.exp(0.125)),
    "t(3)": (lambda rng, size: rng.standard_t(3, size), 0),
}


@pytest.mark.parametrize(
    "name, n, percent",
    [("normal", 10, 95), ("normal", 20, 95), ("log-normal", 10, 92), ("log-normal", 20, 93), ("t(3)", 10, 96),
     ("t(3)", 20, 96)],
)  # fmt: skip
def test_intervals_cover_the_true_mean_as_often_as_documented(name, n, percent):
    """By simulation: of 40,000 samples, which gives the coverage to 0.0014 (one standard error)."""
    draw, mean = DIFFERENCES[name]
    found = stats.intervals(pd.DataFrame(draw(np.random.default_rng(2), (n, 40_000))))
    assert round(100 * ((found.low < mean) & (found.high > mean)).mean()) == percent


def test_a_constant_has_an_interval_of_no_width_and_one_value_has_none():
    found = stats.intervals(pd.DataFrame({"a": [1.0, 1, 1], "b": [0.3, np.nan, np.nan], "c": [np.nan] * 3}))
    assert found.loc["a"].tolist() == [3, 1, 1, 1]
    assert found.loc["b", ["n", "mean"]].tolist() == [1, 0.3] and found.loc["c", "n"] == 0
    assert found.loc[["b", "c"], ["low", "high"]].isna().all(axis=None)


def dependent(rng):
    """Differences of 10 seeds and 7 policies, which all share the baseline."""
    return rng.normal(size=(10, 1)) + rng.laplace(size=(10, 7))


def skewed(rng):
    """Differences to a baseline, of values with a long tail on one side."""
    values = rng.lognormal(0, 0.5, size=(10, 8))
    return values[:, 1:] - values[:, :1]


def incomplete(rng):
    """As the first, but some policies lack seeds, and one has only two."""
    differences = dependent(rng)
    differences[6:, 0] = differences[:3, 1] = differences[2:, 2] = np.nan
    return differences


def far_apart(rng):
    """As the first, but three of the policies differ from the baseline by much."""
    return dependent(rng) + np.array([0, 3, 0, 0, -10, 0, 30])


@pytest.mark.long
@pytest.mark.parametrize(
    "draw, without", [(dependent, range(7)), (skewed, range(7)), (incomplete, range(7)), (far_apart, [0, 2, 3, 5])]
)
def test_where_there_is_no_difference_one_family_in_twenty_finds_one(draw, without):
    """By simulation of 1,000 families: at most 1 in 20 call a difference that is none, and not far fewer do."""
    rng, found = np.random.default_rng(3), 0
    for _ in range(1000):
        tests = stats.sign_flip_tests(pd.DataFrame(draw(rng)))
        found += (tests.p_adjusted.iloc[list(without)] < 0.05).any()
    assert 0.035 < found / 1000 < 0.05 + 2 * 0.0069  # two standard errors


@settings(max_examples=60)
@example(np.array([[-0.3], [-0.3], [0.2], [0.2], [0.1], [0.1]]))  # the sum is 0, but not in floating point
@given(hnp.arrays(float, st.tuples(st.integers(0, 6), st.integers(0, 4)), elements=st.sampled_from([*VALUES, np.nan])))
def test_sign_flip_tests_agree_with_plain_loops(differences):
    """Over all assignments of signs; ties are frequent, for the values are few."""
    n_seeds, n_policies = differences.shape

    def statistic(j, signs):
        own = [(sign, d) for sign, d in zip(signs, differences[:, j]) if not np.isnan(d)]
        size = sum(d**2 for _, d in own) ** 0.5
        return round(abs(sum(sign * d for sign, d in own)) / size, 9) if size else 0.0

    tested = [j for j in range(n_policies) if np.isfinite(differences[:, j]).sum() > 1]
    unchanged, assignments = [1] * n_seeds, list(itertools.product([1, -1], repeat=n_seeds))
    expected, last = {}, 0.0
    for j in sorted(tested, key=lambda j: -statistic(j, unchanged)):
        found = statistic(j, unchanged)
        others = [i for i in tested if statistic(i, unchanged) <= found]  # no clearer than j
        largest = [max(statistic(i, signs) for i in others) for signs in assignments]
        last = max(last, np.mean([value >= found for value in largest]))
        expected[j] = np.mean([statistic(j, signs) >= found for signs in assignments]), last
    found = stats.sign_flip_tests(pd.DataFrame(differences))
    assert list(found.index) == list(range(n_policies)) and found.notna().all(axis=1).sum() == len(tested)
    for j in tested:
        assert found.loc[j].tolist() == pytest.approx(expected[j])


@pytest.mark.parametrize("n", [2, 9, 13])
def test_the_p_of_one_policy_is_that_of_scipy(n):
    """Whose statistic is the mean: by one policy alone, it ranks assignments in the same way."""
    values = np.random.default_rng(n).normal(0.4, 1, size=n)
    expected = scipy.stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    found = stats.sign_flip_tests(pd.DataFrame({"a": values}))
    assert found.loc["a"].tolist() == pytest.approx([expected.pvalue] * 2)


def test_the_statistic_ranks_assignments_as_students_t_does():
    values = np.random.default_rng(0).normal(size=8) * np.array(list(itertools.product([1, -1], repeat=8)))
    t = np.abs(scipy.stats.ttest_1samp(values, 0, axis=1).statistic)
    found = np.abs(values.sum(1)) / (values**2).sum(1) ** 0.5
    assert scipy.stats.spearmanr(t, found).statistic == pytest.approx(1)


def test_many_seeds_are_tested_by_a_sample_of_the_assignments():
    """19 seeds have 2¹⁸ assignments up to their sign: counting all of them gives the same to a few thousandths."""
    differences = pd.DataFrame(np.random.default_rng(6).normal([0.1, 0.1, 0.4], 1, size=(19, 3)))
    signs = 1 - 2 * (np.arange(2**18)[:, None] >> np.arange(19) & 1)
    statistics = np.abs(signs @ (differences / (differences**2).sum() ** 0.5).to_numpy())
    largest = statistics.argmax(1)[0]
    found = stats.sign_flip_tests(differences)
    assert found.p.tolist() == pytest.approx((statistics >= statistics[0]).mean(0), abs=0.004)
    expected = (statistics.max(1) >= statistics[0].max()).mean()
    assert found.p_adjusted[largest] == pytest.approx(expected, abs=0.004) and 0.02 < expected < 0.5
    pd.testing.assert_frame_equal(found, stats.sign_flip_tests(differences))
    assert not found.equals(stats.sign_flip_tests(differences, seed=1))


@given(hnp.arrays(float, st.tuples(st.integers(2, 8), st.integers(1, 4)), elements=st.floats(-5, 5)))
def test_no_differences_have_a_smaller_p_than_the_smallest_and_equal_ones_have_it(differences):
    n_seeds, smallest = len(differences), stats.smallest_p(len(differences))
    found = stats.sign_flip_tests(pd.DataFrame(differences))
    assert (found >= smallest - 1e-12).all(axis=None) and (found.p_adjusted >= found.p).all()
    equal = stats.sign_flip_tests(pd.DataFrame(np.ones((n_seeds, 3)) * [1, -2, 3]))
    assert equal.to_numpy() == pytest.approx(smallest)


def test_the_smallest_p_of_many_seeds_is_that_of_the_assignments_that_are_tried():
    for n in (17, 18, 40):
        found = stats.sign_flip_tests(pd.DataFrame({"a": np.arange(1.0, n + 1)}))
        assert stats.smallest_p(n) == pytest.approx(found.p["a"], rel=1e-9)
    assert stats.smallest_p(5000) == stats.smallest_p(40)
    assert np.isnan(stats.smallest_p(1)) and np.isnan(stats.smallest_p(0))


def test_a_policy_of_few_seeds_does_not_keep_others_from_a_verdict():
    """Its differences are as clear as three can be, and its p is as small as it can be."""
    differences = pd.DataFrame({"few": [1.0] * 3 + [np.nan] * 7, "all": np.linspace(1, 2, 10)})
    found = stats.paired_tests(differences, "test_accuracy")
    assert found.verdict.tolist() == ["too few seeds", "better"]
    assert found.p_adjusted.tolist() == pytest.approx([2 / 2**3, 2 / 2**10])


@pytest.mark.parametrize("n_seeds", [4, 5, 6, 10])
@pytest.mark.parametrize("n_policies", [1, 7, 26])
def test_a_verdict_is_given_where_one_can_be_reached_and_only_there(n_seeds, n_policies):
    """Differences that all have the same sign are the clearest there can be."""
    differences = pd.DataFrame(np.random.default_rng(0).uniform(1.9, 2, size=(n_seeds, n_policies)))
    found = stats.paired_tests(differences, "test_accuracy")
    reachable = 2 / 2**n_seeds < 0.05
    assert (found.verdict == ("better" if reachable else "too few seeds")).all()
    assert (n_seeds >= stats.n_seeds_needed()) == reachable


@pytest.mark.parametrize("n, level", [(5, 0.05), (10, 0.05), (10, 0.05 / 7), (30, 0.05)])
def test_the_minimum_detectable_effect_is_found_four_times_in_five(n, level):
    draws = np.random.default_rng(n).normal(stats.minimum_detectable_effect(n, level), 1, size=(4000, n))
    found = scipy.stats.ttest_1samp(draws, 0, axis=1)
    assert ((found.pvalue < level) & (found.statistic > 0)).mean() == pytest.approx(0.8, abs=0.02)


def test_the_verdict_finds_the_minimum_detectable_effect_about_as_often_as_documented():
    """One policy of seven differs, by as much as ten seeds are said to find 4 times in 5."""
    rng, found = np.random.default_rng(5), 0
    for _ in range(300):
        differences = pd.DataFrame(rng.normal(size=(10, 7)))
        differences[0] += stats.minimum_detectable_effect(10, 0.05 / 7)
        found += stats.sign_flip_tests(differences).p_adjusted[0] < 0.05
    assert 0.75 < found / 300 < 0.9


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
    assert found.empty and {"mean", "p", "p_adjusted", "verdict"} <= set(found)
    assert len(stats.style_tests(found).data) == 0


def test_small_p_values_are_shown_as_below_a_thousandth():
    found = stats.paired_tests(pd.DataFrame({"a": np.arange(1.0, 15), "b": np.tile([1.0, -1], 7)}), "test_loss")
    assert found["p"].tolist() == [2.0**-13, 1]
    assert stats.style_tests(found).data["p"].tolist() == ["< 0.001", "1.000"]


def test_help_shows_what_a_module_is_for_and_nothing_of_what_it_uses():
    for module in (stats, cost, comparison):
        text = pydoc.plain(pydoc.render_doc(module))
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        assert len(text.splitlines()) < 60 + 25 * len(own) and "scipy.stats._" not in text
        assert "DATA" not in text or "<" not in text.split("DATA")[1].split("FILE")[0]  # no objects of other packages
