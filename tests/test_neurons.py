"""Pictures of neurons."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from neuronsplit.plots import neurons

plt.switch_backend("Agg")


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, list])
def test_a_weight_animation_has_a_frame_per_epoch(kind, tmp_path):
    weights = [kind(np.random.default_rng(n).normal(size=(n, 64)).astype("float32")) for n in range(3, 8)]
    neurons.weight_animation(weights, (8, 8), tmp_path / "g.gif")
    gif = Image.open(tmp_path / "g.gif")
    assert gif.n_frames == len(weights) and gif.info["loop"] == 0


def test_twin_outputs_have_the_delta_that_keeps_the_sum():
    axis = neurons.draw_twin_outputs(0.7, 1.3, 0.6).axes[0]
    parent, total = axis.lines[0].get_ydata(), axis.lines[3].get_ydata()
    np.testing.assert_allclose(total, parent, atol=1e-12)


def test_weights_stand_in_tiles_by_row():
    weights = np.arange(3 * 6, dtype=float).reshape(3, 6)
    axis, _ = neurons.weight_images([torch.tensor(weights)], ["mine"], (2, 3), columns=2).axes
    picture = axis.images[0].get_array().filled(np.nan)
    assert picture.shape == (2 * 3, 2 * 4) and axis.get_title(loc="left") == "mine"
    np.testing.assert_array_equal(picture[:2, :3], weights[0].reshape(2, 3))
    np.testing.assert_array_equal(picture[:2, 4:7], weights[1].reshape(2, 3))
    np.testing.assert_array_equal(picture[3:5, :3], weights[2].reshape(2, 3))
    assert np.isnan(picture).sum() == picture.size - weights.size


def test_images_stand_in_a_grid_and_wrong_answers_are_red():
    images = np.linspace(-0.5, 0.5, 3 * 6).reshape(3, 6)
    figure = neurons.image_grid(torch.tensor(images), (2, 3), ["a", "b", "c"], [True, False, True], columns=2)
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c", ""]
    assert [axis.title.get_color() for axis in figure.axes[:3]] == ["black", "#b2182b", "black"]
    np.testing.assert_allclose(figure.axes[2].images[0].get_array(), images[2].reshape(2, 3))


def test_signals_are_drawn_as_curves_and_their_weights_as_strips(tmp_path):
    signals = np.random.default_rng(0).normal(size=(3, 40))
    figure = neurons.image_grid(torch.tensor(signals), (1, 40), ["a", "b", "c"], [True, False, True], columns=2)
    curves = [axis.lines[0].get_ydata() for axis in figure.axes[:3]]
    np.testing.assert_array_equal(curves, signals)
    axis, _ = neurons.weight_images([signals], ["mine"], (1, 40)).axes
    assert axis.images[0].get_array().shape == (2, 41 * 10) and axis.get_aspect() == "auto"
    neurons.weight_animation([signals[:2], signals], (1, 40), tmp_path / "g.gif")
    assert Image.open(tmp_path / "g.gif").n_frames == 2


def test_a_figure_becomes_a_png_and_is_closed():
    assert neurons.to_png(neurons.draw_split()).startswith(b"\x89PNG")
    assert not plt.get_fignums()
