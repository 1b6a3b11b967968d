"""The share of variance between levels agrees with an analysis of variance, and finds what was put in."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from neuronsplit.analysis.variance import omega_squared, variance_shares


def test_it_is_what_the_f_statistic_says():
    """ω² = df (F − 1) / (df (F − 1) + n), with F of scipy's one-way analysis of variance."""
    rng = np.random.default_rng(0)
    levels = pd.Series(rng.integers(4, size=50))
    values = pd.Series(rng.normal(size=50) + levels)
    f = scipy.stats.f_oneway(*(values[levels == level] for level in range(4))).statistic
    assert omega_squared(values, levels) == pytest.approx(3 * (f - 1) / (3 * (f - 1) + 50))


def test_it_finds_the_shares_that_were_put_in():
    rng = np.random.default_rng(0)
    choices = pd.DataFrame({"strong": rng.integers(2, size=4000), "weak": rng.integers(20, size=4000), "none": 0})
    choices["none"] = rng.integers(20, size=4000)
    weak = rng.normal(size=20)
    weak = (weak - weak.mean()) / weak.std()
    values = pd.Series(4 * choices["strong"] + weak[choices["weak"]] + rng.normal(size=4000))  # variances 4, 1, 1
    shares = variance_shares(values, choices)
    assert shares["share"].tolist() == pytest.approx([4 / 6, 1 / 6, 0], abs=0.02)
    assert (shares["low"] <= shares["share"]).all() and (shares["share"] <= shares["high"]).all()
    assert shares.loc["none", "low"] == 0 and shares.loc["weak", "low"] > 0.1


def test_with_few_values_it_has_no_interval_and_with_no_variance_no_share():
    choices = pd.DataFrame({"choice": [0, 1] * 10})
    assert variance_shares(pd.Series(range(20)), choices)[["low", "high"]].isna().all(axis=None)
    assert variance_shares(pd.Series([1.0] * 20), choices)["share"].tolist() == [0]
    assert np.isnan(omega_squared(pd.Series([1.0, 2.0]), pd.Series([0, 1])))
