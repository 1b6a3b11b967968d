"""Figures show what their tables hold: curves, comparisons, the replay and twins."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from synthetic import all_splits_table, study_table

from neuronsplit.analysis import cost, oracle, stats, tables
from neuronsplit.plots import comparisons, curves, inline, labels, replay, search, style, tested, twins
from neuronsplit.surgery.split_neuron import split_neuron

plt.switch_backend("Agg")
POLICIES = list(style.COLORS)[:16]


@pytest.fixture(scope="module")
def table():
    return study_table(POLICIES)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def text_of(figure):
    return figure._suptitle.get_text().replace("\n", " ")


def labelled_lines(axis):
    return {line.get_label(): line for line in axis.lines}


def test_mean_curves_are_means_in_the_colors_of_their_policies(table):
    figure = curves.mean_curves(table, ["test_loss", "test_accuracy"])
    lines = labelled_lines(figure.axes[1])
    for policy in POLICIES:
        expected = table[table.policy == policy].groupby("epoch").test_accuracy.mean()
        np.testing.assert_allclose(lines[policy].get_ydata(), expected)
        assert to_hex(lines[policy].get_color()) == style.COLORS[policy]
    assert text_of(figure).startswith("mean of n = 3 seeds")


@pytest.mark.parametrize(("first", "is_shown"), [(2.0, True), (50.0, False), (np.inf, False)])
def test_first_epochs_are_left_out_only_where_they_would_flatten_the_rest(first, is_shown):
    losses = [first, *np.linspace(1.9, 0.3, 19)]
    table = pd.DataFrame({"policy": "random", "seed": 0, "epoch": range(1, 21), "test_loss": losses})
    low, high = curves.mean_curves(table, ["test_loss"]).axes[0].get_ylim()
    assert (high > first) == is_shown and low < 0.3 and (is_shown or high < 2.1)


def test_curves_per_policy_draw_every_seed(table):
    figure = curves.curves_per_policy(table, ["train_loss"])
    panels = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    assert list(panels) == POLICIES
    rows = table[(table.policy == "min-loss") & (table.seed == 2)]
    np.testing.assert_allclose(panels["min-loss"].lines[2].get_ydata(), rows.train_loss)
    assert "dashed" not in text_of(figure)
    axis = curves.curves_per_policy(table, ["train_loss"], "no-split").axes[3]
    expected = table[table.policy == "no-split"].groupby("epoch").train_loss.mean()
    (dashed,) = (line for line in axis.lines if line.get_linestyle() == "--")
    np.testing.assert_allclose(dashed.get_ydata(), expected)


def test_figures_say_how_many_seeds_each_policy_has_and_only_what_is_there(table):
    uneven = table[(table.policy != "random") | (table.seed < 2)]
    assert text_of(curves.mean_curves(uneven, ["test_loss"])) == "mean of n = 2 to 3 seeds; dotted: the last split"
    without = table.drop(columns="split_neuron")
    assert text_of(curves.mean_curves(without, ["test_loss"])) == "mean of n = 3 seeds"
    shorter = uneven[(uneven.policy != "random") | (uneven.epoch < 5)]
    assert text_of(comparisons.final_values(shorter, ["test_loss"])).startswith("each after its last epoch; a point")


def test_lines_of_one_colour_can_be_told_apart():
    labels = [f"random · {growth} · every-epoch" for growth in ("scaled", "even", "outgoing", "gradmax")]
    looks = style.line_styles([*labels, "no-split"])
    assert {look["color"] for name, look in looks.items() if name != "no-split"} == {style.color_of(labels[0])}
    assert len({look["ls"] for name, look in looks.items() if name != "no-split"}) == 4
    sweep = style.line_styles([f"no-split · {rate}" for rate in range(1, 41)])
    assert len({(to_hex(look["color"]), look["ls"]) for look in sweep.values()}) == 40


def test_difference_curves_are_paired_within_a_seed(table):
    figure = curves.difference_curves(table, ["test_loss"], "random")
    values = table.pivot(index=["epoch", "seed"], columns="policy", values="test_loss")
    expected = (values["max-fire"] - values["random"]).groupby("epoch").mean()
    np.testing.assert_allclose(labelled_lines(figure.axes[0])["max-fire"].get_ydata(), expected, atol=1e-12)


def test_the_loss_is_drawn_around_the_split():
    losses = pd.DataFrame({"not split": np.arange(1, 41.0), "split": np.arange(2, 42.0)})
    lines = labelled_lines(curves.loss_around_split(losses, step=20, window=5).axes[0])
    assert lines["split"].get_xdata().tolist() == list(range(-5, 5))
    assert lines["split"].get_ydata().tolist() == losses["split"][15:25].tolist()


def test_final_values_are_those_of_the_last_epoch(table):
    figure = comparisons.final_values(table, ["test_accuracy"])
    points = np.concatenate([c.get_offsets()[:, 1] for c in figure.axes[0].collections[: len(POLICIES)]])
    assert sorted(points) == sorted(tables.last_epoch(table).test_accuracy)


def test_paired_differences_draw_their_intervals(table):
    differences = tables.paired_differences(table, "test_loss", "no-split")
    figure = comparisons.paired_differences({"difference": differences}, "final test loss")
    drawn = [line.get_xdata() for line in figure.axes[0].lines if len(line.get_xdata()) == 2][1:]
    np.testing.assert_allclose(drawn, stats.intervals(differences)[["low", "high"]])
    assert text_of(figure).startswith("final test loss: mean of n = 3 seeds and its 95 % interval (Student's t)")


def test_the_title_of_a_single_panel_is_not_cut(table):
    differences = tables.paired_differences(table, "test_loss", "no-split")[["random"]]
    figure = comparisons.paired_differences({"final test loss − that of no-split": differences}, "a longer title " * 4)
    figure.canvas.draw()
    box = figure._suptitle.get_window_extent()
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    "policies", [["random"], ["a policy whose name is rather long · steepest-descent · all-at-1", "b"]]
)
def test_no_text_of_a_single_panel_is_cut(table, policies):
    differences = pd.DataFrame(np.random.default_rng(0).normal(size=(10, len(policies))), columns=policies)
    figure = comparisons.paired_differences({"final test accuracy − that of random · scaled": differences})
    figure.canvas.draw()
    axis = figure.axes[0]
    for text in (axis.xaxis.label, figure._suptitle, *axis.get_yticklabels()):
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
    assert axis.get_window_extent().width > 0.3 * figure.bbox.width


def test_intervals_are_drawn_a_row_each_from_above():
    intervals = pd.DataFrame({"mean": [1.0, 2.0], "low": [0.5, 1.0], "high": [2.0, 2.5]}, index=["first", "second"])
    _, axis = plt.subplots()
    comparisons.draw_intervals(axis, intervals)
    (bars,) = axis.collections
    assert [bar[:, 0].tolist() for bar in bars.get_segments()] == [[0.5, 2.0], [1.0, 2.5]]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["first", "second"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]


def test_final_values_stand_at_their_cost(table):
    shown = table[table.policy.isin(["no-split", "stay-narrow", "random"])]
    figure = comparisons.final_vs_cost(shown, "test_loss", "no-split")
    axis = figure.axes[0]
    control, narrow = axis.lines[:2]
    assert control.get_xdata()[-1] == 1 and narrow.get_xdata()[-1] == pytest.approx(3 / 6)
    rows = table[(table.policy == "random") & (table.epoch == 5)]
    (point,) = (line for line in axis.lines if len(line.get_xdata()) == 1)
    assert point.get_xdata()[0] == pytest.approx((3 + 4 + 5 + 6 + 6) / 30)
    assert point.get_ydata()[0] == pytest.approx(rows.test_loss.mean())
    drawn_at = point.get_transform().transform(point.get_xydata())[0, 0]  # in pixels
    assert drawn_at != axis.transData.transform(point.get_xydata())[0, 0]  # beside others of the same cost
    assert "drawn slightly left or right of its cost; lines: controls" in text_of(figure)
    assert "95 % interval (Student's t)" in text_of(figure)


def test_gains_of_neurons_are_points_of_both_shuffles():
    gains = oracle.neuron_gains(all_splits_table(widths=(4, 7)).query("horizon == 10"))
    gains["setting"] = oracle.setting_labels(gains)
    figure = comparisons.neuron_gains(gains)
    for axis, width in zip(figure.axes, (4, 7)):
        rows = gains[gains.width == width]
        expected = 1000 * rows[["gain_shuffle_0", "gain_shuffle_1"]]
        np.testing.assert_allclose(axis.collections[0].get_offsets(), expected)
        assert f"width {width}" in axis.get_title()
    assert text_of(figure).endswith("n = 2 seeds")


def test_a_cost_above_that_of_the_baseline_is_within_the_axis(table):
    shown = table[table.policy.isin(["random", "max-loss"])].assign(schedule="every-epoch")
    shown.loc[shown.policy == "max-loss", "hidden"] *= 3
    figure = comparisons.final_vs_cost(shown, "test_loss", "random")
    points = [line.get_xdata()[0] for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert max(points) > 2 and max(points) < figure.axes[0].get_xlim()[1]
    assert "controls" not in text_of(figure)
    labels = comparisons.final_vs_cost(shown.drop(columns=["growth", "schedule"]), "test_loss", "random")
    assert len(labels.axes[0].lines) == len(figure.axes[0].lines)  # a table of one's own may lack these columns


def test_differences_at_equal_cost_are_means_over_the_seeds(table):
    shown = table[table.policy.isin(["no-split", "random"])]
    figure = comparisons.difference_at_equal_cost({"mine": shown}, "test_loss", "no-split")
    rows = cost.difference_at_equal_cost(shown, "test_loss", "no-split").dropna(subset="difference")
    line = labelled_lines(figure.axes[0])["random"]
    np.testing.assert_allclose(line.get_ydata(), rows.groupby("epoch").difference.mean())
    np.testing.assert_allclose(line.get_xdata(), rows.groupby("epoch").cost.mean())


def test_names_that_no_registry_knew_are_drawn_in_colors_of_their_own():
    """Policies, growths and many schedules of a user's own have colours and markers."""
    control = study_table(["no-split"])
    own = [study_table([p], growth=g, schedule=f"{s}") for p, g, s in zip("abcdefgh", "ijklmnop", range(8))]
    table = pd.concat([control, *own], ignore_index=True)
    labels = tables.with_labels(table)
    axis = comparisons.final_vs_cost(table, "test_loss", "no-split").axes[0]
    points = [line for line in axis.lines if len(line.get_xdata()) == 1]
    assert len({to_hex(line.get_color()) for line in points}) == 8
    lines = labelled_lines(curves.mean_curves(labels, ["test_loss"]).axes[0])
    assert len({to_hex(lines[label].get_color()) for label in labels.policy.unique()}) == 9
    policies = table.assign(growth="scaled", schedule="every-epoch")  # where policies alone differ, they have colours
    axis = comparisons.final_vs_cost(policies, "test_loss", "no-split").axes[0]
    points = [line for line in axis.lines if len(line.get_xdata()) == 1]
    assert {to_hex(line.get_color()) for line in points} == {style.color_of(policy) for policy in "abcdefgh"}


