"""Figures from tidy tables and from networks; each function returns its Figure."""

from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from neuronsplit import compare

COLOURS = {  # in the order of every legend: the control grey, loss policies warm, fire policies cool
    "no-split": "#5b5b5b",
    "random": "#9b59b6",
    "max-loss": "#b2182b",
    "min-loss": "#ef8a1f",
    "loss-probs": "#d684a8",
    "max-fire": "#08519c",
    "min-fire": "#56b4e9",
    "half-fire": "#1b9e77",
}
TITLES = {
    "train_loss": "train loss", "train_accuracy": "train accuracy",
    "val_loss": "validation loss", "val_accuracy": "validation accuracy",
    "test_loss": "test loss", "test_accuracy": "test accuracy", "parameters": "parameters",
}  # fmt: skip


def use_style() -> None:
    """The look of every figure here."""
    sns.set_theme(style="ticks", rc={"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110})


def colour(policy: str) -> str:
    """The colour of a policy, the same in every figure; black for one that the study does not know."""
    return COLOURS.get(policy, "black")


def together(table: pd.DataFrame, measures: list[str]) -> Figure:
    """The mean of every policy over epochs, a panel a measure."""
    figure, axes = _panels(len(measures), sharey=False)
    for axis, measure in zip(axes, measures):
        for policy, rows in table.groupby("policy", sort=False):
            axis.plot(rows.groupby("epoch")[measure].mean(), color=colour(policy), lw=1.6, label=policy)
        _epochs(axis, table)
        axis.set_ylabel(TITLES[measure])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.suptitle(f"mean of {_repeats(table)}; dotted: the last split", fontsize=10)
    return figure


def apart(table: pd.DataFrame, measures: list[str]) -> Figure:
    """A panel a policy and measure: every repeat thin, their mean bold, the first policy's mean dashed."""
    first, *others = table["policy"].unique()
    panels = list(product([first, *others], measures))
    figure, axes = _panels(len(panels), sharey=len(measures) == 1)
    for axis, (policy, measure) in zip(axes, panels):
        wide = table.pivot(index="epoch", columns=["policy", "seed"], values=measure)
        axis.plot(wide[policy], color=colour(policy), lw=0.7, alpha=0.5)
        axis.plot(wide[policy].mean(axis=1), color=colour(policy), lw=2)
        axis.plot(wide[first].mean(axis=1), color=colour(first), lw=1.2, ls="--")
        axis.set_title(policy, color=colour(policy), fontsize=11, weight="bold")
        axis.set_ylabel(TITLES[measure])
        _epochs(axis, table)
    dashed = f"; dashed: mean of {first}" if others else ""
    figure.suptitle(f"{_repeats(table)}, thin; their mean, bold{dashed}; dotted: the last split", fontsize=10)
    return figure


def final_points(table: pd.DataFrame, measures: list[str]) -> Figure:
    """Final value of every repeat, a column of points a policy, with their mean as a bar."""
    last = compare.final(table)
    figure, axes = plt.subplots(1, len(measures), figsize=(5.6 * len(measures), 3.8), squeeze=False, layout="constrained")
    for axis, measure in zip(axes.flat, measures):
        palette = {policy: colour(policy) for policy in last["policy"].unique()}
        sns.stripplot(last, x="policy", y=measure, hue="policy", palette=palette, alpha=0.6, jitter=False, ax=axis)
        means = last.groupby("policy", sort=False)[measure].mean()
        axis.scatter(range(len(means)), means, marker="_", s=500, lw=2.5, c=[colour(p) for p in means.index])
        axis.set(xlabel="", ylabel=f"final {TITLES[measure]}")
        axis.tick_params(axis="x", rotation=35)
        plt.setp(axis.get_xticklabels(), ha="right", rotation_mode="anchor")
    figure.suptitle(f"{_repeats(table)} after epoch {table['epoch'].max()}; bar: mean", fontsize=10)
    return figure


def differences(table: pd.DataFrame, measures: list[str], baseline: str) -> Figure:
    """Final difference to the baseline, repeat by repeat, with the mean and its 95 % bootstrap interval."""
    figure, axes = plt.subplots(
        1, len(measures), figsize=(5.2 * len(measures), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, measure in zip(axes.flat, measures):
        paired = compare.paired(table, measure, baseline)
        axis.axvline(0, color="0.6", lw=1)
        for y, (policy, found) in enumerate(compare.intervals(paired).iterrows()):
            axis.scatter(paired[policy], [y] * len(paired), color=colour(policy), s=14, alpha=0.35, lw=0)
            axis.plot([found.low, found.high], [y, y], color=colour(policy), lw=3, solid_capstyle="butt")
            axis.plot(found["mean"], y, "o", color=colour(policy), ms=8, mec="white")
        axis.set(yticks=range(paired.shape[1]), yticklabels=paired.columns, ylim=(paired.shape[1] - 0.5, -0.5))
        axis.set_xlabel(f"{TITLES[measure]} − that of {baseline}, same repeat")
    figure.suptitle(f"{_repeats(table)} (faint), their mean and its 95 % bootstrap interval", fontsize=10)
    return figure


def family_trees(table: pd.DataFrame, seed: int) -> Figure:
    """Who descends from whom in one repeat, a panel a policy: a line a neuron, coloured by its founder."""
    repeat = table[table["seed"] == seed]
    grown = repeat[repeat["split_neuron"].notna()]["policy"].unique()
    figure, axes = _panels(len(grown), sharey=True, height=3.2)
    palette = sns.color_palette("tab10") if repeat["hidden"].min() <= 11 else sns.color_palette("husl", 60)
    end = repeat.dropna(subset="split_neuron")["epoch"].max() + 1
    for axis, policy in zip(axes, grown):
        tree = compare.lineage(repeat[repeat["policy"] == policy])
        place = {neuron: y for y, neuron in enumerate(_branches(tree))}
        for neuron, (founder, parent, born) in tree.iterrows():
            shade = palette[founder % len(palette)]
            axis.plot([born, end], [place[neuron]] * 2, color=shade, lw=1)
            axis.plot([born, born], [place[parent], place[neuron]], color=shade, lw=1)
        largest = tree["founder"].value_counts().iloc[0]
        axis.set_title(policy, color=colour(policy), fontsize=11, weight="bold")
        axis.set(xlabel="epoch", yticks=[], xlim=(0, end), ylim=(len(tree), -1))
        axis.text(0.03, 0.02, f"largest family: {largest} of {len(tree)}", transform=axis.transAxes, fontsize=8,
                  bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1})  # fmt: skip
        axis.spines["left"].set_visible(False)
    figure.suptitle(f"the neurons of seed {seed}: a line a neuron, from its birth; a colour a founder", fontsize=10)
    return figure


def _branches(tree: pd.DataFrame) -> list[int]:
    """Neurons from top to bottom so that no line crosses another: after each neuron its children, youngest first."""
    children = {n: list(rows.index[::-1].drop(n, errors="ignore")) for n, rows in tree.groupby("parent")}
    order, todo = [], list(tree.index[tree["born"] == 0][::-1])
    while todo:
        order.append(todo.pop())
        todo.extend(reversed(children.get(order[-1], [])))
    return order


def split_drawing() -> Figure:
    """The split of one neuron into two, drawn."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    before = {"w, b": (0.5, "v", "#b2182b")}
    after = {"αw, αb": (0.72, "γv", "#b2182b"), "βw, βb": (0.28, "δv", "#ef8a1f")}
    for axis, title, neurons in zip(axes, ("before: one neuron", "after: two, αγ + βδ = 1"), (before, after)):
        for incoming, (height, outgoing, shade) in neurons.items():
            for y in (0.15, 0.5, 0.85):
                axis.plot([0, 1], [y, height], color=shade, lw=1.4, zorder=1)
            for y in (0.3, 0.7):
                axis.plot([1, 2], [height, y], color=shade, lw=1.4, zorder=1)
            axis.scatter(1, height, s=900, color=shade, ec="white", lw=2, zorder=2)
            axis.text(0.5, (height + 0.5) / 2, incoming, **_NOTE)
            axis.text(1.5, (height + 0.5) / 2, outgoing, **_NOTE)
        axis.scatter([0] * 3, [0.15, 0.5, 0.85], s=350, color="0.75", ec="white", lw=2, zorder=2)
        axis.scatter([2] * 2, [0.3, 0.7], s=350, color="0.75", ec="white", lw=2, zorder=2)
        for x, name in enumerate(("inputs", "hidden layer", "next layer")):
            axis.text(x, -0.02, name, ha="center", va="top", fontsize=10)
        axis.set(title=title, xlim=(-0.2, 2.2), ylim=(-0.1, 1))
        axis.axis("off")
    return figure


_NOTE = {"ha": "center", "va": "center", "fontsize": 11, "bbox": {"fc": "white", "ec": "none", "pad": 1.5}, "zorder": 3}


def images(rows: Tensor, shape: tuple[int, int], titles: list[str], right: list[bool], columns: int = 8) -> Figure:
    """Images (N, pixels) in a grid with a title each, red where it is not right."""
    count = -(-len(rows) // columns)
    figure, axes = plt.subplots(count, columns, figsize=(1.45 * columns, 1.75 * count), layout="constrained")
    for axis, pixels, title, hit in zip(axes.flat, rows, titles, right):
        axis.imshow(pixels.reshape(shape), cmap="gray_r", vmin=-0.5, vmax=0.5)
        axis.set_title(title, fontsize=8, color="black" if hit else "#b2182b")
    for axis in axes.flat:
        axis.axis("off")
    return figure


def fan_in(weights: list[Tensor], titles: list[str], shape: tuple[int, int], columns: int = 10) -> Figure:
    """Incoming weights (H, pixels) as images, a block of tiles a network: red positive, blue negative, one scale."""
    most = max(len(w) for w in weights)
    rows = -(-most // columns)
    figure, axes = plt.subplots(
        len(weights), 1, figsize=(0.95 * columns, (0.95 * rows + 0.4) * len(weights)), squeeze=False, layout="constrained"
    )
    limit = max(float(w.abs().max()) for w in weights)
    for axis, w, title in zip(axes.flat, weights, titles):
        axis.imshow(_tiles(w, shape, rows, columns), cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_title(title, fontsize=10, loc="left")
        axis.axis("off")
    return figure


def growth_gif(weights: list[Tensor], shape: tuple[int, int], file: Path, columns: int = 10, zoom: int = 2) -> None:
    """An animation of incoming weights (H, pixels), a frame an epoch, on the scale of the last one."""
    rows = -(-len(weights[-1]) // columns)
    limit = float(weights[-1].abs().quantile(0.999))
    colours = plt.get_cmap("RdBu_r")
    frames = []
    for w in weights:
        tiles = np.nan_to_num(0.5 + _tiles(w, shape, rows, columns) / (2 * limit), nan=0.5)
        picture = Image.fromarray((colours(tiles)[..., :3] * 255).astype(np.uint8))
        frames.append(picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST))
    frames = [frame.quantize(64) for frame in frames]
    frames[0].save(file, save_all=True, append_images=frames[1:] + frames[-1:] * 10, duration=120, loop=0)


def _tiles(w: Tensor, shape: tuple[int, int], rows: int, columns: int) -> np.ndarray:
    """Rows of w (H, pixels) as tiles of one picture, with an empty line between; NaN where there is no neuron."""
    height, width = shape[0] + 1, shape[1] + 1
    picture = np.full((rows * height, columns * width), np.nan)
    for i, pixels in enumerate(w):
        y, x = divmod(i, columns)
        picture[y * height : y * height + shape[0], x * width : x * width + shape[1]] = pixels.reshape(shape)
    return picture


def _panels(count: int, sharey: bool, height: float = 2.5) -> tuple[Figure, np.ndarray]:
    """A figure of panels, at most four a row; those left over are blank."""
    columns = min(count, 4)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(max(3.3 * columns, 4.5), height * rows + 0.5), sharex=True, sharey=sharey,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, axes.flat[:count]


def _epochs(axis: plt.Axes, table: pd.DataFrame) -> None:
    """Label the epochs and mark the last split."""
    axis.set_xlabel("epoch")
    splits = table.dropna(subset="split_neuron")["epoch"]
    if len(splits):
        axis.axvline(splits.max(), color="0.5", lw=1, ls=":")


def _repeats(table: pd.DataFrame) -> str:
    return f"{table['seed'].nunique()} repeats"
