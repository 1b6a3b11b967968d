import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from neuronsplit import compare, plots
from neuronsplit.data import load_dataset
from neuronsplit.growth import GROWTHS
from neuronsplit.parting import against_theory, follow_twins
from neuronsplit.policies import POLICIES
from neuronsplit.study import CONTROLS, Experiment, policy_names, run_experiment
from neuronsplit.training import SCHEDULES

plt.switch_backend("Agg")


@pytest.fixture(scope="module")
def table():
    parts = [run_experiment(Experiment(p, width=3, splits=3, still=2, repeats=3)) for p in policy_names()]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_everything_compared_has_its_colour_and_no_two_of_a_kind_share_one():
    kinds = list(policy_names()), list(GROWTHS), list(SCHEDULES)
    assert list(plots.COLOURS) == sum(kinds, [])
    for names in kinds:
        assert len({plots.COLOURS[name] for name in names}) == len(names)
    assert plots.colour("random · fresh · 0.1") == plots.COLOURS["fresh"]
    assert plots.colour("mine") == "black"


def test_together_draws_the_mean_of_every_policy_in_its_colour(table):
    figure = plots.together(table, ["test_loss", "test_accuracy"])
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    for policy in policy_names():
        expected = table[table.policy == policy].groupby("epoch").test_accuracy.mean()
        np.testing.assert_allclose(lines[policy].get_ydata(), expected)
        assert to_hex(lines[policy].get_color()) == plots.COLOURS[policy]


def test_apart_draws_every_repeat(table):
    figure = plots.apart(table, ["train_loss"])
    panels = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    assert list(panels) == list(policy_names())
    rows = table[(table.policy == "min-loss") & (table.seed == 2)]
    np.testing.assert_allclose(panels["min-loss"].lines[2].get_ydata(), rows.train_loss)


def test_gaps_are_paired_within_a_repeat(table):
    figure = plots.gaps(table, ["test_loss"], "random")
    line = next(line for line in figure.axes[0].lines if line.get_label() == "max-fire")
    wide = table.pivot(index=["epoch", "seed"], columns="policy", values="test_loss")
    expected = (wide["max-fire"] - wide["random"]).groupby("epoch").mean()
    np.testing.assert_allclose(line.get_ydata(), expected, atol=1e-12)


def test_final_points_are_the_final_values(table):
    figure = plots.final_points(table, ["test_accuracy"])
    points = np.concatenate([c.get_offsets()[:, 1] for c in figure.axes[0].collections[: len(policy_names())]])
    assert sorted(points) == sorted(compare.final(table).test_accuracy)


def test_differences_draw_their_intervals(table):
    figure = plots.differences({"gap": compare.paired(table, "test_loss", "no-split")})
    found = compare.intervals(compare.paired(table, "test_loss", "no-split"))
    drawn = [line.get_xdata() for line in figure.axes[0].lines if len(line.get_xdata()) == 2][1:]
    np.testing.assert_allclose(drawn, found[["low", "high"]])


def test_family_trees_have_a_line_a_neuron_and_none_crosses_another(table):
    figure = plots.family_trees(table, seed=1)
    assert len([axis for axis in figure.axes if axis.get_title()]) == len(policy_names()) - len(CONTROLS)
    for policy in POLICIES:
        tree = compare.lineage(table[(table.policy == policy) & (table.seed == 1)])
        order = plots._branches(tree)
        assert sorted(order) == list(tree.index)
        place = {neuron: y for y, neuron in enumerate(order)}
        for neuron, row in tree[tree.born > 0].iterrows():  # between a child and its parent: only younger ones
            between = order[place[row.parent] + 1 : place[neuron]]
            assert all(tree.born[other] > row.born for other in between)


def test_a_table_without_any_split_is_drawn(table):
    still = table[table.policy == "no-split"]
    assert len(plots.family_trees(still, seed=0).axes) == 1


def test_a_diverged_table_is_drawn(table):
    broken = table.assign(test_loss=np.inf, train_loss=np.nan)
    plots.together(broken, ["test_loss", "train_loss"]).canvas.draw()
    plots.apart(broken, ["test_loss"]).canvas.draw()
    plots.differences({"gap": compare.paired(broken, "test_loss", "no-split")}).canvas.draw()


