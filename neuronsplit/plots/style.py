"""What all figures share: colours, markers, axis labels, panels and file names."""

import re
import textwrap
import zlib
from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from neuronsplit.locations import ROOT
from neuronsplit.names import NAMED_COLUMNS, RATE_SCHEDULES, STATES
from neuronsplit.plots import inline

COLORS = {  # legends have this order
    # which: controls are grey, loss policies warm, fire policies cool, and those beyond 2021 brown, green and pink
    "no-split": "#5b5b5b", "stay-narrow": "#b3b3b3", "random": "#9b59b6",
    "max-loss": "#b2182b", "min-loss": "#ef8a1f", "loss-probs": "#d684a8",
    "max-fire": "#08519c", "min-fire": "#56b4e9", "half-fire": "#1b9e77",
    "max-importance": "#7f3b08", "importance-probs": "#c9a15b", "max-gradient": "#003c30", "max-variance": "#8cc63f",
    "min-eigenvalue": "#e7298a", "learned": "#000000",
    "learned-fashion-mnist": "#3f2a56", "learned-digits": "#6a5acd", "learned-mnist-1d": "#a29bd6",
    "ridge": "#006d77", "ridge-fashion-mnist": "#2a9d8f", "ridge-digits": "#62b6cb", "ridge-mnist-1d": "#a3d9c9",
    "rank-sum": "#bc4749", "greedy": "#ffb000",
    # how: exact splits come first, then inexact ones, then neurons without a parent
    "scaled": "#9b59b6", "even": "#c7a17a", "outgoing": "#1f77b4", "scaled-outgoing": "#17becf",
    "antisymmetric": "#b2182b", "net2net": "#e6ab02", "steepest-descent": "#e7298a",
    "zero-outgoing": "#1b7837", "gradmax": "#7fbf3f",
    # when
    "every-epoch": "#9b59b6", "5-per-5-epochs": "#1f77b4", "all-at-half": "#b2182b", "all-at-1": "#ef8a1f",
    "all-at-10": "#e6ab02", "plateau": "#1b7837",
}  # fmt: skip
MARKERS = {  # of schedules
    "every-epoch": "o", "5-per-5-epochs": "s", "all-at-half": "D", "all-at-1": "^", "all-at-10": "P", "plateau": "v",
}  # fmt: skip
MORE_MARKERS = "X*ph<>dH8"  # of schedules that MARKERS does not have, one each
SETTINGS = ("digits", "fashion-mnist", "fashion-mnist-2021", "mnist-1d", "sgd", "momentum", "adam")  # without colour
SETTINGS += (*RATE_SCHEDULES, *(f"state {state}" for state in STATES))
TITLES = {
    "train_loss": "train loss", "train_accuracy": "train accuracy",
    "val_loss": "validation loss", "val_accuracy": "validation accuracy",
    "test_loss": "test loss", "test_accuracy": "test accuracy",
    "parameters": "parameters", "hidden": "hidden neurons",
    "epoch": "epochs", "neuron_epochs": "multiply-adds", "seconds": "seconds",
}  # fmt: skip
_DASHES = ("-", "--", ":", "-.")
_own_colors: dict[str, str] = {}  # of names that COLORS does not have
_own_markers: dict[str, str | tuple[int, int, int]] = {}


