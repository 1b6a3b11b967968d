"""Figures of twins after a split: how far they diverge, by measurement and by theory."""

from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from neuronsplit.analysis.tables import lineage
from neuronsplit.names import NO_GROWTH
from neuronsplit.plots import neurons, style


def twin_metric(rows: pd.DataFrame, metric: str, title: str) -> Figure:
    """Draw a metric of twins over the epochs after the split: the median over the pairs of each growth.

    rows: what `measuring.twin_divergence.track_twins` yields. metric: angle, firing_disagreement or effective_rank.
    title: the label of the y axis.
    There is a panel per optimiser. The band is the middle half. Lines differ in colour and, for print, in dashes.
    """
    optimizers = rows["optimizer"].unique()
    splits = [growth for growth in rows["growth"].unique() if growth != NO_GROWTH]
    dashes = dict(zip(splits, cycle(("-", "-.", (0, (5, 1)), ":")))) | {NO_GROWTH: "--"}
    figure, axes = style.row_of_panels(len(optimizers), 4, 3.6, sharey=True)
    for axis, optimizer in zip(axes, optimizers):
        for growth, part in rows[rows["optimizer"] == optimizer].groupby("growth", sort=False):
            low, median, high = (part.groupby("epoch")[metric].quantile(q) for q in (0.25, 0.5, 0.75))
            color = "black" if growth == NO_GROWTH else style.color_of(growth)
            axis.plot(median, color=color, lw=1.8, ls=dashes[growth], label=growth)
            axis.fill_between(median.index, low, high, color=color, alpha=0.12, lw=0)
        axis.set(title=optimizer, xlabel="epochs after the split")
    axes[0].set(ylabel=title, ylim=(0, None))
    style.add_legend(figure, *axes)
    split = rows[rows["growth"] != NO_GROWTH]
    n_pairs = len(split.groupby(["seed", "pair"]))
    style.set_title(
        figure, f"median of n = {n_pairs} pairs of {split['seed'].nunique()} seeds; band: their middle half"
    )
    return figure


def predicted_vs_measured_angles(rows: pd.DataFrame) -> Figure:
    """Draw measured against predicted angles of twins, with a panel per number of steps.

    rows: what `measuring.twin_divergence.predicted_and_measured_angles` returns.
    """
    steps = rows["steps"].unique()
    figure, axes = style.row_of_panels(len(steps), 3.2, 3.4, sharex=True, sharey=True)
    positive = rows["predicted"][rows["predicted"] > 0]  # the twins of a neuron that never fires do not move
    span = np.quantile(positive, [0.02, 1]) * [0.8, 1.25]
    for axis, (step, part) in zip(axes, rows.groupby("steps")):
        axis.plot(span, span, color="0.4", lw=1.2)
        log_kappa = np.abs(np.log(part["kappa"]))
        points = axis.scatter(part["predicted"], part["measured"], c=log_kappa, s=16, cmap="viridis", vmin=0, vmax=1)
        axis.set(title=f"after {step} step{'s' * (step > 1)}", xlabel="predicted angle (degrees)")
        axis.set(xscale="log", yscale="log", xlim=span, ylim=span)
    axes[0].set_ylabel("measured angle (degrees)")
    figure.colorbar(points, ax=list(axes), label="|log κ|")
    style.set_title(figure, f"a point per pair of twins, n = {len(rows) // len(steps)}; line: measured = predicted")
    return figure


def kappa_histogram(kappas: np.ndarray) -> Figure:
    """Draw the distribution of max(κ, 1/κ) over the κ of many draws, and shade the nearly frozen part."""
    figure, axis = plt.subplots(figsize=(6.5, 3), layout="constrained")
    folded = np.exp(np.abs(np.log(kappas)))
    axis.hist(folded, bins=np.linspace(1, 4, 61), color=style.COLORS["scaled"], density=True)
    axis.axvspan(1, np.exp(0.1), color="0.5", alpha=0.35, lw=0, label="|log κ| < 0.1: nearly frozen")
    axis.axvline(np.median(folded), color="black", lw=1.4, ls="--", label=f"median {np.median(folded):.2f}")
    axis.set(xlabel="max(κ, 1/κ)", ylabel="density", xlim=(1, 4))
    axis.legend(frameon=False, title=f"n = {len(folded):,} draws")
    return figure


def draw_epoch(epoch: int, history: pd.DataFrame, weights: list[ArrayLike], shape: tuple[int, int]) -> Figure:
    """Draw a growing network after an epoch: its incoming weights, its test loss, and the angles between twins.

    history: rows of one network with epoch, hidden, split_neuron and test_loss.
    weights: (H, pixels) before training and after each epoch. shape: height and width of an image.
    The newest twins have frames. All epochs have the same axes, and grey lines show what comes later.
    """
    tree, last = lineage(history), int(history["epoch"].max())
    space = {"left": 0.01, "right": 0.98, "top": 0.86, "bottom": 0.12, "hspace": 0.45}  # a layout engine takes long
    figure, axes = plt.subplot_mosaic(
        [["weights", "loss"], ["weights", "angles"]], figsize=(9.5, 4.2), width_ratios=(1.5, 1), gridspec_kw=space
    )
    newest = tree[(tree["born"] == epoch) & (epoch > 0)]
    pair = dict(zip([*newest["parent"].iloc[:1], *newest.index[:1]], (neurons.FIRST_TWIN, neurons.SECOND_TWIN)))
    axes["weights"].set_anchor("NW")
    neurons.draw_tiles(axes["weights"], weights[epoch], shape, pair, like=weights[-1])
    angles = [
        [(e, _angle(np.asarray(weights[e])[[neuron, row["parent"]]])) for e in range(row["born"], last + 1)]
        for neuron, row in tree[tree["born"] > 0].iterrows()
    ]
    losses = [list(zip(history["epoch"], history["test_loss"]))]
    for name, title, lines in (("loss", "test loss", losses), ("angles", "angle between twins (degrees)", angles)):
        so_far = [[point for point in line if point[0] <= epoch] for line in lines]
        axes[name].add_collection(LineCollection(lines, colors="0.85"))
        axes[name].add_collection(LineCollection([line for line in so_far if line], colors="0.2", linewidths=1.4))
        axes[name].axvline(epoch, color="0.5", lw=1, ls=":")
        top = 1.05 * max([value for line in lines for _, value in line if np.isfinite(value)], default=1)
        axes[name].set(xlim=(0, last + 0.5), ylim=(0, top or 1))
        axes[name].set_title(title, fontsize=10, loc="left")
    axes["weights"].set_title("incoming weights; framed: the newest twins", fontsize=10, loc="left")
    axes["angles"].set_xlabel("epoch")
    style.set_title(figure, f"epoch {epoch} of {last}: {len(weights[epoch])} neurons")
    return figure


def _angle(pair: np.ndarray) -> float:
    """Return the angle between two vectors, in degrees."""
    first, second = pair / np.linalg.norm(pair, axis=1, keepdims=True)
    return float(np.degrees(2 * np.arctan2(np.linalg.norm(first - second), np.linalg.norm(first + second))))
