"""Figures of a search by successive halving, and of what decides its results."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from neuronsplit.plots import style

COLORS = {"growth": "#0072b2", "control": "0.35"}


def rungs(panels: dict[str, pd.DataFrame], metric: str) -> Figure:
    """Draw the candidates of a search, with a panel per data set and a row per rung: a point is a candidate.

    panels: data set → rows with the columns role ("growth" or "control"), stage (a rung), candidate and the metric, one
    per seed. Values beyond three times the median are not drawn.
    """
    figure, axes = style.row_of_panels(len(panels), 4.2, 3.4)  # each has its own rungs
    for axis, (title, rows) in zip(axes, panels.items()):
        rows = rows[rows["stage"] != "compared"]
        stages = list(dict.fromkeys(rows["stage"]))
        means = rows.groupby(["role", "stage", "candidate"])[metric].mean()
        for role, shift in (("growth", -0.17), ("control", 0.17)):
            for y, stage in enumerate(stages):
                values = means[role, stage]
                jitter = np.random.default_rng(0).uniform(-0.1, 0.1, len(values))
                label = {"growth": "grows", "control": "control"}[role] if y == 0 else None
                axis.plot(values, y + shift + jitter, ".", color=COLORS[role], ms=4, alpha=0.5, label=label)
        axis.set(yticks=range(len(stages)), yticklabels=stages, ylim=(len(stages) - 0.5, -0.5), title=title)
        axis.set_xlim(0.95 * means.min(), min(means.max(), 3 * means.median()))
        axis.set_xlabel(style.TITLES[metric])
    style.add_legend(figure, *axes)
    style.set_title(figure, "a point per candidate: the mean over its seeds; a row per rung of the search")
    return figure


def shares(panels: dict[str, pd.DataFrame]) -> Figure:
    """Draw the share of variance of each choice, with a panel per data set, largest first in the first panel.

    panels: data set → what `analysis.variance.variance_shares` returns.
    """
    order = next(iter(panels.values()))["share"].sort_values(ascending=False).index
    figure, axes = style.row_of_panels(len(panels), 3.4, 0.32 * len(order) + 1.2, sharey=True)
    for axis, (title, rows) in zip(axes, panels.items()):
        rows = rows.loc[order]
        axis.barh(range(len(rows)), rows["share"], color=COLORS["growth"], alpha=0.6)
        axis.plot(rows[["low", "high"]].T, [range(len(rows))] * 2, color="0.2", lw=1.5)
        axis.set(yticks=range(len(rows)), yticklabels=rows.index, ylim=(len(rows) - 0.4, -0.6), title=title)
        axis.set(xlim=(0, None), xlabel="share of the variance (ω²)")
    style.set_title(figure, "what a choice accounts for, whatever the others are; lines: 95 % intervals (jackknife)")
    return figure
