"""Compute what training costs, and compare policies at equal cost: in epochs, in multiply-adds or in time.

Every `table` is that of a study whose column `policy` distinguishes its experiments, as after `tables.with_labels`.
The column `cost_in` says what training has cost since its start: "epoch", "neuron_epochs", or one that was added, such
as what `seconds` returns. No table needs to have "neuron_epochs", for it is computed.
"""

import numpy as np
import pandas as pd

from neuronsplit.analysis import stats, tables


def multiply_adds(width: int, n_in: int, n_out: int, n_images: int) -> int:
    """Return the multiply-adds of training one hidden layer for an epoch: (2 n_in + 3 n_out) width n_images.

    For each image, a neuron takes n_in + n_out of them for its activation and its part of the output. It takes as many
    for the gradients of its weights, and n_out for that of its activation. The cost of scores is not counted, nor that
    of images that a growth uses. Nor is evaluation: on validation images it takes (n_in + n_out) width for each, which
    is the same share of the training for every width.
    """
    return (2 * n_in + 3 * n_out) * width * n_images


def neuron_epochs(table: pd.DataFrame) -> pd.Series:
    """Return for each row the number of neurons trained, summed over the epochs so far.

    They are proportional to multiply-adds: `multiply_adds` of width 1 is what one of them takes.
    """
    return _so_far(table, _trained_width(table))


def seconds(table: pd.DataFrame, times: pd.DataFrame, n_steps: int) -> pd.Series:
    """Return for each row the seconds of training so far, from the time of a step at each width.

    times: what `measuring.step_times.time_steps` returns. Between its widths, times are interpolated.
    n_steps: the number of steps in an epoch.
    Raises ValueError for a width that is not within those that were timed.
    """
    width, times = _trained_width(table), times.sort_values("width")
    low, high = times["width"].iloc[[0, -1]]
    if not width.between(low, high).all():
        outside = width[~width.between(low, high)].iloc[0]
        raise ValueError(f"width {outside}: allowed are those within the widths that were timed, {low} to {high}")
    return _so_far(table, n_steps * pd.Series(np.interp(width, times["width"], times["seconds"]), table.index))


def _trained_width(table: pd.DataFrame) -> pd.Series:
    added = table["split_neuron"].fillna("").astype(str)  # after the epoch was trained
    n_new = added.map({text: len(text.split()) for text in added.unique()})
    return table["hidden"] - n_new


def _so_far(table: pd.DataFrame, of_epochs: pd.Series) -> pd.Series:
    return of_epochs.groupby([table["policy"], table["seed"]]).cumsum()


def with_cost(table: pd.DataFrame, cost_in: str) -> pd.DataFrame:
    """Return the table with one more column, the cost: what the column cost_in says."""
    return table.assign(cost=table.assign(neuron_epochs=neuron_epochs(table))[cost_in])


def relative_cost(table: pd.DataFrame, baseline: str, cost_in: str = "neuron_epochs") -> pd.Series:
    """Return the mean cost of every policy over its seeds, as a share of that of the baseline."""
    cost = tables.last_epoch(with_cost(table, cost_in)).groupby("policy", sort=False)["cost"].mean()
    return cost / cost[baseline]


def relative_seconds(table: pd.DataFrame, baseline: str, step_times: pd.DataFrame) -> pd.Series:
    """Return the mean time of every policy, one network alone, as a share of that of the baseline.

    table: of one data set. step_times: as `seconds` takes them, for several data sets.
    """
    times = step_times[step_times["dataset"] == table["dataset"].iloc[0]]
    timed = table.assign(seconds=seconds(table, times, n_steps=1))  # the number of steps has no part in a share
    return relative_cost(timed, baseline, "seconds")


def difference_at_equal_cost(
    table: pd.DataFrame, metric: str, baseline: str, cost_in: str = "neuron_epochs"
) -> pd.DataFrame:
    """Subtract the baseline's value at equal cost and equal seed from a metric, for each row of the other policies.

    baseline: a policy of the table.
    Returns these rows with two more columns: the difference, and the cost as a share of the baseline's total cost. The
    baseline is interpolated between its epochs. Before its first and after its last epoch, the difference is NaN.
    Raises KeyError for a seed that the baseline lacks.
    """
    table = with_cost(table, cost_in)
    baselines = {seed: rows.sort_values("epoch") for seed, rows in table[table["policy"] == baseline].groupby("seed")}
    parts = []
    for seed, rows in table[table["policy"] != baseline].groupby("seed", sort=False):
        reference = baselines[seed]
        expected = np.interp(rows["cost"], reference["cost"], reference[metric], left=np.nan, right=np.nan)
        share = rows["cost"] / reference["cost"].iloc[-1]
        parts.append(rows.assign(difference=rows[metric] - expected, cost=share))
    return pd.concat(parts).sort_index()


def lead_until(table: pd.DataFrame, metric: str, baseline: str, cost_in: str = "neuron_epochs") -> pd.Series:
    """Return for each policy how long it leads: the share of the baseline's cost until which a loss is lower.

    Lower means that the whole 95 % interval (Student's t) of the difference at equal cost is below 0. It has to be so
    after every epoch, from the first whose cost the baseline has reached. The share is 0 for a policy that does not
    lead there.
    """
    found = difference_at_equal_cost(table, metric, baseline, cost_in).dropna(subset="difference")
    until = {}
    for policy, rows in found.groupby("policy", sort=False):
        differences = rows.pivot(index="seed", columns="epoch", values="difference")
        leads = (stats.intervals(differences)["high"] < 0).cummin()
        until[policy] = rows.groupby("epoch")["cost"].mean()[leads].max() if leads.any() else 0.0
    return pd.Series(until)
