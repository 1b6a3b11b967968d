"""Pictures of a split, of the outputs of twins, and of incoming weights. Arrays can be torch tensors."""

from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from neuronsplit.plots.style import COLORS

FIRST_TWIN, SECOND_TWIN = COLORS["max-loss"], COLORS["min-loss"]


def draw_split() -> Figure:
    """Draw the split of one neuron into two."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    before = [("w, b", "v", FIRST_TWIN, 0.5, 0.84)]  # incoming, outgoing, colour, heights of neuron and labels
    after = [("αw, αb", "γv", FIRST_TWIN, 0.72, 0.92), ("βw, βb", "δv", SECOND_TWIN, 0.28, 0.08)]
    for axis, title, neurons in zip(axes, ("before: one neuron", "after: two, αγ + βδ = 1"), (before, after)):
        for incoming, outgoing, color, height, label in neurons:
            for y in (0.15, 0.5, 0.85):
                axis.plot([0, 1], [y, height], color=color, lw=1.4, zorder=1)
            for y in (0.3, 0.7):
                axis.plot([1, 2], [height, y], color=color, lw=1.4, zorder=1)
            axis.scatter(1, height, s=900, color=color, ec="white", lw=2, zorder=2)
            axis.text(0.5, label, incoming, color=color, fontsize=13, ha="center", va="center")
            axis.text(1.5, label, outgoing, color=color, fontsize=13, ha="center", va="center")
        axis.scatter([0] * 3, [0.15, 0.5, 0.85], s=350, color="0.75", ec="white", lw=2, zorder=2)
        axis.scatter([2] * 2, [0.3, 0.7], s=350, color="0.75", ec="white", lw=2, zorder=2)
        for x, name in enumerate(("inputs", "hidden layer", "next layer")):
            axis.text(x, -0.04, name, ha="center", va="top", fontsize=10)
        axis.set(title=title, xlim=(-0.3, 2.3), ylim=(-0.12, 1))
        axis.axis("off")
    return figure


def draw_twin_outputs(alpha: float, beta: float, gamma: float, delta: float | None = None) -> Figure:
    """Draw the outputs of a neuron of one input and of its twins; without δ, it follows from αγ + βδ = 1.

    The title says how much the split changes the output at most.
    """
    delta = (1 - alpha * gamma) / beta if delta is None else delta
    x = np.linspace(-2, 2, 200)
    z = 1.2 * x + 0.4
    parent, first, second = (share * np.maximum(s * z, 0) for s, share in ((1, 1), (alpha, gamma), (beta, delta)))
    figure, axis = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
    axis.plot(x, parent, color="0.75", lw=8, label="parent: relu(z)")
    axis.plot(x, first, color=FIRST_TWIN, lw=2, label=f"γ relu(αz), α = {alpha:.2f}, γ = {gamma:.2f}")
    axis.plot(x, second, color=SECOND_TWIN, lw=2, label=f"δ relu(βz), β = {beta:.2f}, δ = {delta:.2f}")
    axis.plot(x, first + second, color="black", lw=1.5, ls="--", label="sum of the twins")
    axis.set(xlabel="input x  (z = 1.2 x + 0.4)", ylabel="contribution to the next layer", ylim=(-1.5, 4))
    change, product = np.abs(first + second - parent).max(), alpha * gamma + beta * delta
    axis.set_title(f"αγ + βδ = {product:.2f}: the output changes by {change:.2f} at most", fontsize=11)
    axis.legend(frameon=False, loc="upper left")
    return figure


def to_png(figure: Figure) -> bytes:
    """Return the bytes of a figure's PNG file, and close the figure."""
    file = BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return file.getvalue()


def image_grid(
    images: ArrayLike, shape: tuple[int, int], titles: list[str], correct: list[bool], columns: int = 8
) -> Figure:
    """Draw images (N, pixels) in a grid, with titles that are red for images that are not correct.

    shape: height and width of an image; those of height 1 are drawn as curves. columns: images per row.
    """
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.15 * columns, 1.45 * rows), layout="constrained")
    for axis, pixels, title, right in zip(axes.flat, np.asarray(images), titles, correct):
        if shape[0] == 1:
            axis.plot(pixels, color="black", lw=1)
        else:
            axis.imshow(pixels.reshape(shape), cmap="gray_r", vmin=-0.5, vmax=0.5)
        axis.set_title(title, fontsize=8, color="black" if right else "#b2182b")
    for axis in axes.flat:
        axis.axis("off")
    return figure


