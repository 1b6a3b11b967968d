"""Compute what training costs, and compare policies at equal cost.

Every `table` is that of a study whose column `policy` distinguishes its experiments, as after `tables.with_labels`.
"""

import numpy as np
import pandas as pd

from neuronsplit.analysis import stats, tables
from neuronsplit.names import STAY_NARROW


def cumulative_cost(table: pd.DataFrame) -> pd.Series:
    """Return for each row the number of neurons trained, summed over the epochs so far.

    This is proportional to the multiply-adds of training one hidden layer. A neuron takes 2 n_in + 3 n_out of them for
    each image. They compute its activation and output, and the gradients of its weights and activation. The cost of
    scores is not counted, nor the cost of images that a growth uses.
    """
    n_new = table["split_neuron"].fillna("").astype(str).str.split().str.len()  # added after the epoch was trained
    return (table["hidden"] - n_new).groupby([table["policy"], table["seed"]]).cumsum()


def relative_cost(table: pd.DataFrame, baseline: str) -> pd.Series:
    """Return the mean cost of every policy over its seeds, as a share of that of the baseline."""
    last = tables.last_epoch(table.assign(cost=cumulative_cost(table)))
    cost = last.groupby("policy", sort=False)["cost"].mean()
    return cost / cost[baseline]


def difference_at_equal_cost(table: pd.DataFrame, metric: str, baseline: str) -> pd.DataFrame:
    """Subtract the baseline's value at equal cost and equal seed from a metric, for each row of the other policies.

    baseline: a policy of the table.
    Returns these rows with two more columns: the difference, and the cost as a share of the baseline's total cost. The
    baseline is interpolated between its epochs. Before its first and after its last epoch, the difference is NaN.
    Raises KeyError for a seed that the baseline lacks.
    """
    table = table.assign(cost=cumulative_cost(table))
    baselines = {seed: rows.sort_values("epoch") for seed, rows in table[table["policy"] == baseline].groupby("seed")}
    parts = []
    for seed, rows in table[table["policy"] != baseline].groupby("seed", sort=False):
        reference = baselines[seed]
        expected = np.interp(rows["cost"], reference["cost"], reference[metric], left=np.nan, right=np.nan)
        share = rows["cost"] / reference["cost"].iloc[-1]
        parts.append(rows.assign(difference=rows[metric] - expected, cost=share))
    return pd.concat(parts).sort_index()


def final_difference_at_equal_cost(table: pd.DataFrame, metric: str, baseline: str) -> pd.DataFrame:
    """Subtract the baseline's value at equal cost from every policy's final value.

    Returns a row per seed and a column per policy.
    """
    return tables.final_values(difference_at_equal_cost(table, metric, baseline), "difference")


def mean_over_cost(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Average a metric over the cost.

    The mean is taken over the range of costs that all policies except stay-narrow have in common. It is NaN for
    stay-narrow if its own cost ends earlier.
    Returns a row per seed and a column per policy.
    """
    policies = list(table["policy"].unique())
    table = table.assign(cost=cumulative_cost(table)).sort_values("epoch")
    curves = {key: rows for key, rows in table.groupby(["policy", "seed"])}
    first = max(rows["cost"].iloc[0] for rows in curves.values())
    last = min(rows["cost"].iloc[-1] for (policy, _), rows in curves.items() if policy != STAY_NARROW)
    grid = np.linspace(first, last, 1000)
    means = {key: np.interp(grid, rows["cost"], rows[metric], right=np.nan).mean() for key, rows in curves.items()}
    return pd.Series(means).unstack(0)[policies].rename_axis(index="seed")


def overview(table: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Summarise the cost and quality of every policy.

    Returns a row per policy. Columns are pairs of a measure and "mean", "low" or "high". The last two are the ends of a
    95 % interval. The measures are
    cost: a share of the baseline's cost; it has no interval.
    test loss, test accuracy: the final values, with intervals by Student's t.
    test loss, mean over cost: what mean_over_cost returns, with intervals by Student's t; likewise for test accuracy.
    sd of test accuracy: over the seeds, for the final values, with chi-square intervals.
    """
    measures = {}
    for title, metric in {"test loss": "test_loss", "test accuracy": "test_accuracy"}.items():
        measures[title] = stats.intervals(tables.final_values(table, metric))
        measures[f"{title}, mean over cost"] = stats.intervals(mean_over_cost(table, metric))
    sd = stats.sd_intervals(tables.final_values(table, "test_accuracy")).rename(columns={"sd": "mean"})
    measures["sd of test accuracy"] = sd
    columns = {("cost", "mean"): relative_cost(table, baseline)}
    columns |= {(title, part): rows[part] for title, rows in measures.items() for part in ("mean", "low", "high")}
    return pd.DataFrame(columns).loc[list(table["policy"].unique())]