@pytest.mark.parametrize("seeds", [0, 3])
def test_a_diverged_table_and_a_single_seed_are_drawn(table, seeds):
    """With seeds == 0 only the first seed is left, which has no interval."""
    broken = table[table.seed == 0] if seeds == 0 else table.assign(test_loss=np.inf, train_loss=np.nan)
    curves.mean_curves(broken, ["test_loss", "train_loss"]).canvas.draw()
    curves.curves_per_policy(broken, ["test_loss"]).canvas.draw()
    differences = {"difference": tables.paired_differences(broken, "test_loss", "no-split")}
    comparisons.paired_differences(differences).canvas.draw()
    comparisons.final_vs_cost(broken, "test_loss", "no-split").canvas.draw()


def test_a_replay_is_drawn_on_the_published_ranges(table):
    points = tables.last_epoch(table).assign(column=lambda rows: rows.policy)
    index = pd.MultiIndex.from_product([POLICIES, ["test_loss"]])
    published = pd.DataFrame({"low": 0.2, "high": 0.5}, index=index)
    axis = replay.compare_with_published(points, published, {"test_loss": "loss"}).axes[0]
    assert [(bar.get_y(), bar.get_height()) for bar in axis.patches] == [(0.2, pytest.approx(0.3))] * len(POLICIES)
    drawn = np.concatenate([c.get_offsets()[:, 1] for c in axis.collections])
    assert sorted(drawn) == sorted(points.test_loss)
    figure = replay.before_and_after_fix({"a": points, "b": points, "c": points}, "test_loss", "loss")
    assert [axis.get_title(loc="left") for axis in figure.axes if axis.axison] == ["a", "b", "c"]


