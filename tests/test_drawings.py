import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from neuronsplit import drawings

plt.switch_backend("Agg")


def test_growth_gif_has_a_frame_an_epoch(tmp_path):
    weights = [torch.randn(n, 64, generator=torch.Generator().manual_seed(n)) for n in range(3, 8)]
    drawings.growth_gif(weights, (8, 8), tmp_path / "g.gif")
    gif = Image.open(tmp_path / "g.gif")
    assert gif.n_frames == len(weights) and gif.info["loop"] == 0


def test_a_twin_is_drawn_with_the_delta_that_keeps_the_sum():
    axis = drawings.twins(0.7, 1.3, 0.6).axes[0]
    parent, total = axis.lines[0].get_ydata(), axis.lines[3].get_ydata()
    np.testing.assert_allclose(total, parent, atol=1e-12)
