"""Figures of tested families of comparisons, as `analysis.design.tests` returns them.

An arm whose tuning chose other settings than those of its baseline is drawn hollow.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from neuronsplit.names import NO_SPLIT, STAY_NARROW
from neuronsplit.plots import style

COLORS = {"better": "#1b7837", "worse": "#b2182b"}  # of verdicts
NOT_ESTABLISHED = "0.6"  # a light grey, so that verdicts are dark in print too
INTERVAL = "its 95 % interval (Student's t)"
ESTABLISHED = "green: better, red: worse, established by max-T"


def family(panels: dict[str, pd.DataFrame], metric: str) -> Figure:
    """Draw the mean differences of arms to their baselines and the 95 % intervals, with a panel per data set.

    panels: data set → the tests of one family. The band is where a true difference would be missed 1 time in 5 or more,
    for the arm with the median standard deviation.
    """
    names = list(dict.fromkeys(name for tests in panels.values() for name in tests.index))
    figure, axes = style.row_of_panels(len(panels), 3.4, 0.3 * len(names) + 1.3, sharey=True)
    figure.set_figwidth(figure.get_figwidth() + 0.08 * max(0, max(map(len, names)) - 12))
    for axis, (title, tests) in zip(axes, panels.items()):
        missed = tests["minimum_detectable_effect"].median()
        axis.axvspan(-missed, missed, color="0.92", lw=0, zorder=0)
        axis.axvline(0, color="0.6", lw=1)
        for name, row in tests.iterrows():
            y, look = names.index(name), _look(row)
            axis.plot([row["low"], row["high"]], [y, y], color=look["color"], lw=3, solid_capstyle="butt")
            axis.plot(row["mean"], y, "o", ms=7, **look)
        axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6), title=title)
        axis.locator_params(axis="x", nbins=4)
        axis.set_xlabel(_difference(metric))
    text = f"mean of {_seeds(panels)} and {INTERVAL}; {ESTABLISHED}"
    style.set_title(figure, f"{text}; band: would be missed 1 time in 5 or more{_hollow(panels)}")
    return figure


def against_cost(panels: dict[str, pd.DataFrame], metric: str, named: Sequence[str]) -> Figure:
    """Draw the mean differences of arms to the final width from the start against what they cost, a panel per data set.

    panels: data set → what `analysis.design.against_control` returns.
    named: the arms that are drawn with their interval and a name, as are the controls. The others are grey points.
    """
    figure, axes = style.row_of_panels(len(panels), 3.7, 3.8)
    for axis, (title, arms) in zip(axes, panels.items()):
        axis.axhline(0, color="0.6", lw=1)
        controls = [name for name in arms.index if name == STAY_NARROW or name.startswith(f"{NO_SPLIT} · ")]
        colors = {name: style.color_of(name) for name in named} | dict.fromkeys(controls, style.color_of(NO_SPLIT))
        others = arms[~arms.index.isin(colors) & ~arms.index.str.startswith(NO_SPLIT)]
        axis.plot(others["cost"], others["mean"], "o", color="0.75", ms=4, zorder=1)
        gap, text_y = 0.06 * arms["high"].max(), np.inf  # so that names do not overlap
        shown = arms[arms.index.isin(colors)].sort_values("mean", ascending=False)
        for name, row in shown.iterrows():
            axis.plot([row["cost"]] * 2, [row["low"], row["high"]], color=colors[name], lw=2.5, solid_capstyle="butt")
            axis.plot(row["cost"], row["mean"], "o", color=colors[name], ms=7, mec="white")
            side, x = ("right", -7) if 0.5 < row["cost"] < 0.9 else ("left", 7)
            text_y = min(row["mean"], text_y - gap) if side == "right" else row["mean"]
            y = -9 if name.startswith(NO_SPLIT) else 0  # not on the line at 0
            look = {"textcoords": "offset points", "ha": side, "va": "center", "fontsize": 9, "color": colors[name]}
            axis.annotate(name, (row["cost"], text_y), (x, y), **look)
        axis.set(title=title, xlim=(0, 1.35), xlabel="multiply-adds, share of the control's")
        axis.margins(y=0.1)
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axis.xaxis.set_major_formatter("{x:.0%}")
    axes[0].set_ylabel(f"{style.TITLES[metric]} − that of the control")
    seeds = style.count_seeds([n for arms in panels.values() for n in arms["n"]])
    text = f"mean of {seeds} and its 95 % interval (Student's t); grey: other ways to grow; the line at 0: {NO_SPLIT}"
    style.set_title(figure, text)
    return figure


def against(panels: dict[str, pd.DataFrame], x: str, xlabel: str, metric: str) -> Figure:
    """Draw the mean differences of arms, with their intervals, against a property of the arms.

    panels: data set → the tests of one family, with the column x. Arms have their names beside them, where there is
        room: those that are established first, then from right to left.
    """
    figure, axes = style.row_of_panels(len(panels), 4.6, 4.2)
    for axis, (title, tests) in zip(axes, panels.items()):
        tests = tests.dropna(subset=x).sort_values(x, ascending=False)
        tests = tests.loc[tests["verdict"].isin(COLORS).sort_values(ascending=False, kind="stable").index]
        axis.axhline(0, color="0.6", lw=1)
        for _, row in tests.iterrows():
            axis.plot([row[x]] * 2, [row["low"], row["high"]], color="0.8", lw=1, zorder=1)
            axis.plot(row[x], row["mean"], "o", ms=7, **_look(row))
        axis.set(title=title, xlabel=xlabel)
        axis.margins(x=0.1)
        _write_names(axis, tests[x].to_numpy(float), tests["mean"].to_numpy(float), tests.index)
    axes[0].set_ylabel(_difference(metric))
    style.set_title(
        figure, f"mean of {_seeds(panels)} and {INTERVAL}; {ESTABLISHED}{_hollow(panels)}; names where there is room"
    )
    return figure


def by_group(panels: dict[str, pd.DataFrame], group: str, metric: str) -> Figure:
    """Draw the mean difference of every arm in the row of its group, with the name of each family in its colour.

    panels: data set → tests, with the column `group`. Groups are in the order of their median difference.
    """
    n_rows = max(tests[group].nunique() for tests in panels.values())
    figure, axes = style.row_of_panels(len(panels), 5.2, 0.5 * n_rows + 1.3)
    for axis, (title, tests) in zip(axes, panels.items()):
        groups = tests.groupby(group)["mean"].median().sort_values().index
        axis.axvline(0, color="0.6", lw=1)
        for y, name in enumerate(groups):
            rows = tests[tests[group] == name].sort_values("mean")
            axis.axhline(y, color="0.92", lw=1, zorder=0)
            for dodge, (_, row) in zip(np.resize([0, -0.17, 0.17], len(rows)), rows.iterrows()):
                look = {"color": COLORS.get(row["verdict"], NOT_ESTABLISHED), "mec": "white"}
                axis.plot(row["mean"], y + dodge, "o", ms=7, **look)
        labels = [f"{name} ({(tests[group] == name).sum()})" for name in groups]
        axis.set(yticks=range(len(groups)), yticklabels=labels, ylim=(len(groups) - 0.4, -0.6), title=title)
        axis.locator_params(axis="x", nbins=4)
        axis.set_xlabel(_difference(metric))
    style.set_title(figure, f"a point per arm: mean of {_seeds(panels)}; (n): number of arms; {ESTABLISHED}")
    return figure


def _look(row: pd.Series) -> dict:
    """Return the colours of an arm's point, which is hollow if the arm has other settings than its baseline."""
    color = COLORS.get(row["verdict"], NOT_ESTABLISHED)
    hollow = not row.get("tuned_alike", True)
    return {"color": color, "mfc": "white", "mew": 2} if hollow else {"color": color, "mec": "white"}