def use_style() -> None:
    """Set the look of all figures. In a notebook, they are drawn below their cells, as `inline.draw_inline` says."""
    inline.draw_inline()
    sns.set_theme(style="ticks", rc={"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 80})


def color_of(label: str) -> str:
    """Return the colour of a policy, growth, schedule or experiment, which is the same in every figure.

    A name that is not in COLORS gets a colour that no other name has. It is the same in every process, unless an
    earlier name has taken it.
    A label of several parts, such as "random · even · adam", has the colour of one of them. This is the last part that
    is not in COLORS, or else the last part. Parts for the setting do not count, such as "width 10", "0.1" and "adam".
    """
    parts = label.split(" · ")
    names = [part for part in parts if not _is_setting(part)] or parts
    name = next((name for name in reversed(names) if name not in COLORS), names[-1])
    return COLORS.get(name) or _own_color(name)


def line_styles(labels: Iterable[str]) -> dict[str, dict]:
    """Return the colour and the dashes of the line of each label.

    Up to four labels of one colour differ in their dashes. More of them have the colours of a scale too.
    """
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(color_of(label), []).append(label)
    styles = {}
    for color, group in groups.items():
        scale = sns.color_palette("viridis", len(group)) if len(group) > len(_DASHES) else [color] * len(group)
        for n, (label, shade) in enumerate(zip(group, scale)):
            styles[label] = {"color": shade, "ls": _DASHES[n % len(_DASHES)]}
    return styles


def printable(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose policies have names that matplotlib writes as they are: no formula, and no hidden label."""
    return table.assign(policy=table["policy"].str.replace("$", r"\$").str.replace(r"^_", " _", regex=True))


def _is_setting(part: str) -> bool:
    names = "|".join(NAMED_COLUMNS).replace("_", " ")
    return part in SETTINGS or bool(re.fullmatch(rf"(({names}) )?\d+(\.\d+)?(e-\d+)?", part))


def _own_color(name: str) -> str:
    """Seed a generator with a hash of the name, and try colours until one is far from all others in use."""
    if name not in _own_colors:
        taken = np.array([to_rgb(color) for color in [*COLORS.values(), *_own_colors.values()]])
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        distance, required = 0.0, 0.3
        while distance < required:  # the required distance shrinks, so that a colour is always found
            color = to_hex(sns.husl_palette(1, h=rng.random(), s=0.9, l=rng.uniform(0.4, 0.75))[0])
            distance, required = np.linalg.norm(taken - to_rgb(color), axis=1).min(), max(0.99 * required, 1e-3)
        _own_colors[name] = color
    return _own_colors[name]


def marker_of(schedule: str) -> str | tuple[int, int, int]:
    """Return the marker of a schedule; no two schedules share one."""
    if schedule not in MARKERS and schedule not in _own_markers:
        start = zlib.crc32(schedule.encode()) % len(MORE_MARKERS)
        stars = [(points, 1, 0) for points in range(6, 7 + len(_own_markers))]  # there are so many that one is free
        candidates = [*MORE_MARKERS[start:], *MORE_MARKERS[:start], *stars]
        _own_markers[schedule] = next(marker for marker in candidates if marker not in _own_markers.values())
    return MARKERS.get(schedule) or _own_markers[schedule]


def save_figure(figure: Figure, prefix: str, name: str) -> None:
    """Save a figure as prefix + name + ".png", or do nothing if the prefix is empty.

    A relative prefix starts from the project's folder.
    """
    if prefix:
        figure.savefig(ROOT / f"{prefix}{name}.png", dpi=110)


def panels(count: int, sharey: bool, height: float = 2.2) -> tuple[Figure, np.ndarray]:
    """Make a figure of `count` axes, at most four in a row, `height` inches each; return the figure and the axes."""
    columns = min(count, 4)
    rows = -(-count // columns)
    size = (columns * {1: 6.2, 2: 4.4}.get(columns, 2.8), height * rows + 0.5)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharey=sharey, squeeze=False, layout="constrained")
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, axes.flat[:count]


def row_of_panels(count: int, width: float, height: float, **kwargs) -> tuple[Figure, np.ndarray]:
    """Make a figure of one row of `count` axes, each `width` inches wide; return the figure and the axes."""
    size = (width * count + 1, height)
    figure, axes = plt.subplots(1, count, figsize=size, squeeze=False, layout="constrained", **kwargs)
    return figure, axes[0]


def fit_y(axis: plt.Axes, values: list[float], margin: float = 0.05) -> None:
    """Fit the y axis to the finite values, with a margin that is a share of their range."""
    finite = [value for value in values if np.isfinite(value)]
    if finite:
        space = margin * (max(finite) - min(finite)) or 1
        axis.set_ylim(min(finite) - space, max(finite) + space)


def set_title(figure: Figure, text: str) -> None:
    """Write a text above a figure, in as many lines as the figure's width requires."""
    lines = textwrap.wrap(text, int(12.5 * figure.get_figwidth()))
    figure.set_figheight(figure.get_figheight() + 0.17 * (len(lines) - 1))
    figure.suptitle("\n".join(lines), fontsize=10)


def add_legend(figure: Figure, *axes: plt.Axes) -> None:
    """Put one legend to the right of a figure, which shows every label of the axes once."""
    labels = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels())}
    figure.set_figheight(max(figure.get_figheight(), 0.25 * len(labels) + 0.8))
    figure.set_figwidth(figure.get_figwidth() + 0.08 * max([0, *(len(label) - 16 for label in labels)]))
    figure.legend(labels.values(), labels.keys(), loc="outside right center", frameon=False)


def seeds_of(table: pd.DataFrame) -> str:
    """Return how many seeds the policies of a table have, such as "n = 10 seeds" or "n = 5 to 10 seeds"."""
    return count_seeds(table.groupby("policy")["seed"].nunique())


def count_seeds(counts: Iterable[int]) -> str:
    """Return the range of some numbers of seeds, such as "n = 10 seeds" or "n = 5 to 10 seeds"."""
    low, high = int(min(counts, default=0)), int(max(counts, default=0))
    return f"n = {low if low == high else f'{low} to {high}'} seed{'s' * (high != 1)}"