def test_growth_is_drawn_at_what_it_cost(table):
    figure = plots.against_cost(
        table[table.policy.isin(["no-split", "stay-narrow", "random"])], "test_loss", "no-split"
    )
    axis = figure.axes[0]
    control, narrow = axis.lines[:2]
    assert control.get_xdata()[-1] == 1 and narrow.get_xdata()[-1] == pytest.approx(3 / 6)
    rows = table[(table.policy == "random") & (table.epoch == 5)]
    (point,) = (line for line in axis.lines if len(line.get_xdata()) == 1)
    assert point.get_xdata()[0] == pytest.approx((3 + 4 + 5 + 6 + 6) / 30)
    assert point.get_ydata()[0] == pytest.approx(rows.test_loss.mean())


def test_a_replay_is_drawn_on_the_published_ranges(table):
    points = compare.final(table).assign(column=lambda rows: rows.policy)
    published = pd.DataFrame(
        {"low": 0.2, "high": 0.5}, index=pd.MultiIndex.from_product([policy_names(), ["test_loss"]])
    )
    axis = plots.beside_published(points, published, {"test_loss": "loss"}).axes[0]
    assert [(bar.get_y(), bar.get_height()) for bar in axis.patches] == [(0.2, pytest.approx(0.3))] * len(
        policy_names()
    )
    drawn = np.concatenate([c.get_offsets()[:, 1] for c in axis.collections])
    assert sorted(drawn) == sorted(points.test_loss)
    figure = plots.mended({"a": points, "b": points, "c": points}, "test_loss", "loss")
    assert len(figure.axes) == 4


def test_twins_are_drawn_as_medians():
    rows = pd.concat(follow_twins(load_dataset("digits"), ["scaled", "even"], "sgd", 0.05, 3, 1, 2, [0, 1]))
    axis = plots.parting(rows, "angle", "angle").axes[0]
    expected = rows[rows.rule == "scaled"].groupby("epoch").angle.median()
    np.testing.assert_allclose(axis.lines[0].get_ydata(), expected)
    assert axis.get_ylim()[0] == 0 and axis.get_ylim()[1] > expected.max()


def test_the_theory_is_a_line_through_the_measured_angles():
    rows = against_theory(load_dataset("digits"), 0.05, 4, 1, [1, 3], [0, 1])
    first, _, _ = plots.against_theory(rows).axes
    drawn = first.collections[0].get_offsets()
    np.testing.assert_allclose(drawn, rows[rows.steps == 1][["predicted", "measured"]])
    np.testing.assert_allclose(drawn[:, 0], drawn[:, 1], rtol=1e-2, atol=1e-4)  # exact, but for float32
    np.testing.assert_allclose(first.lines[0].get_xdata(), first.lines[0].get_ydata())


def test_trees_are_coloured_by_angle():
    tree = pd.DataFrame({"founder": [0, 1, 0], "parent": [0, 1, 0], "born": [0, 0, 2], "angle": [np.nan, np.nan, 20.0]})
    axis = plots.parted_trees({"mine": tree}, 5).axes[0]
    assert [to_hex(line.get_color()) for line in axis.lines[::2]] == [to_hex("0.6"), to_hex("0.6"), "#fde725"]


def test_the_share_of_frozen_draws_is_shaded():
    axis = plots.kappas(np.array([1.0, 0.5, 2.0])).axes[0]
    assert axis.lines[0].get_xdata()[0] == 2  # the median of 1, 2, 2


def test_a_family_tree_has_a_line_for_every_neuron_also_for_those_without_a_parent():
    table = run_experiment(Experiment(rule="fresh", width=3, splits=2, still=1, repeats=1))
    figure = plots.family_trees(table, seed=0)
    heights = {line.get_ydata()[0] for line in figure.axes[0].lines if line.get_ydata()[0] == line.get_ydata()[1]}
    assert len(heights) == 5


def test_intervals_are_drawn_a_row_each_from_above():
    found = pd.DataFrame({"mean": [1.0, 2.0], "low": [0.5, 1.0], "high": [2.0, 2.5]}, index=["first", "second"])
    _, axis = plt.subplots()
    plots.draw_intervals(axis, found)
    (bars,) = axis.collections
    assert [bar[:, 0].tolist() for bar in bars.get_segments()] == [[0.5, 2.0], [1.0, 2.5]]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["first", "second"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]