def test_twins_are_drawn_as_medians():
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product(
        [["none", "scaled", "mine"], ["sgd", "adam"], range(3), range(4), range(5)],
        names=["growth", "optimizer", "epoch", "seed", "pair"],
    )
    rows = pd.DataFrame({"angle": rng.uniform(0, 90, len(index))}, index).reset_index()
    figure = twins.twin_metric(rows, "angle", "angle")
    axis = figure.axes[0]
    expected = rows[(rows.growth == "scaled") & (rows.optimizer == "sgd")].groupby("epoch").angle.median()
    np.testing.assert_allclose(labelled_lines(axis)["scaled"].get_ydata(), expected)
    assert axis.get_ylim()[0] == 0 and axis.get_ylim()[1] > expected.max()
    assert to_hex(labelled_lines(axis)["mine"].get_color()) == style.color_of("mine")
    assert text_of(figure).startswith("median of n = 20 pairs of 4 seeds")


def test_predicted_angles_stand_against_measured_ones():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"steps": [1, 3] * 50, "predicted": rng.uniform(1, 9, 100), "kappa": rng.uniform(0.5, 2, 100)})
    rows["measured"] = rows.predicted * rng.uniform(0.9, 1.1, 100)
    first, second, _ = twins.predicted_vs_measured_angles(rows).axes
    for axis, steps in ((first, 1), (second, 3)):
        drawn = axis.collections[0].get_offsets()
        np.testing.assert_allclose(drawn, rows[rows.steps == steps][["predicted", "measured"]])
        np.testing.assert_allclose(axis.lines[0].get_xdata(), axis.lines[0].get_ydata())


