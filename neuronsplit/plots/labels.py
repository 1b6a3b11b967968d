"""Picture of the labels that `split_neuron` follows, for the network of three operations in surgery/labels.py."""

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

# What each row is, its labels, and its labels after the split of neuron 1. Activations have one row of labels.
ROWS = [
    ("x: the input", [[-1, -1, -1]], [[-1, -1, -1]]),
    ("A: its rows\nmake 0 and 1", [[0, 0, 0], [1, 1, 1]], [[0, 0, 0], [1, 1, 1], [1, 1, 1]]),
    ("h = x @ A.T", [[0, 1]], [[0, 1, 1]]),
    ("r = relu(h)\nkeeps places", [[0, 1]], [[0, 1, 1]]),
    ("B: its columns\nread 0 and 1,\nits row makes 2", [[0, 1]], [[0, 1, 1]]),
    ("y = r @ B.T:\nthe output", [[2]], [[2]]),
]
FACE = {-1: "#e6e6e6", 0: "#0173b2", 1: "#f2b134", 2: "#00664b"}  # by label
INK = {-1: "#555555", 0: "white", 1: "black", 2: "white"}


def draw_labels() -> Figure:
    """Draw the labels of a network of three operations, before and after a split. Twins have a black frame."""
    figure, axis = plt.subplots(figsize=(5.6, 6.6), layout="constrained")
    top, middles = 0.0, []
    for _, before, after in ROWS:
        middle = top + len(after) / 2
        _draw_tensor(axis, 0, middle, before, twins=None)
        _draw_tensor(axis, 4, middle, after, twins=1)
        axis.annotate("", (3.85, middle), (3.15, middle), arrowprops={"arrowstyle": "->", "color": "0.4"})
        middles.append(middle)
        top += len(after) + 0.4
    axis.set(xlim=(-0.1, 7.1), ylim=(top - 0.3, -0.1))
    axis.set_yticks(middles, [name for name, _, _ in ROWS], fontsize=12)
    axis.set_xticks([1.5, 5.5], ["before", "neuron 1 is split"], fontsize=12)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    sns.despine(ax=axis, left=True, bottom=True)
    figure.suptitle("The channel of each element (−1: none; frames: twins)", fontsize=12)
    return figure


def _draw_tensor(axis: plt.Axes, left: float, middle: float, labels: list[list[int]], twins: int | None) -> None:
    """Draw a square with its label for each element of a tensor. Rows are centred at a height."""
    for i, row in enumerate(labels):
        for j, label in enumerate(row):
            x, y = left + j, middle - len(labels) / 2 + i
            edge = {"ec": "black", "lw": 2.5, "zorder": 2} if label == twins else {"ec": "white", "lw": 2}
            axis.add_patch(plt.Rectangle((x + 0.05, y + 0.05), 0.9, 0.9, fc=FACE[label], **edge))
            text = axis.text(x + 0.5, y + 0.52, str(label).replace("-", "−"), ha="center", va="center")
            text.set(color=INK[label], fontsize=14, weight="bold")
