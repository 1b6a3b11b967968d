"""Figures of networks that grow in mid-training: their loss against its cost, and how far their twins are apart.

Every `table` has a row per arm, seed and evaluation. The column `point` counts the evaluations.
"""

from collections.abc import Mapping
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from neuronsplit.plots import style

_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
_FIRST = 0.15  # the share of the points that the y axis is not fitted to


def loss_against_cost(tables: Mapping[str, pd.DataFrame], growth: Mapping[str, float]) -> Figure:
    """Draw the mean validation loss of every arm against its multiply-adds, with the arm's name at the line's end.

    tables: title → table, with a panel for each. A table need not have all arms.
    growth: after which share of the multiply-adds each arm grows, in the order of the colours. Arms that do not grow
        have 0 or 1.
    A dot marks the growth, where the arm's own line begins.
    """
    size = (6.8, 3.6 * len(tables) + 1)
    figure, axes = plt.subplots(
        len(tables), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    whole = pd.concat(tables.values())
    whole = whole[whole["arm"].isin(list(growth))]
    scale, unit = _unit(whole["multiply_adds"].max())
    late = whole["val_loss"][whole["point"] > _FIRST * whole["point"].max()]
    style.fit_y(axes[0, 0], list(late), margin=0.03)
    for axis, (title, table) in zip(axes[:, 0], tables.items()):
        right, ends = _draw_losses(axis, table, growth, scale)
        axis.set(ylabel=style.TITLES["val_loss"], xlim=(0, right))
        axis.set_title(title, loc="left", fontsize=11)
        _label_ends(axis, right, ends)
    axes[-1, 0].set_xlabel(f"multiply-adds of training ({unit})")
    style.set_title(figure, f"mean of {_seeds(whole)}; dots: the small network grows")
    return figure


def _draw_losses(
    axis: plt.Axes, table: pd.DataFrame, growth: Mapping[str, float], scale: float
) -> tuple[float, dict[str, float]]:
    """Draw a line for every arm of a table; returns the largest multiply-adds, and the last loss of each arm."""
    colors = ["0.5", "black", *sns.color_palette("colorblind", max(len(growth) - 2, 0))]
    ends, right = {}, 0.0
    for (arm, share), color, dashes in zip(growth.items(), colors, cycle(_DASHES)):
        mean = table[table["arm"] == arm].groupby("point")[["multiply_adds", "val_loss"]].mean()
        if mean.empty:
            continue
        grows = 0 < share < 1
        own = mean[mean.index >= share * mean.index.max()] if grows else mean
        x = own["multiply_adds"] / scale
        axis.plot(x, own["val_loss"], color=color, ls=dashes, lw=2.2, label=arm)
        if grows:
            axis.plot(x.iloc[0], own["val_loss"].iloc[0], "o", color=color, ms=9, mec="white", zorder=3)
        ends[arm], right = own["val_loss"].iloc[-1], max(right, x.iloc[-1])
    return right, ends


def twin_distances(table: pd.DataFrame, arms: list[str], columns: Mapping[str, str]) -> Figure:
    """Draw how far twins are apart after the growth, with a line per arm and a panel per column of the table.

    arms: in the order of the legend. columns: column → the title of its panel.
    The part of an arm's name before a comma gives colour and marker, and what follows it the dashes.
    """
    size = (6.8, 2.3 * len(columns) + 0.6)
    figure, panels = plt.subplots(len(columns), figsize=size, sharex=True, squeeze=False, layout="constrained")
    panels = panels[:, 0]
    firsts, rests = (list(dict.fromkeys(arm.partition(",")[n] for arm in arms)) for n in (0, 2))
    for panel, (column, title) in zip(panels, columns.items()):
        for arm in arms:
            first, _, rest = arm.partition(",")
            rows = table[table["arm"] == arm].dropna(subset=column)
            mean = rows.groupby("point")[["multiply_adds", column]].mean()
            panel.plot(
                100 * mean["multiply_adds"] / table["multiply_adds"].max(), mean[column], lw=1.8, label=arm,
                color=style.color_of(first), marker="sD^ov"[firsts.index(first) % 5], markevery=5, ms=5,
                ls=("-", "--", ":", "-.")[rests.index(rest) % 4], clip_on=False,
            )  # fmt: skip
        panel.set_title(title, loc="left", fontsize=11)
        panel.set_ylim(0, None)
    figure.supylabel("distance between twins", fontsize=11)
    panels[-1].set_xlabel("share of the multiply-adds (%)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    text = f"mean of {_seeds(table)}; 0: the twins are equal; 1.41: they have nothing in common"
    style.set_title(figure, text)
    return figure


def _seeds(table: pd.DataFrame) -> str:
    return style.count_seeds(table.groupby("arm")["seed"].nunique())


def _unit(largest: float) -> tuple[float, str]:
    """Return a power of 1000 by which the largest number is at least 1, and its name."""
    power = int(np.log10(largest)) // 3
    names = {0: "1", 1: "thousands", 2: "millions", 3: "billions", 4: "trillions"}
    return 1000.0 ** min(power, 4), names[min(power, 4)]


def _label_ends(axis: plt.Axes, x: float, ends: Mapping[str, float]) -> None:
    """Write a name at the end of each line, moved so that no two of them overlap."""
    low, high = axis.get_ylim()
    room = 0.06 * (high - low)
    last = low - room
    for arm, end in sorted(ends.items(), key=lambda one: one[1]):
        last = max(end, last + room)
        color = next(line.get_color() for line in axis.lines if line.get_label() == arm)
        axis.annotate(
            f"{arm}  {end:.3f}", (x, end), xytext=(1.05, (last - low) / (high - low)), va="center", fontsize=11,
            color=color, textcoords="axes fraction", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.8, "shrinkA": 0, "shrinkB": 2, "relpos": (0, 0.5)},
        )  # fmt: skip