def weight_images(weights: list[ArrayLike], titles: list[str], shape: tuple[int, int], columns: int = 10) -> Figure:
    """Draw incoming weights (H, pixels) of each network as a block of images, all on one scale.

    shape: height and width of an image. columns: images per row.
    """
    weights = [np.asarray(w) for w in weights]
    rows = [-(-len(w) // columns) for w in weights]
    figure, axes = plt.subplots(
        len(weights), 1, figsize=(0.9 * columns, 0.9 * sum(rows) + 0.5 * len(rows)), squeeze=False,
        height_ratios=rows, layout="constrained",
    )  # fmt: skip
    limit = max(_largest(w) for w in weights)
    for axis, w, title, count in zip(axes.flat, weights, titles, rows):
        aspect = "auto" if shape[0] == 1 else "equal"  # signals would be lines
        tiles = axis.imshow(_tiles(w, shape, count, columns), aspect=aspect, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_title(title, fontsize=10, loc="left")
        axis.axis("off")
    figure.colorbar(tiles, ax=axes, label="weight", shrink=0.6, aspect=30)
    return figure


def draw_tiles(
    axis: plt.Axes, weights: ArrayLike, shape: tuple[int, int], frames: dict[int, str], like: ArrayLike
) -> None:
    """Draw incoming weights (H, pixels) as tiles on the scale of others, with room for as many.

    shape: height and width of an image. frames: the colours of frames around the tiles of some neurons.
    like: the other weights (H, pixels).
    """
    columns, height, width = 6, shape[0] + 1, shape[1] + 1
    picture = _tiles(np.asarray(weights), shape, -(-len(like) // columns), columns)
    limit = _largest(np.asarray(like))
    aspect = "auto" if shape[0] == 1 else "equal"
    axis.imshow(picture, aspect=aspect, cmap="RdBu_r", vmin=-limit, vmax=limit)
    for neuron, color in frames.items():
        y, x = divmod(neuron, columns)
        corner = (x * width - 0.75, y * height - 0.75)
        axis.add_patch(plt.Rectangle(corner, width - 0.5, height - 0.5, fill=False, ec=color, lw=2.5, clip_on=False))
    axis.axis("off")


def weight_animation(
    weights: list[ArrayLike], shape: tuple[int, int], file: Path | str, columns: int = 10, zoom: int = 2
) -> None:
    """Save an animation of incoming weights (H, pixels) as a GIF, with a frame per epoch, on the scale of the last one.

    shape: height and width of an image. columns: images per row. zoom: the size of a weight, in pixels.
    """
    weights = [np.asarray(w) for w in weights]
    rows = -(-len(weights[-1]) // columns)
    limit = _largest(weights[-1])
    colormap = plt.get_cmap("RdBu_r")
    frames = []
    for w in weights:
        tiles = np.nan_to_num(0.5 + _tiles(w, shape, rows, columns) / (2 * limit), nan=0.5)
        picture = Image.fromarray((colormap(tiles)[..., :3] * 255).astype(np.uint8))
        frames.append(picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST))
    frames = [frame.quantize(64) for frame in frames]
    frames[0].save(file, save_all=True, append_images=frames[1:] + frames[-1:] * 10, duration=120, loop=0)


def _largest(weights: np.ndarray) -> float:
    """Return the 0.999 quantile of the absolute weights."""
    return float(np.quantile(np.abs(weights), 0.999))


def _tiles(weights: np.ndarray, shape: tuple[int, int], rows: int, columns: int) -> np.ndarray:
    """Arrange weights (H, pixels) as tiles of one picture; the gaps and the places without a neuron are NaN."""
    height, width = shape[0] + 1, shape[1] + 1
    picture = np.full((rows * height, columns * width), np.nan)
    for i, pixels in enumerate(weights):
        y, x = divmod(i, columns)
        picture[y * height : y * height + shape[0], x * width : x * width + shape[1]] = pixels.reshape(shape)
    return picture
