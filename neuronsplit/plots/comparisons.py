"""Figures that compare policies: final values, paired differences and cost.

Every `table` is that of a study whose column `policy` distinguishes its experiments, as after `tables.with_labels`.
"""

import textwrap
from itertools import cycle

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from neuronsplit.analysis import cost, stats, tables
from neuronsplit.names import CONTROLS
from neuronsplit.plots import style

INTERVAL = "its 95 % interval (Student's t)"


def final_values(table: pd.DataFrame, metrics: list[str]) -> Figure:
    """Draw final values, with a panel per metric and a column per policy: a point per seed, and a bar at their mean."""
    tables.require_columns(table, metrics)
    last = tables.last_epoch(table)
    names = last["policy"].unique()
    height = 3.8 + 0.05 * max([0, *(len(name) - 12 for name in names)])  # for names, which are written aslant
    figure, axes = style.row_of_panels(len(metrics), max(5.4, 0.34 * len(names)), height)
    for axis, metric in zip(axes, metrics):
        policies = last.groupby("policy", sort=False)[metric]
        for x, (policy, values) in enumerate(policies):
            axis.scatter([x] * len(values), values, color=style.color_of(policy), s=28, alpha=0.6, lw=0)
            axis.plot(x, values.mean(), "_", color=style.color_of(policy), ms=24, mew=2.5)
        axis.set_xticks(range(len(policies)), names, rotation=35, ha="right", rotation_mode="anchor")
        axis.set_ylabel(f"final {style.TITLES[metric]}")
    epochs = sorted(last["epoch"].unique())
    after = f"after epoch {epochs[0]}" if len(epochs) == 1 else "each after its last epoch"
    style.set_title(figure, f"{after}; a point per seed; bar: mean of {style.seeds_of(table)}")
    return figure


def paired_differences(panels: dict[str, pd.DataFrame], title: str = "") -> Figure:
    """Draw paired differences at every seed, with their mean and its 95 % interval (Student's t).

    panels: axis label → differences, as `tables.paired_differences` returns them. Each gets its own panel.
    title: the text above all panels, before the explanation of the marks.
    """
    names = list(dict.fromkeys(name for differences in panels.values() for name in differences))
    figure, axes = style.row_of_panels(len(panels), 4.6, 0.36 * len(names) + 1.2, sharey=True)
    figure.set_figwidth(figure.get_figwidth() + 0.08 * max([0, *(len(name) - 12 for name in names)]))
    for axis, (label, differences) in zip(axes, panels.items()):
        axis.axvline(0, color="0.6", lw=1)
        for policy, interval in stats.intervals(differences).iterrows():
            y, color = names.index(policy), style.color_of(policy)
            axis.scatter(differences[policy], [y + 0.27] * len(differences), color=color, s=14, alpha=0.45, lw=0)
            axis.plot([interval["low"], interval["high"]], [y, y], color=color, lw=3, solid_capstyle="butt")
            axis.plot(interval["mean"], y, "o", color=color, ms=7, mec="white")
        axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
        axis.set_xlabel(textwrap.fill(label, 50))
        axis.xaxis.set_major_locator(MaxNLocator(5))
    counts = [n for differences in panels.values() for n in differences.count()]
    text = f"mean of {style.count_seeds(counts)} and {INTERVAL}; below it a point per seed"
    style.set_title(figure, f"{title}: {text}" if title else text)
    return figure


def draw_intervals(axis: plt.Axes, intervals: pd.DataFrame, color: str = "black") -> None:
    """Draw means and intervals, as `stats.intervals` returns them, with one per row from the top and a line at 0."""
    errors = [intervals["mean"] - intervals["low"], intervals["high"] - intervals["mean"]]
    axis.errorbar(intervals["mean"], range(len(intervals)), xerr=errors, fmt="o", color=color)
    axis.axvline(0, color="0.7", lw=1)
    axis.set(yticks=range(len(intervals)), yticklabels=intervals.index, ylim=(len(intervals) - 0.4, -0.6))


def neuron_gains(gains: pd.DataFrame) -> Figure:
    """Draw what each split gained under one shuffle against the other, with a panel per setting and a colour per seed.

    gains: what `oracle.neuron_gains` returns, with a column `setting`.
    """
    settings = gains["setting"].unique()
    figure, axes = style.panels(len(settings), sharey=False, height=3.2)
    colors = dict(zip(sorted(gains["seed"].unique()), sns.color_palette("colorblind", gains["seed"].nunique())))
    for axis, setting in zip(axes, settings):
        rows = gains[gains["setting"] == setting]
        x, y = (1000 * rows[f"gain_shuffle_{i}"] for i in (0, 1))
        axis.axhline(0, color="0.8", lw=1)
        axis.axvline(0, color="0.8", lw=1)
        axis.axline((0, 0), slope=1, color="0.8", lw=1)
        axis.scatter(x, y, color=rows["seed"].map(colors).tolist(), s=22, alpha=0.75, lw=0)
        axis.set_title(textwrap.fill(setting, 34) if len(settings) > 1 else "", fontsize=10)
        axis.set(xlabel="gain under one shuffle", ylabel="under the other")
    text = "a point per neuron that was split, a colour per seed; gain: thousandths of loss below the mean split"
    style.set_title(figure, f"{text}; {style.count_seeds(gains.groupby('setting')['seed'].nunique())}")
    return figure


