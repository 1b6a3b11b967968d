"""Figures to play with: sliders and a play button redraw them, where a kernel runs and `ipywidgets` is installed."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from IPython.display import display
from matplotlib.figure import Figure

from neuronsplit.plots.neurons import draw_twin_outputs, to_png

if TYPE_CHECKING:
    import ipywidgets


def split_sliders(alpha: float, beta: float, gamma: float) -> "ipywidgets.VBox":
    """Return sliders for the coefficients of a split, above the outputs of its twins, which they redraw.

    alpha, beta, gamma: where the sliders begin. While the box is ticked, δ follows from αγ + βδ = 1.
    """
    import ipywidgets  # only notebooks need it

    alpha, beta, gamma = (
        ipywidgets.FloatSlider(value, min=0.4, max=2, step=0.05, description=name)
        for name, value in {"α": alpha, "β": beta, "γ": gamma}.items()
    )
    delta = ipywidgets.FloatSlider(min=-8, max=3, step=0.01, description="δ")
    follows = ipywidgets.Checkbox(True, description="δ follows from the others", indent=False)
    picture = _picture()

    def redraw(change=None):
        delta.disabled = follows.value
        if follows.value:
            delta.value = (1 - alpha.value * gamma.value) / beta.value
        if change is None or change.owner is not delta or not follows.value:  # what follows is not drawn twice
            shares = (slider.value for slider in (alpha, beta, gamma))
            picture.value = to_png(draw_twin_outputs(*shares, None if follows.value else delta.value))

    for widget in (alpha, beta, gamma, delta, follows):
        widget.observe(redraw, "value")
    redraw()
    return _column(alpha, beta, gamma, delta, follows, picture)


def player(draw: Callable[[int], Figure], last: int, name: str, milliseconds: int = 500) -> "ipywidgets.VBox":
    """Return a play button and a slider that show the figures of the numbers from 0 to `last`, each drawn once.

    draw: returns the figure of a number. name: what the number is, such as "epoch".
    """
    import ipywidgets

    png = cache(lambda number: to_png(draw(number)))
    button = ipywidgets.Play(max=last, interval=milliseconds, show_repeat=False)
    slider = ipywidgets.IntSlider(max=last, description=name)
    picture = _picture()
    ipywidgets.jslink((button, "value"), (slider, "value"))  # in the browser, so that the slider never lags behind

    def redraw(change=None):
        picture.value = png(slider.value)

    slider.observe(redraw, "value")
    redraw()
    return _column(ipywidgets.HBox([button, slider], layout={"flex_flow": "row wrap"}), picture)


def show(widget: "ipywidgets.Widget", otherwise: str) -> None:
    """Show a widget in a notebook, or the text `otherwise` where no kernel runs."""
    display(widget._repr_mimebundle_() | {"text/plain": otherwise}, raw=True)


def _picture() -> "ipywidgets.Image":
    import ipywidgets

    return ipywidgets.Image(layout={"max_width": "100%", "height": "auto", "object_fit": "contain"})


def _column(*widgets: "ipywidgets.Widget") -> "ipywidgets.VBox":
    import ipywidgets

    return ipywidgets.VBox(widgets, layout={"align_items": "flex-start"})  # without it, a picture is stretched
