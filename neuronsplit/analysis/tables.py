"""Reshape tidy tables for statistics and figures.

Every `table` is that of a study, with a row per experiment, seed and epoch. Where there is a `metric`, the column
`policy` has to distinguish the experiments, as after `with_labels`.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from neuronsplit.checks import require_name
from neuronsplit.names import CONTROLS, GROWTH_COLUMNS, ID_COLUMNS, NAMED_COLUMNS, NO_PARENT

_CHOICES = ("policy", *GROWTH_COLUMNS)  # the ID_COLUMNS that a study compares; the others are its setting


def with_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a label of each experiment in the column `policy`, such as "random · even".

    A label names the ID_COLUMNS that vary. A control has no GROWTH_COLUMNS.
    """
    control = table["policy"].isin(CONTROLS)
    choices = [name for name in _CHOICES if name in table and table.loc[~control, name].nunique() > 1]
    varying = [name for name in _setting_columns(table) if table[name].nunique() > 1]
    labels = table["policy"].copy()
    for rows, names in ((~control, [*(choices or ["policy"]), *varying]), (control, ["policy", *varying])):
        texts = {name: table.loc[rows, name].astype(str) for name in names}
        texts |= {name: name.replace("_", " ") + " " + texts[name] for name in names if name in NAMED_COLUMNS}
        labels[rows] = [" · ".join(parts) for parts in zip(*texts.values())]
    return table.assign(policy=labels)


def by_setting(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Divide a table into parts in which experiments differ only in the policy and in GROWTH_COLUMNS.

    Returns setting → part. The name of a setting has the columns that differ between parts, such as "learning rate
    0.01, width 10". Compare a policy only with the control of its own part.
    """
    varying = [name for name in _setting_columns(table) if table[name].nunique() > 1]
    if not varying:
        return {"": table}
    names = [name.replace("_", " ") for name in varying]
    parts = table.groupby(varying, sort=False)
    return {", ".join(f"{name} {value}" for name, value in zip(names, key)): part for key, part in parts}


def _setting_columns(table: pd.DataFrame) -> list[str]:
    return [name for name in ID_COLUMNS if name in table and name not in _CHOICES]


def require_columns(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise ValueError where a table lacks one of some columns, or names are none in a list."""
    if isinstance(names, str):
        raise ValueError(f"metrics {names!r}: allowed is a list, such as [{names!r}]")
    for name in names:
        require_name("column", name, table)


def last_epoch(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each policy's last epoch, in the order of the table."""
    return table[table["epoch"] == table.groupby("policy")["epoch"].transform("max")]


def n_diverged(table: pd.DataFrame) -> pd.Series:
    """Count the seeds of each policy whose final test loss is not a finite number."""
    last = last_epoch(table)
    return (~np.isfinite(last["test_loss"])).groupby(last["policy"], sort=False).sum()


def summary(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Summarise the final values of a metric over the seeds that did not diverge.

    Returns a row per policy, with the columns n, mean, sd, min, max, diverged.
    """
    require_columns(table, [metric])
    last = last_epoch(table)
    groups = last[np.isfinite(last["test_loss"])].groupby("policy", sort=False)[metric]
    rows = groups.agg(n="count", mean="mean", sd="std", min="min", max="max")
    return rows.reindex(last["policy"].unique()).assign(diverged=n_diverged(table))


def final_values(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the final values of a metric: a row per seed and a column per policy, NaN for a seed that diverged."""
    require_columns(table, [metric])
    last = last_epoch(table)
    values = last.assign(value=last[metric].where(np.isfinite(last["test_loss"])))
    return values.pivot(index="seed", columns="policy", values="value")[table["policy"].unique()]


def best_so_far(table: pd.DataFrame, metric: str) -> pd.Series:
    """Return for each row the metric at the epoch that validation picks from those until then.

    This is the epoch of the lowest validation loss, and the first of them if there are several. An epoch whose
    validation loss is not a finite number is never picked. Values that are not finite are NaN.
    """
    require_columns(table, [metric])
    rows = table.assign(row=np.arange(len(table))).sort_values("epoch", kind="stable")
    groups = [rows["policy"], rows["seed"]]
    loss = rows["val_loss"].astype(float).where(np.isfinite(rows["val_loss"]), np.inf)
    lowest_before = loss.groupby(groups).cummin().groupby(groups).shift(fill_value=np.inf)
    picked = rows["row"].where(loss < lowest_before).groupby(groups).ffill()
    values = table[metric].where(np.isfinite(table[metric])).reset_index(drop=True)
    return pd.Series(values.reindex(picked).to_numpy(), rows["row"]).sort_index().set_axis(table.index)


def at_best_validation(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return a metric at the epoch that validation picks: a row per seed and a column per policy.

    A seed that diverges after this epoch counts. A value is NaN where no validation loss is a finite number.
    """
    last = last_epoch(table.assign(value=best_so_far(table, metric)))
    return last.pivot(index="seed", columns="policy", values="value")[table["policy"].unique()]


def paired_differences(
    table: pd.DataFrame, metric: str, baseline: str, values_of: Callable[..., pd.DataFrame] = final_values
) -> pd.DataFrame:
    """Subtract the baseline's value at the same seed from that of every other policy.

    values_of: which values, such as `final_values` or `at_best_validation`.
    Returns a row per seed and a column per policy.
    """
    values = values_of(table, metric)
    require_name("baseline", baseline, values)
    return values.drop(columns=baseline).sub(values[baseline], axis=0)


def lineage(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the family tree of the neurons of one network.

    rows: the rows of one seed and policy.
    Returns a row per neuron. A parent keeps its number, and its twin becomes the new last neuron. The columns are
    founder: the first neuron that it descends from.
    parent: the neuron that it was split from; for a founder, itself.
    born: the epoch of that split; 0 for a neuron that was there from the start.
    """
    rows = rows.sort_values("epoch")
    parents_by_epoch = rows.set_index("epoch")["split_neuron"].dropna().astype(str)
    parents_by_epoch = parents_by_epoch.str.removesuffix(".0")  # as pandas reads a number among missing values
    splits = [(epoch, parent) for epoch, parents in parents_by_epoch.items() for parent in parents.split()]
    n_founders = int(rows["hidden"].iloc[-1]) - len(splits)
    tree = [{"founder": neuron, "parent": neuron, "born": 0} for neuron in range(n_founders)]
    for epoch, parent in splits:
        parent = len(tree) if parent == NO_PARENT else int(parent)
        founder = tree[parent]["founder"] if parent < len(tree) else parent
        tree.append({"founder": founder, "parent": parent, "born": int(epoch)})
    return pd.DataFrame(tree).rename_axis("neuron")


def largest_family(table: pd.DataFrame) -> pd.DataFrame:
    """Return the share of the final neurons that descend from one founder, the one with the most descendants.

    Returns a row per seed and a column per policy.
    """
    shares = {
        key: lineage(rows)["founder"].value_counts(normalize=True).max()
        for key, rows in table.groupby(["seed", "policy"], sort=False)
    }
    return pd.Series(shares).rename_axis(["seed", "policy"]).unstack()[table["policy"].unique()].sort_index()
