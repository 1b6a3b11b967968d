"""Family trees of neurons."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from synthetic import study_table

from neuronsplit.analysis.tables import lineage
from neuronsplit.names import CONTROLS
from neuronsplit.plots import families, style

plt.switch_backend("Agg")
POLICIES = [name for name in list(style.COLORS)[:16] if name not in CONTROLS]


@pytest.fixture(scope="module")
def table():
    return study_table([*CONTROLS, *POLICIES], width=4, splits=12, epochs=14)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def horizontal(axis):
    """The lines of neurons in one panel, from the left: (height, colour)."""
    lines = [line for line in axis.lines if line.get_ydata()[0] == line.get_ydata()[1]]
    return {float(line.get_ydata()[0]): to_hex(line.get_color()) for line in lines}


def test_family_trees_have_a_panel_per_policy_and_a_line_per_neuron(table):
    figure = families.family_trees(table, seed=1)
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title().split(":")[0] for axis in panels] == POLICIES
    assert all(len(horizontal(axis)) == 16 for axis in panels)
    assert panels[0].get_ylabel() == "neurons, by family"


def test_titles_of_family_trees_do_not_overlap():
    """Names of several parts are long."""
    names = [
        f"min-eigenvalue · {growth} · every-epoch" for growth in ("steepest-descent", "scaled-outgoing", "net2net")
    ]
    figure = families.family_trees(study_table(names), seed=0)
    figure.canvas.draw()
    boxes = [axis.title.get_window_extent() for axis in figure.axes if axis.axison]
    assert len(boxes) == 3
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes)) and boxes[-1].x1 <= figure.bbox.x1


def test_no_line_of_a_family_tree_crosses_another(table):
    for policy in POLICIES:
        tree = lineage(table[(table.policy == policy) & (table.seed == 1)])
        order = families.drawing_order(tree)
        assert sorted(order) == list(tree.index)
        height = {neuron: y for y, neuron in enumerate(order)}
        for neuron, row in tree[tree.born > 0].iterrows():  # between a child and its parent: only younger ones
            between = order[height[row.parent] + 1 : height[neuron]]
            assert all(tree.born[other] > row.born for other in between)


def test_a_family_has_one_shade_that_no_other_has(table):
    axis = families.family_trees(table, seed=1).axes[0]
    tree = lineage(table[(table.policy == POLICIES[0]) & (table.seed == 1)])
    shades = horizontal(axis)
    founder_at = {float(y): tree.founder[neuron] for y, neuron in enumerate(families.drawing_order(tree))}
    pairs = {(founder_at[y], shade) for y, shade in shades.items()}
    assert len(pairs) == len({founder for founder, _ in pairs}) == len({shade for _, shade in pairs}) == 4


@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
def test_shades_of_families_look_like_no_policy_and_neighbours_differ(count):
    shades = [np.array(shade[:3]) for shade in families.founder_shades(count)]
    assert len({to_hex(shade) for shade in shades}) == count
    for shade in shades:  # grey-blue: hardly any colour, while policies have either much or none
        assert shade.max() - shade.min() < 0.2 and shade[2] > shade.max() - 1e-3
        assert min(np.linalg.norm(shade - to_rgb(color)) for color in style.COLORS.values()) > 0.04
    for a, b in itertools.pairwise(shades):
        assert abs(a.mean() - b.mean()) > 0.15


def test_a_table_without_any_split_is_drawn(table):
    assert len(families.family_trees(table[table.policy == "no-split"], seed=0).axes) == 1


def test_neurons_without_a_parent_have_lines_too():
    table = study_table(["random"], growth="zero-outgoing", splits=2, epochs=3, n_seeds=1)
    assert len(horizontal(families.family_trees(table, seed=0).axes[0])) == 5


def test_trees_are_coloured_by_angle():
    tree = pd.DataFrame({"founder": [0, 1, 0], "parent": [0, 1, 0], "born": [0, 0, 2], "angle": [np.nan, np.nan, 20.0]})
    axis = families.family_trees_by_angle({"mine": tree}, 5).axes[0]
    assert [to_hex(line.get_color()) for line in axis.lines[::2]] == [to_hex("0.6"), to_hex("0.6"), "#fde725"]
    assert axis.get_ylabel() == "neurons, by family"
