"""Figures in notebooks: drawn as PNG below their cells, each with a description for those who cannot see it."""

import base64
import io
import sys
from collections.abc import Callable
from functools import partial

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

_WIDGETS = ("ipympl", "nbagg")  # backends that draw into a notebook by themselves


def draw_inline() -> None:
    """Draw figures as PNG below the cells of this notebook, even if MPLBACKEND in the environment names another way.

    What `describe` says of a figure is in the metadata of its output, as "alt". Outside of a notebook, nothing changes.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if not hasattr(shell, "kernel") or any(name in plt.get_backend().lower() for name in _WIDGETS):
        return
    shell.enable_matplotlib("inline")
    formatter = shell.display_formatter.formatters["image/png"]
    draw = formatter.type_printers.get(Figure)  # there is none if the user has asked for another format
    if draw and getattr(draw, "func", None) is not _draw_described:
        formatter.for_type(Figure, partial(_draw_described, draw))


def _draw_described(draw: Callable, figure: Figure) -> tuple[str, dict[str, str]]:
    """Return a figure as IPython's formatter draws it, and its metadata."""
    drawn = draw(figure)
    data, metadata = drawn if isinstance(drawn, tuple) else (drawn, {})
    return _with_palette(data), metadata | {"alt": describe(figure)}


def _with_palette(data: str) -> str:
    """Return a PNG in base64 with 256 colours at most, which takes about a third of the memory."""
    file, image = io.BytesIO(), Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def describe(figure: Figure) -> str:
    """Return a description of a figure: its title, the labels of its panels, and what is named in or next to them."""
    axes = [axis for axis in figure.axes if axis.axison]
    panels, names = {}, {}
    for axis in axes:
        labels = [axis.get_title() or axis.get_title(loc="left"), axis.get_ylabel(), axis.get_xlabel()]
        panels[", ".join(label for label in labels if label)] = None
        ticks = [label.get_text() for label in (*axis.get_yticklabels(), *axis.get_xticklabels())]
        ticks = [text for text in ticks if any(letter.isalpha() for letter in text) and "$" not in text]
        names |= dict.fromkeys([*axis.get_legend_handles_labels()[1], *ticks])
    parts = [figure.get_suptitle(), "; ".join(filter(None, panels)), ", ".join(names)]
    return ". ".join(" ".join(part.split()) for part in parts if part) or "figure"
