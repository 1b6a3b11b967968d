"""Figures of tested families of comparisons, as `analysis.design.tests` returns them."""

import pandas as pd
from matplotlib.figure import Figure

from neuronsplit.names import NO_SPLIT
from neuronsplit.plots import style

COLORS = {"better": "#1b7837", "worse": "#b2182b"}  # of verdicts; the others are grey


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
            y, color = names.index(name), COLORS.get(row["verdict"], "0.45")
            axis.plot([row["low"], row["high"]], [y, y], color=color, lw=3, solid_capstyle="butt")
            axis.plot(row["mean"], y, "o", color=color, ms=7, mec="white")
        axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6), title=title)
        axis.locator_params(axis="x", nbins=4)
        axis.set_xlabel(f"{style.TITLES[metric]} − that of the baseline")
    seeds = style.count_seeds([n for tests in panels.values() for n in tests["n"]])
    text = f"mean of {seeds} and its 95 % interval (Student's t); green: better, red: worse, established by max-T"
    style.set_title(figure, f"{text}; band: would be missed 1 time in 5 or more")
    return figure


def against_cost(panels: dict[str, pd.DataFrame], metric: str, named: dict[str, str]) -> Figure:
    """Draw the mean differences of arms to the final width from the start against what they cost, a panel per data set.

    panels: data set → what `analysis.design.against_control` returns.
    named: the arms that are drawn with their interval and a name, and the colour of each. The others are grey points.
    """
    figure, axes = style.row_of_panels(len(panels), 4.6, 3.9)
    for axis, (title, arms) in zip(axes, panels.items()):
        axis.axhline(0, color="0.6", lw=1)
        others = arms[~arms.index.isin(named) & ~arms.index.str.startswith(NO_SPLIT)]
        axis.plot(others["cost"], others["mean"], "o", color="0.75", ms=4, zorder=1)
        shown = arms.loc[[name for name in named if name in arms.index]]
        for name, row in shown.iterrows():
            axis.plot([row["cost"]] * 2, [row["low"], row["high"]], color=named[name], lw=2.5, solid_capstyle="butt")
            axis.plot(row["cost"], row["mean"], "o", color=named[name], ms=7, mec="white")
            side, x = ("right", -7) if 0.5 < row["cost"] < 0.9 else ("left", 7)
            look = {"textcoords": "offset points", "ha": side, "va": "center", "fontsize": 9, "color": named[name]}
            axis.annotate(name, (row["cost"], row["mean"]), (x, 0), **look)
        axis.set(title=title, xlim=(0, 1.6), xlabel="multiply-adds of training, as a share of the control's")
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axis.xaxis.set_major_formatter("{x:.0%}")
    axes[0].set_ylabel(f"{style.TITLES[metric]} − that of the control")
    seeds = style.count_seeds([n for arms in panels.values() for n in arms["n"]])
    text = f"mean of {seeds} and its 95 % interval (Student's t); grey: other ways to grow; the line at 0: {NO_SPLIT}"
    style.set_title(figure, text)
    return figure
