"""Figures of curves over epochs or training steps.

Every `table` is that of a study whose column `policy` distinguishes its experiments, as after `tables.with_labels`.
"""

import textwrap
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neuronsplit.analysis.tables import require_columns
from neuronsplit.checks import require_name
from neuronsplit.plots import style


def mean_curves(table: pd.DataFrame, metrics: list[str]) -> Figure:
    """Draw the mean of every policy over the epochs, with a panel per metric."""
    require_columns(table, metrics)
    figure, axes = style.panels(len(metrics), sharey=False)
    lines = style.line_styles(table["policy"].unique())
    for axis, metric in zip(axes, metrics):
        for policy, rows in table.groupby("policy", sort=False):
            axis.plot(rows.groupby("epoch")[metric].mean(), **lines[policy], lw=1.6, label=policy)
        _label_epochs(axis, table)
        _fit_to_metric(axis, table, metric)
    style.add_legend(figure, axes[0])
    style.set_title(figure, f"mean of {style.seeds_of(table)}{_dotted(table)}")
    return figure


def curves_per_policy(table: pd.DataFrame, metrics: list[str], baseline: str | None = None) -> Figure:
    """Draw a panel per policy and metric: seeds are thin and their mean is bold.

    baseline: the policy whose mean is dashed in all panels, if any.
    """
    _require(table, metrics, baseline)
    names = list(product(table["policy"].unique(), metrics))
    figure, axes = style.panels(len(names), sharey=len(metrics) == 1)
    for axis, (policy, metric) in zip(axes, names):
        values = table.pivot(index="epoch", columns=["policy", "seed"], values=metric)
        axis.plot(values[policy], color=style.color_of(policy), lw=0.7, alpha=0.5)
        axis.plot(values[policy].mean(axis=1), color=style.color_of(policy), lw=2)
        if baseline is not None:
            axis.plot(values[baseline].mean(axis=1), color=style.color_of(baseline), lw=1.2, ls="--")
        title = textwrap.fill(policy, 24)
        axis.set_title(title, color=style.color_of(policy), fontsize=11, weight="bold")
        _label_epochs(axis, table)
        _fit_to_metric(axis, table, metric)
        if len(metrics) == 1:
            axis.label_outer(remove_inner_ticks=False)
    lines = f"thin: {style.seeds_of(table)}; bold: their mean" if table["seed"].nunique() > 1 else "one seed"
    dashed = f"; dashed: mean of {baseline}" if baseline is not None else ""
    style.set_title(figure, f"{lines}{dashed}{_dotted(table)}")
    return figure


def difference_curves(table: pd.DataFrame, metrics: list[str], baseline: str) -> Figure:
    """Draw differences to the baseline at the same seed, as mean ± one standard error, with a panel per metric."""
    _require(table, metrics, baseline)
    figure, axes = style.panels(len(metrics), sharey=False, height=3.2)
    for axis, metric in zip(axes, metrics):
        values = table.pivot(index="epoch", columns=["policy", "seed"], values=metric)
        axis.axhline(0, color=style.color_of(baseline), lw=1.6, label=baseline)
        for policy in table["policy"].unique():
            if policy == baseline:
                continue
            difference = values[policy] - values[baseline]
            mean, error = difference.mean(axis=1), difference.sem(axis=1)
            axis.plot(mean, color=style.color_of(policy), lw=1.6, label=policy)
            axis.fill_between(mean.index, mean - error, mean + error, color=style.color_of(policy), alpha=0.15, lw=0)
        _label_epochs(axis, table)
        axis.set_ylabel(f"{style.TITLES[metric]} − that of {baseline}")
    style.add_legend(figure, axes[0])
    style.set_title(figure, f"mean of {style.seeds_of(table)}; band: ± 1 standard error{_dotted(table)}")
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
    style.add_legend(figure, axis)
    return figure


def _require(table: pd.DataFrame, metrics: list[str], baseline: str | None) -> None:
    """Raise ValueError for a metric or a baseline that the table does not have."""
    require_columns(table, metrics)
    if baseline is not None:
        require_name("baseline", baseline, table["policy"].unique())


def _label_epochs(axis: plt.Axes, table: pd.DataFrame) -> None:
    """Label the epochs and mark the last split, if there is one."""
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    if _dotted(table):
        axis.axvline(table.dropna(subset="split_neuron")["epoch"].max(), color="0.5", lw=1, ls=":")


def _dotted(table: pd.DataFrame) -> str:
    """Return what the title says of the line at the last split; empty if there is none."""
    return "; dotted: the last split" if "split_neuron" in table and table["split_neuron"].notna().any() else ""


def _fit_to_metric(axis: plt.Axes, table: pd.DataFrame, metric: str) -> None:
    """Label the y axis with the metric, and fit it to the metric.

    The first tenth of the epochs is left out where the rest would be flattened to less than half of the height.
    """
    axis.set_ylabel(style.TITLES[metric])
    late = table.loc[table["epoch"] > table["epoch"].max() / 10, metric]
    is_flat = _range(late) < _range(table[metric]) / 2
    style.fit_y(axis, late if is_flat else table[metric])


def _range(values: pd.Series) -> float:
    finite = values[np.isfinite(values)]
    return finite.max() - finite.min()
