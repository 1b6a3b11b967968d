"""Figures of the replay of the 2021 study, which compare it with what was published and with its faults fixed."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from neuronsplit.plots import style


def compare_with_published(points: pd.DataFrame, published: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Draw the seeds of a replay as points on the published ranges, which are grey bars, with a panel per metric.

    points: rows with a policy, a seed, the `column` of the publication, and the metrics that `titles` names.
    published: (column, metric) → low and high. titles: metric → axis label.
    """
    figure, axes = style.row_of_panels(len(titles), 5.4, 3.8)
    for axis, (metric, title) in zip(axes, titles.items()):
        for x, column in enumerate(points["column"].unique()):
            low, high = published.loc[(column, metric)]
            axis.bar(x, high - low, bottom=low, width=0.7, color="0.88", label="published range" if x == 0 else None)
        _draw_columns(axis, points, metric, mean_color="black")
        axis.set_ylabel(title)
    style.add_legend(figure, axes[0])
    style.set_title(figure, f"a point per replayed seed, {_n_seeds(points)} per column; black: their mean")
    return figure


def before_and_after_fix(variants: dict[str, pd.DataFrame], metric: str, title: str) -> Figure:
    """Draw the same columns before and after each fault is fixed, with a point per seed and a bar at their mean.

    variants: title of a panel → rows as `compare_with_published` takes them. title: the label of the y axis.
    """
    figure, axes = plt.subplots(2, -(-len(variants) // 2), figsize=(11, 6.4), squeeze=False, layout="constrained")
    for axis in axes.flat[len(variants) :]:
        axis.axis("off")
    for axis, (name, points) in zip(axes.flat, variants.items()):
        _draw_columns(axis, points, metric)
        axis.set_title(name, fontsize=11, loc="left")
        axis.set_ylabel(title)
    style.set_title(figure, f"a point per seed, {_n_seeds(pd.concat(variants.values()))} per column; bar: their mean")
    return figure


def _draw_columns(axis: plt.Axes, points: pd.DataFrame, metric: str, mean_color: str | None = None) -> None:
    """Draw a column of points for each `column`, in the colour of its policy, and a bar at their mean."""
    columns = list(points["column"].unique())
    for x, column in enumerate(columns):
        part = points[points["column"] == column]
        color = style.color_of(part["policy"].iloc[0])
        axis.scatter([x] * len(part), part[metric], color=color, s=22, alpha=0.65, lw=0)
        axis.plot(x, part[metric].mean(), "_", color=mean_color or color, ms=20, mew=2.2)
    axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right", rotation_mode="anchor")


def _n_seeds(points: pd.DataFrame) -> str:
    return f"n = {points.groupby('column')['seed'].nunique().max()}"