def _write_names(axis: plt.Axes, x: np.ndarray, y: np.ndarray, names: pd.Index) -> None:
    """Write a name beside each point, in this order, where it covers no point and no name."""
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    x, y = (x - left) / (right - left), (y - low) / (high - low)
    boxes = [(at - 0.015, at + 0.015, height) for at, height in zip(x, y)]
    for at, height, name in zip(x, y, names):
        length = len(name) / 48
        middle = at - length / 2
        places = (at + 0.025, height), (at - 0.025 - length, height), (middle, height + 0.05), (middle, height - 0.05)
        for start, middle_height in places:
            box = start, start + length, middle_height
            if start > 0 and box[1] < 1.02 and not any(_overlap(box, other) for other in boxes):
                boxes.append(box)
                look = {"fontsize": 8.5, "va": "center", "color": "0.25", "transform": axis.transAxes}
                axis.text(start, middle_height, name, **look)
                break


def _overlap(a: tuple[float, float, float], b: tuple[float, float, float]) -> bool:
    """Return whether two boxes of one line of text overlap; each is (left, right, middle), in shares of the axes."""
    return a[0] < b[1] and b[0] < a[1] and abs(a[2] - b[2]) < 0.045


def _difference(metric: str) -> str:
    return f"{style.TITLES[metric]} − that of the baseline"


def _seeds(panels: dict[str, pd.DataFrame]) -> str:
    return style.count_seeds([n for tests in panels.values() for n in tests["n"]])


def _hollow(panels: dict[str, pd.DataFrame]) -> str:
    """Return what a title says of hollow points; empty if there are none."""
    some = any(not alike for tests in panels.values() for alike in tests.get("tuned_alike", ()))
    return "; hollow: has other settings than the baseline" if some else ""
