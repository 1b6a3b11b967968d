"""Costs and comparisons at equal cost, by hand."""

import numpy as np
import pandas as pd
import pytest
from synthetic import course, study_table

from neuronsplit.analysis import cost, tables


def test_cost_is_counted_before_the_split():
    """Width 2 grows by one, then by two: trained with 2, 3 and 5 neurons."""
    grown = course("random", [3, 5, 5], ["1", "0 new", None], [3.0, 2, 1])
    assert cost.cumulative_cost(grown).tolist() == [2, 5, 10]


def test_equal_cost_takes_the_control_when_it_had_cost_as_much():
    grown = course("random", [3, 5, 5], ["1", "0 2", None], [3.0, 2, 1])
    control = course("no-split", [4, 4, 4, 4], None, [4.0, 3, 2.5, 2.2])  # costs 4, 8, 12, 16; the other 10
    table = pd.concat([control[:3], grown], ignore_index=True)
    found = cost.final_difference_at_equal_cost(table, "test_loss", "no-split")
    assert found["random"].tolist() == [1 - 2.75]
    cheap = pd.concat([control[:3], course("random", [2, 2, 2], None, [5.0, 5, 5])], ignore_index=True)  # 6
    found = cost.final_difference_at_equal_cost(cheap, "test_loss", "no-split")
    assert found["random"].tolist() == [5 - 3.5]


def test_a_difference_at_equal_cost_is_taken_after_every_epoch():
    grown = course("random", [3, 5, 5], ["1", "0 2", None], [3.0, 2, 1])  # costs 2, 5, 10
    control = course("no-split", [4, 4, 4], None, [4.0, 3, 2.5])  # 4, 8, 12
    table = pd.concat([control, grown], ignore_index=True)
    found = cost.difference_at_equal_cost(table, "test_loss", "no-split")
    np.testing.assert_allclose(found.difference, [np.nan, 2 - 3.75, 1 - 2.75])
    np.testing.assert_allclose(found.cost, [2 / 12, 5 / 12, 10 / 12])


def test_the_relative_cost_is_that_of_the_last_epoch():
    control = course("no-split", [4, 4, 4], None, [4.0, 3, 2.5])  # 12
    grown = course("random", [3, 5, 5], ["1", "0 2", None], [3.0, 2, 1])  # 10
    cheaper = course("random", [2, 2, 2], None, [3.0, 2, 1]).assign(seed=1)  # 6: the mean is 8
    found = cost.relative_cost(pd.concat([control, grown, cheaper], ignore_index=True), "no-split")
    assert found.to_dict() == pytest.approx({"no-split": 1, "random": 8 / 12})


def test_means_over_the_cost():
    """From cost 4 to 10 the control falls straight from 4 to 3 (at 8) and to 2.5; the other is always 2."""
    control = course("no-split", [4, 4, 4], None, [4.0, 3, 2])  # costs 4, 8, 12
    flat = course("random", [4, 4, 4], ["1 new", None, None], [2.0, 2, 2])  # 2, 6, 10
    narrow = course("stay-narrow", [1, 1, 1], None, [5.0, 5, 5])  # 1, 2, 3: not so far
    found = cost.mean_over_cost(pd.concat([control, flat, narrow], ignore_index=True), "test_loss")
    assert found["random"].tolist() == [2]
    assert found["no-split"].item() == pytest.approx((4 * 3.5 + 2 * 2.75) / 6, rel=1e-3)
    assert found["stay-narrow"].isna().all()


def test_the_overview_says_what_the_parts_say():
    rows = study_table(["no-split", "random"])
    found = cost.overview(rows, "no-split")
    assert found["cost", "mean"].tolist() == pytest.approx([1, (3 + 4 + 5 + 6 + 6) / 30])
    summary = tables.summary(rows, "test_accuracy")
    assert found["test accuracy", "mean"].tolist() == pytest.approx(summary["mean"].tolist())
    assert found["sd of test accuracy", "mean"].tolist() == pytest.approx(summary["sd"].tolist())
    means = cost.mean_over_cost(rows, "test_loss").mean()
    assert found["test loss, mean over cost", "mean"].tolist() == pytest.approx(means.tolist())
    for measure in ("test loss", "test accuracy", "test accuracy, mean over cost", "sd of test accuracy"):
        assert (found[measure, "low"] < found[measure, "mean"]).all()
        assert (found[measure, "mean"] < found[measure, "high"]).all()