def test_the_share_of_frozen_draws_is_shaded():
    axis = twins.kappa_histogram(np.array([1.0, 0.5, 2.0])).axes[0]
    assert axis.lines[0].get_xdata()[0] == 2  # the median of 1, 2, 2


def test_the_labels_of_three_operations_are_drawn_with_twins_in_frames():
    figure = labels.draw_labels()
    (axis,) = figure.axes
    after = [label for _, *both in labels.ROWS for tensor in both for row in tensor for label in row]
    assert [text.get_text().replace("−", "-") for text in axis.texts if text.get_text()] == [str(x) for x in after]
    framed = [patch for patch in axis.patches if to_hex(patch.get_edgecolor()) == "#000000"]
    assert {round(patch.get_x()) >= 4 for patch in framed} == {True} and len(framed) == 2 * (3 + 1 + 1 + 1)
    assert all(name.split(":")[0].replace("\n", " ") in inline.describe(figure) for name, *_ in labels.ROWS)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in (figure._suptitle, *axis.get_yticklabels(), *axis.get_xticklabels())]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_the_shapes_in_the_figure_of_labels_are_those_of_a_split():
    net = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False), torch.nn.ReLU(), torch.nn.Linear(2, 1, bias=False))
    record = split_neuron(net, "0", 1, example_inputs=torch.randn(5, 3))
    _, a, _, _, b, _ = labels.ROWS
    assert record.shapes == {
        name: tuple(list(np.shape(tensor)) for tensor in row[1:]) for name, row in (("0.weight", a), ("2.weight", b))
    }


