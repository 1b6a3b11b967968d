"""Figures of family trees, which show which neuron was split from which."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neuronsplit.analysis.tables import lineage
from neuronsplit.plots import style


def family_trees(table: pd.DataFrame, seed: int) -> Figure:
    """Draw the family trees of one seed, with a panel per policy, a line per neuron and a shade per founder."""
    rows = table[table["seed"] == seed]
    splits = rows.dropna(subset="split_neuron")
    policies = (splits if len(splits) else rows)["policy"].unique()
    figure, axes = style.panels(len(policies), sharey=True, height=3.2)
    epochs = splits["epoch"].max() + 1 if len(splits) else 1
    for axis, policy in zip(axes, policies):
        tree = lineage(rows[rows["policy"] == policy])
        shades = founder_shades(tree["founder"].nunique())
        _draw_tree(axis, tree, epochs, {neuron: shades[founder] for neuron, founder in _numbered(tree).items()})
        largest = tree["founder"].value_counts().iloc[0]
        title = textwrap.fill(f"{policy}: largest family {largest} of {len(tree)}", 36)
        axis.set_title(title, color=style.color_of(policy), fontsize=10)
    axes[0].set_ylabel("neurons, by family")
    style.set_title(
        figure, f"the neurons of seed {seed}: a line per neuron, from its birth; a shade of grey-blue per family"
    )
    return figure


def founder_shades(count: int) -> list[tuple[float, ...]]:
    """Return shades of grey-blue, one per family. Neighbours differ clearly, and no policy has such a colour."""
    positions = np.linspace(0.15, 0.8, count)
    half = -(-count // 2)
    return [plt.get_cmap("bone")(positions[i // 2 + (half if i % 2 else 0)]) for i in range(count)]


def _numbered(tree: pd.DataFrame) -> dict[int, int]:
    """Return the number of each neuron's family, in the order in which families are drawn."""
    founders = list(dict.fromkeys(tree["founder"][neuron] for neuron in drawing_order(tree)))
    return {neuron: founders.index(founder) for neuron, founder in tree["founder"].items()}


def family_trees_by_angle(trees: dict[str, pd.DataFrame], epochs: int) -> Figure:
    """Draw family trees in which colours show the angle between each neuron and its parent after the last epoch.

    trees: title → a tree as `tables.lineage` returns it, with a column `angle` in degrees. It is NaN for founders,
        which are grey.
    """
    figure, axes = style.panels(len(trees), sharey=True, height=3.6)
    scale = plt.Normalize(0, max(10, max(tree["angle"].max() for tree in trees.values())))
    colormap = plt.get_cmap("viridis")
    for axis, (name, tree) in zip(axes, trees.items()):
        colors = {neuron: "0.6" if np.isnan(a) else colormap(scale(a)) for neuron, a in tree["angle"].items()}
        _draw_tree(axis, tree, epochs, colors, lw=2.2)
        axis.set_title(f"{name}: median {tree['angle'].median():.1f}°", fontsize=10, weight="bold")
    axes[0].set_ylabel("neurons, by family")
    figure.colorbar(plt.cm.ScalarMappable(scale, colormap), ax=list(axes), label="angle to the parent (degrees)")
    style.set_title(figure, "a line per neuron, from its birth; grey: there from the start")
    return figure


def _draw_tree(axis: plt.Axes, tree: pd.DataFrame, epochs: float, colors: dict, lw: float = 1) -> None:
    """Draw one family tree, with a line per neuron that starts at the line of its parent."""
    height = {neuron: y for y, neuron in enumerate(drawing_order(tree))}
    for neuron, row in tree.iterrows():
        axis.plot([row["born"], epochs], [height[neuron]] * 2, color=colors[neuron], lw=lw)
        axis.plot([row["born"]] * 2, [height[row["parent"]], height[neuron]], color=colors[neuron], lw=lw)
    axis.set(xlabel="epoch", yticks=[], xlim=(0, epochs), ylim=(len(tree), -1))
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axis.spines["left"].set_visible(False)


def drawing_order(tree: pd.DataFrame) -> list[int]:
    """Order neurons from top to bottom so that no lines cross: each is followed by its children, the youngest first."""
    children = {n: list(rows.index[::-1].drop(n, errors="ignore")) for n, rows in tree.groupby("parent")}
    order, stack = [], list(tree.index[tree["parent"] == tree.index][::-1])
    while stack:
        order.append(stack.pop())
        stack.extend(reversed(children.get(order[-1], [])))
    return order