def final_vs_cost(table: pd.DataFrame, metric: str, baseline: str, cost_in: str = "neuron_epochs") -> Figure:
    """Draw final values against the cost, as means with their 95 % intervals (Student's t).

    table: with labels or without. baseline: the label of the experiment whose cost is 1.
    Each growth has a colour and each schedule a marker. If there is only one growth, each label has a colour. Controls
    are lines over the course of training. A point on the better side of the baseline's line is better than a control of
    the same cost. Points are drawn slightly to the left or right of their cost, so that they do not hide one another.
    """
    tables.require_columns(table, [metric])
    table = tables.with_labels(table) if table.duplicated(["policy", "seed", "epoch"]).any() else table
    table = cost.with_cost(table, cost_in)
    table["cost"] /= tables.last_epoch(table[table["policy"] == baseline])["cost"].mean()
    controls = table["policy"].str.split(" · ").str[0].isin(CONTROLS)
    by_growth = "growth" in table and table.loc[~controls, "growth"].nunique() > 1
    figure, axis = plt.subplots(figsize=(9.5, 4.8), layout="constrained")
    for label, rows in table[controls].groupby("policy", sort=False):
        mean = rows.groupby("epoch")[["cost", metric]].mean()
        axis.plot(mean["cost"], mean[metric], color=style.color_of(label), lw=2, label=label, zorder=1)
    baseline_means = table[table["policy"] == baseline].groupby("epoch")[metric].mean()
    shown = list(baseline_means.iloc[len(baseline_means) // 2 :])  # values that must be within the axis
    for i, (label, rows) in enumerate(table[~controls].groupby("policy", sort=False)):
        first = rows.iloc[0]
        color, marker = (
            style.color_of(first["growth"] if by_growth else label),
            style.marker_of(first.get("schedule", "")),
        )
        shown += _draw_final(axis, rows, metric, color, marker, label, offset_points=5 * (i % 5 - 2))
    xlabel = f"{style.TITLES[cost_in]} of training, as a share of those of {baseline}"
    axis.set(xlabel=xlabel, ylabel=style.TITLES[metric], xlim=(0.1, 1.03 * max(1, table["cost"].max())))
    style.fit_y(axis, shown, margin=0.1)
    style.add_legend(figure, axis)
    lines = "; lines: controls as they train" if controls.any() else ""
    beside = "drawn slightly left or right of its cost"
    style.set_title(figure, f"points: final mean of {style.seeds_of(table)} and {INTERVAL}, {beside}{lines}")
    return figure


def _draw_final(axis, rows, metric, color, marker, label, offset_points) -> tuple[float, float, float]:
    """Draw the mean and interval of final values, offset_points right of their cost; return mean, low and high."""
    x = tables.last_epoch(rows)["cost"].mean()
    _, mean, low, high = stats.intervals(tables.final_values(rows, metric)).iloc[0]
    transform = axis.transData + ScaledTranslation(offset_points / 72, 0, axis.figure.dpi_scale_trans)
    look = {"fmt": marker, "color": color, "ms": 8, "mec": "white", "mew": 0.8, "label": label, "transform": transform}
    axis.errorbar(x, mean, [[mean - low], [high - mean]], **look)
    return mean, low, high


def difference_at_equal_cost(
    settings: dict[str, pd.DataFrame], metric: str, baseline: str, cost_in: str = "neuron_epochs"
) -> Figure:
    """Draw differences to a baseline at equal cost, after every epoch: mean and 95 % interval (Student's t).

    settings: title → table. Each gets its own panel. Lines differ in colour and, for print, in dashes.
    """
    policies = dict.fromkeys(name for table in settings.values() for name in table["policy"] if name != baseline)
    dashes = dict(zip(policies, cycle(("-", "--", "-.", ":"))))
    figure, axes = style.row_of_panels(len(settings), 4.6, 3.6, sharex=True)
    for axis, (title, table) in zip(axes, settings.items()):
        rows = cost.difference_at_equal_cost(table, metric, baseline, cost_in).dropna(subset="difference")
        axis.axhline(0, color=style.color_of(baseline), lw=1.6, label=baseline)
        for policy, part in rows.groupby("policy", sort=False):
            band = stats.intervals(part.pivot(index="seed", columns="epoch", values="difference"))
            x, color = part.groupby("epoch")["cost"].mean(), style.color_of(policy)
            axis.plot(x, band["mean"], color=color, ls=dashes[policy], lw=1.8, label=policy)
            axis.fill_between(x, band["low"], band["high"], color=color, alpha=0.15, lw=0)
        late = rows.loc[rows["epoch"] > rows["epoch"].max() / 10, "difference"]
        xlabel = f"{style.TITLES[cost_in]}, as a share of those of {baseline}"
        axis.set(title=title, xlabel=xlabel, ylim=late.quantile([0.002, 0.998]).tolist())
    axes[0].set_ylabel(f"{style.TITLES[metric]}\n− that of {baseline} at equal cost")
    style.add_legend(figure, *axes)
    style.set_title(
        figure, f"mean of {style.count_seeds([t['seed'].nunique() for t in settings.values()])} and {INTERVAL}"
    )
    return figure
