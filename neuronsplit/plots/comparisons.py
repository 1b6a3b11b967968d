"""Figures that compare policies: final values, paired differences and cost.

Every `table` is that of a study whose column `policy` distinguishes its experiments, as after `tables.with_labels`.
"""

import textwrap

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from neuronsplit.analysis import cost, stats, tables
from neuronsplit.names import CONTROLS
from neuronsplit.plots.style import (
    TITLES,
    add_legend,
    color_of,
    fit_y,
    marker_of,
    mean_of_seeds,
    row_of_panels,
    set_title,
)

INTERVAL = "its 95 % interval (Student's t)"


def final_values(table: pd.DataFrame, metrics: list[str]) -> Figure:
    """Draw final values, with a panel per metric and a column per policy: a point per seed, and a bar at their mean."""
    last = tables.last_epoch(table)
    figure, axes = row_of_panels(len(metrics), 5.4, 3.8)
    for axis, metric in zip(axes, metrics):
        policies = last.groupby("policy", sort=False)[metric]
        for x, (policy, values) in enumerate(policies):
            axis.scatter([x] * len(values), values, color=color_of(policy), s=28, alpha=0.6, lw=0)
            axis.plot(x, values.mean(), "_", color=color_of(policy), ms=24, mew=2.5)
        axis.set_xticks(range(len(policies)), last["policy"].unique(), rotation=35, ha="right", rotation_mode="anchor")
        axis.set_ylabel(f"final {TITLES[metric]}")
    set_title(figure, f"after epoch {table['epoch'].max()}; a point per seed; bar: {mean_of_seeds(table)}")
    return figure


def paired_differences(panels: dict[str, pd.DataFrame], title: str = "") -> Figure:
    """Draw paired differences at every seed, with their mean and its 95 % interval (Student's t).

    panels: axis label → differences, as `tables.paired_differences` returns them. Each gets its own panel.
    title: the text above all panels, before the explanation of the marks.
    """
    names = list(dict.fromkeys(name for differences in panels.values() for name in differences))
    figure, axes = row_of_panels(len(panels), 4.6, 0.36 * len(names) + 1.2, sharey=True)
    for axis, (label, differences) in zip(axes, panels.items()):
        axis.axvline(0, color="0.6", lw=1)
        for policy, interval in stats.intervals(differences).iterrows():
            y, color = names.index(policy), color_of(policy)
            axis.scatter(differences[policy], [y + 0.27] * len(differences), color=color, s=14, alpha=0.45, lw=0)
            axis.plot([interval["low"], interval["high"]], [y, y], color=color, lw=3, solid_capstyle="butt")
            axis.plot(interval["mean"], y, "o", color=color, ms=7, mec="white")
        axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
        axis.set_xlabel(textwrap.fill(label, 50))
        axis.xaxis.set_major_locator(MaxNLocator(5))
    count = max(len(differences) for differences in panels.values())
    text = f"mean of n = {count} seeds and {INTERVAL}; below it a point per seed"
    set_title(figure, f"{title}: {text}" if title else text)
    return figure


def draw_intervals(axis: plt.Axes, intervals: pd.DataFrame, color: str = "black") -> None:
    """Draw means and intervals, as `stats.intervals` returns them, with one per row from the top and a line at 0."""
    errors = [intervals["mean"] - intervals["low"], intervals["high"] - intervals["mean"]]
    axis.errorbar(intervals["mean"], range(len(intervals)), xerr=errors, fmt="o", color=color)
    axis.axvline(0, color="0.7", lw=1)
    axis.set(yticks=range(len(intervals)), yticklabels=intervals.index, ylim=(len(intervals) - 0.4, -0.6))


