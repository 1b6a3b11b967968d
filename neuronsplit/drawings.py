"""Pictures of neurons: of a split, of what twins send on, of incoming weights as images."""

from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from neuronsplit.plots import COLOURS


def split() -> Figure:
    """The split of one neuron into two, drawn."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    red, orange = COLOURS["max-loss"], COLOURS["min-loss"]
    before = [("w, b", "v", red, 0.5, 0.84)]  # incoming, outgoing, colour, height of the neuron and of its labels
    after = [("αw, αb", "γv", red, 0.72, 0.92), ("βw, βb", "δv", orange, 0.28, 0.08)]
    for axis, title, neurons in zip(axes, ("before: one neuron", "after: two, αγ + βδ = 1"), (before, after)):
        for incoming, outgoing, shade, height, label in neurons:
            for y in (0.15, 0.5, 0.85):
                axis.plot([0, 1], [y, height], color=shade, lw=1.4, zorder=1)
            for y in (0.3, 0.7):
                axis.plot([1, 2], [height, y], color=shade, lw=1.4, zorder=1)
            axis.scatter(1, height, s=900, color=shade, ec="white", lw=2, zorder=2)
            axis.text(0.5, label, incoming, color=shade, fontsize=13, ha="center", va="center")
            axis.text(1.5, label, outgoing, color=shade, fontsize=13, ha="center", va="center")
        axis.scatter([0] * 3, [0.15, 0.5, 0.85], s=350, color="0.75", ec="white", lw=2, zorder=2)
        axis.scatter([2] * 2, [0.3, 0.7], s=350, color="0.75", ec="white", lw=2, zorder=2)
        for x, name in enumerate(("inputs", "hidden layer", "next layer")):
            axis.text(x, -0.04, name, ha="center", va="top", fontsize=10)
        axis.set(title=title, xlim=(-0.3, 2.3), ylim=(-0.12, 1))
        axis.axis("off")
    return figure


def twins(alpha: float, beta: float, gamma: float) -> Figure:
    """What a neuron of one input sends on, and what its twins send on: δ follows from αγ + βδ = 1."""
    delta = (1 - alpha * gamma) / beta
    x = np.linspace(-2, 2, 200)
    z = 1.2 * x + 0.4
    parent, first, second = (v * np.maximum(s * z, 0) for s, v in ((1, 1), (alpha, gamma), (beta, delta)))
    figure, axis = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
    axis.plot(x, parent, color="0.75", lw=8, label="parent: relu(z)")
    axis.plot(x, first, color="#b2182b", lw=2, label=f"γ relu(αz), α = {alpha:.2f}, γ = {gamma:.2f}")
    axis.plot(x, second, color="#ef8a1f", lw=2, label=f"δ relu(βz), β = {beta:.2f}, δ = {delta:.2f}")
    axis.plot(x, first + second, color="black", lw=1.5, ls="--", label="sum of the twins")
    axis.set(xlabel="input x  (z = 1.2 x + 0.4)", ylabel="sent to the next layer", ylim=(-1.5, 4))
    axis.legend(frameon=False, loc="upper left")
    return figure


def png(figure: Figure) -> bytes:
    """A figure as a PNG file's bytes; the figure is closed."""
    file = BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return file.getvalue()


def images(rows: Tensor, shape: tuple[int, int], titles: list[str], right: list[bool], columns: int = 8) -> Figure:
    """Images (N, pixels) in a grid with a title each, red where it is not right."""
    count = -(-len(rows) // columns)
    figure, axes = plt.subplots(count, columns, figsize=(1.15 * columns, 1.45 * count), layout="constrained")
    for axis, pixels, title, hit in zip(axes.flat, rows, titles, right):
        axis.imshow(pixels.reshape(shape), cmap="gray_r", vmin=-0.5, vmax=0.5)
        axis.set_title(title, fontsize=8, color="black" if hit else "#b2182b")
    for axis in axes.flat:
        axis.axis("off")
    return figure


def fan_in(weights: list[Tensor], titles: list[str], shape: tuple[int, int], columns: int = 10) -> Figure:
    """Incoming weights (H, pixels) as images, a block of tiles a network: red positive, blue negative, one scale."""
    rows = [-(-len(w) // columns) for w in weights]
    figure, axes = plt.subplots(
        len(weights), 1, figsize=(0.9 * columns, 0.9 * sum(rows) + 0.5 * len(rows)), squeeze=False,
        height_ratios=rows, layout="constrained",
    )  # fmt: skip
    limit = max(float(w.abs().quantile(0.999)) for w in weights)
    for axis, w, title, count in zip(axes.flat, weights, titles, rows):
        tiles = axis.imshow(_tiles(w, shape, count, columns), cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_title(title, fontsize=10, loc="left")
        axis.axis("off")
    figure.colorbar(tiles, ax=axes, label="weight", shrink=0.6, aspect=30)
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
