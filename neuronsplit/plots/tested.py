"""Figures of tested families of comparisons, as `analysis.design.tests` returns them."""

import pandas as pd
from matplotlib.figure import Figure

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
