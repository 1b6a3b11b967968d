"""Figures to play with: what a slider is moved to is what is drawn."""

from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from neuronsplit.plots import interactive, neurons, twins

plt.switch_backend("Agg")


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture
def drawn(monkeypatch):
    """The coefficients of all pictures that were drawn, newest last."""
    calls, draw = [], neurons.draw_twin_outputs
    monkeypatch.setattr(interactive, "draw_twin_outputs", lambda *shares: calls.append(shares) or draw(*shares))
    return calls


def test_delta_follows_from_the_sliders_until_it_is_freed(drawn):
    *sliders, follows, picture = interactive.split_sliders(0.7, 1.3, 0.6).children
    alpha, beta, gamma, delta = sliders
    before = bytes(picture.value)
    assert delta.disabled and delta.value == pytest.approx((1 - 0.7 * 0.6) / 1.3) and drawn == [(0.7, 1.3, 0.6, None)]
    alpha.value = 2
    assert delta.value == pytest.approx((1 - 2 * 0.6) / 1.3) and drawn[-1] == (2, 1.3, 0.6, None)
    assert bytes(picture.value).startswith(b"\x89PNG") and picture.value != before
    follows.value = False
    delta.value = 1
    assert not delta.disabled and drawn[-1] == (2, 1.3, 0.6, 1)
    follows.value = True
    assert len(drawn) == 5
    assert delta.value == pytest.approx((1 - 2 * 0.6) / 1.3) and not plt.get_fignums()


@pytest.mark.long
def test_delta_stays_on_its_slider_wherever_the_others_are():
    *sliders, _, _ = interactive.split_sliders(1, 1, 0.5).children
    for alpha, beta, gamma in np.stack(np.meshgrid(*[[s.min, s.max] for s in sliders[:3]]), -1).reshape(-1, 3):
        sliders[0].value, sliders[1].value, sliders[2].value = alpha, beta, gamma
        assert sliders[3].value == pytest.approx((1 - alpha * gamma) / beta)


@pytest.mark.parametrize("delta, product, change", [(None, "1.00", "0.00"), (0.5, "0.50", "1.40"), (0, "0.25", "2.10")])
def test_the_title_says_how_much_the_output_changes(delta, product, change):
    """The largest z is 2.8. With α = β = γ = ½, the twins send (¼ + ½ δ) z."""
    axis = neurons.draw_twin_outputs(0.5, 0.5, 0.5, delta).axes[0]
    assert axis.get_title() == f"αγ + βδ = {product}: the output changes by {change} at most"


def test_a_player_shows_each_figure_and_draws_it_once():
    drawn = []

    def draw(number):
        drawn.append(number)
        return plt.figure(figsize=(1 + number, 1), dpi=50)

    bar, picture = interactive.player(draw, 3, "epoch").children
    button, slider = bar.children
    assert (button.min, button.max, slider.min, slider.max, slider.description) == (0, 3, 0, 3, "epoch")
    for number in (2, 0, 3, 2):
        slider.value = number
        assert Image.open(BytesIO(picture.value)).width == 50 * (1 + number)
    assert drawn == [0, 2, 3] and not plt.get_fignums()


def test_what_is_shown_has_a_text_for_those_without_a_kernel(monkeypatch):
    shown = []
    monkeypatch.setattr(interactive, "display", lambda data, raw: shown.append((data, raw)))
    interactive.show(interactive.split_sliders(1, 1, 0.5), "a figure is below")
    ((data, raw),) = shown
    assert raw and data["text/plain"] == "a figure is below" and "application/vnd.jupyter.widget-view+json" in data


HISTORY = pd.DataFrame({"policy": "random", "seed": 0, "epoch": [1, 2, 3], "hidden": [3, 4, 5],
                        "split_neuron": ["1", "1", "2"], "test_loss": [3.0, 2.0, 1.5]})  # fmt: skip


def test_an_epoch_shows_its_tiles_its_loss_and_the_angles_of_twins_so_far():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(width, 6)) for width in (2, 3, 4, 5)]
    figure = twins.draw_epoch(2, HISTORY, weights, (2, 3))
    tiles, loss, angles = figure.axes
    picture = np.asarray(tiles.images[0].get_array().filled(np.nan))
    np.testing.assert_array_equal(picture[:2, 12:15], weights[2][3].reshape(2, 3))
    assert np.isfinite(picture).sum() == 4 * 6
    assert [to_hex(patch.get_edgecolor()) for patch in tiles.patches] == [neurons.FIRST_TWIN, neurons.SECOND_TWIN]
    assert [round(patch.get_x() / 4) for patch in tiles.patches] == [1, 3]  # neuron 1 was split, and 3 is new
    (losses,), (whole, so_far) = loss.collections[1].get_segments(), (c.get_segments() for c in angles.collections)
    assert losses.tolist() == [[1, 3], [2, 2]] and [len(line) for line in so_far] == [2, 1]
    for line, (neuron, parent) in zip(whole, {2: 1, 3: 1, 4: 2}.items(), strict=True):
        for epoch, angle in line:
            a, b = weights[int(epoch)][[neuron, parent]]
            assert angle == pytest.approx(np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))))
    assert figure.get_suptitle() == "epoch 2 of 3: 4 neurons"


def test_before_training_no_twins_are_framed_and_all_epochs_have_the_same_axes():
    weights = [np.random.default_rng(width).normal(size=(width, 6)) for width in (2, 3, 4, 5)]
    figures = [twins.draw_epoch(epoch, HISTORY, weights, (2, 3)) for epoch in range(4)]
    assert not figures[0].axes[0].patches and len(figures[3].axes[0].patches) == 2
    limits = {tuple((*axis.get_xlim(), *axis.get_ylim()) for axis in figure.axes[1:]) for figure in figures}
    sizes = {figure.axes[0].images[0].get_array().shape for figure in figures}
    assert len(limits) == len(sizes) == 1