def test_a_tested_family_shows_means_intervals_verdicts_and_what_is_too_small_to_be_seen():
    rng = np.random.default_rng(0)
    both = pd.DataFrame({"same": rng.normal(0, 1, 8), "lower": rng.normal(-3, 0.5, 8), "higher": rng.normal(3, 0.5, 8)})
    panels = {
        "digits": stats.paired_tests(both, "test_loss"),
        "mnist-1d": stats.paired_tests(both[["lower"]], "test_loss"),
    }
    figure = tested.family(panels, "test_loss")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["same", "lower", "higher"]
    for axis, tests in zip(figure.axes, panels.values()):
        _, *drawn = axis.lines
        for (_, row), interval, mean in zip(tests.iterrows(), drawn[::2], drawn[1::2]):
            assert interval.get_xdata() == pytest.approx([row["low"], row["high"]])
            assert mean.get_xdata() == pytest.approx([row["mean"]])
        (band,) = axis.patches
        assert band.get_width() == pytest.approx(2 * tests["minimum_detectable_effect"].median())
    colors = [mean.get_color() for mean in figure.axes[0].lines[2::2]]
    assert colors == [tested.NOT_ESTABLISHED, tested.COLORS["better"], tested.COLORS["worse"]]
    assert text_of(figure).startswith("mean of n = 8 seeds")


def test_arms_are_drawn_at_their_cost_and_named_ones_with_their_interval():
    columns = {"n": 20, "mean": [0.0, 0.02, 0.01, -0.3], "low": [0.0, 0.01, 0.0, -0.4], "high": [0.0, 0.03, 0.02, -0.2],
               "cost": [1.0, 0.8, 0.99, 1.5]}  # fmt: skip
    arms = pd.DataFrame(columns, index=["no-split", "random", "all-at-1", "no-split of any width"])
    figure = tested.against_cost({"one": arms, "other": arms}, "test_loss", ["random", "missing"])
    for axis in figure.axes:
        assert [text.get_text() for text in axis.texts] == ["random"]
        points = [
            tuple(line.get_xydata()[0]) for line in axis.lines if line.get_marker() == "o" and len(line.get_xydata())
        ]
        assert points == [(0.99, 0.01), (0.8, 0.02)]  # neither the control nor one of another width
        (interval,) = [
            line for line in axis.lines if line.get_color() == style.color_of("random") and line.get_marker() != "o"
        ]
        assert interval.get_ydata().tolist() == [0.01, 0.03]
    assert "n = 20" in figure.get_suptitle()


def test_a_search_is_drawn_with_a_row_per_rung_and_a_point_per_candidate():
    rows = [{"role": role, "stage": stage, "candidate": n, "seed": seed, "val_loss": 0.1 * (n + seed)}
            for role in ("growth", "control") for stage, left in (("3 left", 3), ("1 left", 1), ("compared", 1))
            for n in range(left) for seed in range(2)]  # fmt: skip
    rows, last = pd.DataFrame(rows), [row for row in rows if row["stage"] == "1 left"]
    figure = search.rungs({"digits": rows, "mnist-1d": pd.DataFrame(last)}, "val_loss")
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["1 left"]
    (axis,) = figure.axes[:1]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["3 left", "1 left"]
    points = [line.get_xdata().round(3).tolist() for line in axis.lines]
    assert points == [[0.05, 0.15, 0.25], [0.05]] * 2  # means over seeds, growth first


def test_shares_of_variance_are_ordered_by_the_first_panel():
    shares = pd.DataFrame({"share": [0.1, 0.5], "low": [0.0, 0.4], "high": [0.2, 0.6]}, index=["which", "rate"])
    figure = search.shares({"digits": shares, "mnist-1d": shares})
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["rate", "which"]
    assert [bar.get_width() for bar in figure.axes[1].patches] == [0.5, 0.1]
