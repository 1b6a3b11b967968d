"""Figures of curves over epochs or training steps.

Every `table` is that of a study whose column `policy` distinguishes its experiments, as after `tables.with_labels`.
"""

from collections.abc import Iterable
from itertools import cycle, product

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from neuronsplit.plots.style import TITLES, add_legend, color_of, fit_y, mean_of_seeds, panels, set_title

_DOTTED = "dotted: the last split"


def mean_curves(table: pd.DataFrame, metrics: list[str]) -> Figure:
    """Draw the mean of every policy over the epochs, with a panel per metric."""
    figure, axes = panels(len(metrics), sharey=False)
    for axis, metric in zip(axes, metrics):
        for policy, rows in table.groupby("policy", sort=False):
            axis.plot(rows.groupby("epoch")[metric].mean(), color=color_of(policy), lw=1.6, label=policy)
        _label_epochs(axis, table)
        _fit_to_metric(axis, table, metric)
    add_legend(figure, axes[0])
    set_title(figure, f"{mean_of_seeds(table)}; {_DOTTED}")
    return figure


def curves_per_policy(table: pd.DataFrame, metrics: list[str]) -> Figure:
    """Draw a panel per policy and metric: seeds are thin, their mean is bold, and the first policy's is dashed."""
    first, *others = table["policy"].unique()
    names = list(product([first, *others], metrics))
    figure, axes = panels(len(names), sharey=len(metrics) == 1)
    for axis, (policy, metric) in zip(axes, names):
        values = table.pivot(index="epoch", columns=["policy", "seed"], values=metric)
        axis.plot(values[policy], color=color_of(policy), lw=0.7, alpha=0.5)
        axis.plot(values[policy].mean(axis=1), color=color_of(policy), lw=2)
        axis.plot(values[first].mean(axis=1), color=color_of(first), lw=1.2, ls="--")
        axis.set_title(policy, color=color_of(policy), fontsize=11, weight="bold")
        _label_epochs(axis, table)
        _fit_to_metric(axis, table, metric)
        if len(metrics) == 1:
            axis.label_outer(remove_inner_ticks=False)
    n_seeds = table["seed"].nunique()
    lines = f"thin: n = {n_seeds} seeds; bold: their mean" if n_seeds > 1 else "one seed"
    dashed = f"; dashed: mean of {first}" if others else ""
    set_title(figure, f"{lines}{dashed}; {_DOTTED}")
    return figure


def difference_curves(table: pd.DataFrame, metrics: list[str], baseline: str) -> Figure:
    """Draw differences to the baseline at the same seed, as mean ± one standard error, with a panel per metric."""
    figure, axes = panels(len(metrics), sharey=False, height=3.2)
    for axis, metric in zip(axes, metrics):
        values = table.pivot(index="epoch", columns=["policy", "seed"], values=metric)
        axis.axhline(0, color=color_of(baseline), lw=1.6, label=baseline)
        for policy in table["policy"].unique():
            if policy == baseline:
                continue
            difference = values[policy] - values[baseline]
            mean, error = difference.mean(axis=1), difference.sem(axis=1)
            axis.plot(mean, color=color_of(policy), lw=1.6, label=policy)
            axis.fill_between(mean.index, mean - error, mean + error, color=color_of(policy), alpha=0.15, lw=0)
        _label_epochs(axis, table)
        axis.set_ylabel(f"{TITLES[metric]} − that of {baseline}")
    add_legend(figure, axes[0])
    set_title(figure, f"{mean_of_seeds(table)}; band: ± 1 standard error; {_DOTTED}")
    return figure


def curves(tables: dict[str, pd.DataFrame], metric: str, levels: dict[str, float]) -> Figure:
    """Draw the mean of one metric over the epochs, with a line per table, and published values as broken lines.

    tables: label → table. levels: label → value of the metric.
    """
    figure, axis = plt.subplots(figsize=(8.2, 3.6), layout="constrained")
    for (label, table), color in zip(tables.items(), sns.color_palette("colorblind", len(tables))):
        axis.plot(table.groupby("epoch")[metric].mean(), color=color, lw=2, label=label)
    for (label, level), dashes in zip(levels.items(), cycle(("--", ":", "-."))):
        axis.axhline(level, color="0.4", lw=1.2, ls=dashes, label=label)
    axis.set_xlabel("epoch")
    _fit_to_metric(axis, pd.concat(tables.values()), metric, levels.values())
    add_legend(figure, axis)
    counts = sorted({table["seed"].nunique() for table in tables.values()})
    set_title(figure, f"mean of n = {' or '.join(map(str, counts))} seeds")
    return figure


def loss_around_split(losses: pd.DataFrame, step: int, window: int) -> Figure:
    """Draw training losses from `window` steps before a split to `window` steps after it.

    losses: a row per step and a column per network. The first column is the baseline, which is drawn wide and grey.
    step: the step before which the split was made.
    """
    figure, axis = plt.subplots(figsize=(8.2, 3.6), layout="constrained")
    near = losses.iloc[step - window : step + window]
    baseline, *others = near
    axis.plot(near.index - step, near[baseline], color="0.6", lw=5, label=baseline)
    for name, color in zip(others, sns.color_palette("colorblind", len(others))):
        axis.plot(near.index - step, near[name], color=color, lw=1.6, label=name)
    axis.axvline(0, color="0.3", lw=1, ls=":")
    axis.set(xlabel="steps after the split (dotted)", ylabel="loss of the mini-batch", yscale="log")
    add_legend(figure, axis)
    return figure


def _label_epochs(axis: plt.Axes, table: pd.DataFrame) -> None:
    """Label the epochs and mark the last split."""
    axis.set_xlabel("epoch")
    epochs = table.dropna(subset="split_neuron")["epoch"]
    if len(epochs):
        axis.axvline(epochs.max(), color="0.5", lw=1, ls=":")


def _fit_to_metric(axis: plt.Axes, table: pd.DataFrame, metric: str, levels: Iterable[float] = ()) -> None:
    """Label the y axis with the metric, and fit it to the metric and to levels.

    The first tenth of the epochs is left out, because it would flatten the rest.
    """
    axis.set_ylabel(TITLES[metric])
    fit_y(axis, [*table.loc[table["epoch"] > table["epoch"].max() / 10, metric], *levels])