def final_vs_cost(table: pd.DataFrame, metric: str, baseline: str) -> Figure:
    """Draw final values against the cost, as means with their 95 % intervals (Student's t).

    table: a study's table without labels.
    Each growth has a colour and each schedule a marker. If there is only one growth, each policy has a colour. Controls
    are lines over the course of training. A point on the better side of the baseline's line is better than a control of
    the same cost. Points are drawn slightly to the left or right of their cost, so that they do not hide one another.
    """
    labelled = tables.with_labels(table)
    table = table.assign(label=labelled["policy"], cost=cost.cumulative_cost(labelled))
    table["cost"] /= table.loc[table["policy"] == baseline, "cost"].max()
    controls = table["policy"].isin(CONTROLS)
    colored_by = "growth" if table.loc[~controls, "growth"].nunique() > 1 else "policy"
    figure, axis = plt.subplots(figsize=(9.5, 4.8), layout="constrained")
    for label, rows in table[controls].groupby("label", sort=False):
        mean = rows.groupby("epoch")[["cost", metric]].mean()
        axis.plot(mean["cost"], mean[metric], color=color_of(label), lw=2, label=label, zorder=1)
    baseline_means = table[table["policy"] == baseline].groupby("epoch")[metric].mean()
    shown = list(baseline_means.iloc[len(baseline_means) // 2 :])  # values that must be within the axis
    for i, (label, rows) in enumerate(table[~controls].groupby("label", sort=False)):
        color, marker = color_of(rows[colored_by].iloc[0]), marker_of(rows["schedule"].iloc[0])
        shown += _draw_final(axis, rows, metric, color, marker, label, offset_points=5 * (i % 5 - 2))
    axis.set(xlabel=f"multiply-adds of training, as a share of those of {baseline}", ylabel=TITLES[metric])
    axis.set_xlim(0.1, 1.03)
    fit_y(axis, shown, margin=0.1)
    add_legend(figure, axis)
    set_title(figure, f"points: final {mean_of_seeds(table)} and {INTERVAL}; lines: controls as they train")
    return figure


def _draw_final(axis, rows, metric, color, marker, label, offset_points) -> tuple[float, float, float]:
    """Draw the mean and interval of final values, offset_points right of their cost; return mean, low and high."""
    x = tables.last_epoch(rows)["cost"].mean()
    _, mean, low, high = stats.intervals(tables.final_values(rows, metric)).iloc[0]
    transform = axis.transData + ScaledTranslation(offset_points / 72, 0, axis.figure.dpi_scale_trans)
    style = {"fmt": marker, "color": color, "ms": 8, "mec": "white", "mew": 0.8, "label": label, "transform": transform}
    axis.errorbar(x, mean, [[mean - low], [high - mean]], **style)
    return mean, low, high


def difference_at_equal_cost(settings: dict[str, pd.DataFrame], metric: str, baseline: str) -> Figure:
    """Draw differences to a baseline at equal cost, after every epoch: mean and 95 % interval (Student's t).

    settings: title → table. Each gets its own panel.
    """
    figure, axes = row_of_panels(len(settings), 4.6, 3.6, sharex=True)
    for axis, (title, table) in zip(axes, settings.items()):
        rows = cost.difference_at_equal_cost(table, metric, baseline).dropna(subset="difference")
        axis.axhline(0, color=color_of(baseline), lw=1.6, label=baseline)
        for policy, part in rows.groupby("policy", sort=False):
            band = stats.intervals(part.pivot(index="seed", columns="epoch", values="difference"))
            x, color = part.groupby("epoch")["cost"].mean(), color_of(policy)
            axis.plot(x, band["mean"], color=color, lw=1.8, label=policy)
            axis.fill_between(x, band["low"], band["high"], color=color, alpha=0.15, lw=0)
        late = rows.loc[rows["epoch"] > rows["epoch"].max() / 10, "difference"]
        xlabel = f"multiply-adds, as a share of those of {baseline}"
        axis.set(title=title, xlabel=xlabel, ylim=late.quantile([0.002, 0.998]).tolist())
    axes[0].set_ylabel(f"{TITLES[metric]}\n− that of {baseline} at equal cost")
    add_legend(figure, *axes)
    set_title(figure, f"mean of n = {max(t['seed'].nunique() for t in settings.values())} seeds and {INTERVAL}")
    return figure
