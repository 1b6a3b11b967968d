"""Sentences and figures about tested families say what their tests hold."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from neuronsplit.analysis import family_sentences
from neuronsplit.plots import tested

plt.switch_backend("Agg")
ROWS = [  # family, arm, mean, verdict, tuned_alike
    ("which", "max-loss", -0.02, "better", True), ("which", "min-loss", 0.03, "worse", False),
    ("which", "max-fire", 0.01, "no difference found", True), ("how", "even", 0.04, "worse", True),
    ("how", "gradmax", 0.05, "worse", True), ("when", "all-at-1", 0.001, "no difference found", False),
]  # fmt: skip


@pytest.fixture
def tests():
    rows = pd.DataFrame(ROWS, columns=["family", "arm", "mean", "verdict", "tuned_alike"])
    rows = rows.assign(low=rows["mean"] - 0.01, high=rows["mean"] + 0.02, n=20)
    rows["minimum_detectable_effect"] = [0.01, 0.02, 0.04, 0.01, 0.01, 0.01]
    return {"digits": rows.set_index(["family", "arm"])}


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_what_is_established_is_said_arm_by_arm(tests):
    assert family_sentences.established(tests, "which").splitlines() == [
        "- **digits**: of 3 arms, 1 is better: the arm `max-loss`.",
        "- **digits**: of 3 arms, 1 is worse: the arm `min-loss`.",
    ]
    expected = "- **digits**: of 2 arms, 2 are worse: the arms `even` and `gradmax`."
    assert family_sentences.established(tests, "how") == expected
    nothing = "- **digits**: of 1 arm, none is established as better or worse."
    assert family_sentences.established(tests, "when") == nothing
    few = {name: rows.assign(verdict="too few seeds") for name, rows in tests.items()}
    assert family_sentences.established(few, "when") == f"{nothing} There are too few seeds."


def test_the_headline_names_arms_and_data_sets(tests):
    both = tests | {"mnist-1d": tests["digits"].loc[["how"]]}
    assert family_sentences.headline(both, "how", "growth", "`scaled`") == (
        "**No growth is established as better than `scaled`**, on 2 data sets. "
        "Worse: `even` on digits and mnist-1d and `gradmax` on digits and mnist-1d."
    )
    assert family_sentences.headline(both, "which", "policy", "a random choice") == (
        "**Better than a random choice: `max-loss` on digits.** Worse: `min-loss` on digits."
    )
    nothing = "**No schedule is established as better than waiting**, on 1 data set. None is worse."
    assert family_sentences.headline(both, "when", "schedule", "waiting") == nothing


def test_a_data_set_without_the_family_is_left_out(tests):
    both = tests | {"mnist-1d": tests["digits"].loc[["how"]]}
    assert list(family_sentences.of_family(both, "which")) == ["digits"]
    assert list(family_sentences.of_family(both, "how")) == ["digits", "mnist-1d"]
    assert family_sentences.established(tests, "state") == ""


def test_the_smallest_visible_effect_is_that_of_the_median_arm(tests):
    expected = "- **digits**: 0.020 for the median arm, 0.010 to 0.040 over all arms."
    assert family_sentences.visible(tests, "which") == expected


def test_arms_with_the_settings_of_their_baseline_are_counted_apart(tests):
    assert family_sentences.tuned(tests, "which") == (
        "- **digits**: 2 of 3 arms have the settings of the baseline. With the same settings, 1 is better; differences "
        "are −0.020 to +0.010. With other settings, 1 is worse; differences are +0.030."
    )
    assert family_sentences.tuned(tests, "how").count(".") == 2 + 2  # two sentences, and two numbers
    assert "With the same settings, 2 are worse; differences are +0.040 to +0.050." in family_sentences.tuned(
        tests, "how"
    )
    assert "With other settings, none is established" in family_sentences.tuned(tests, "when")


def test_an_arm_with_other_settings_is_hollow(tests):
    figure = tested.family({"digits": tests["digits"].loc["which"]}, "test_loss")
    points = figure.axes[0].lines[2::2]
    assert [to_hex(point.get_markerfacecolor()) == "#ffffff" for point in points] == [False, True, False]
    assert "hollow" in figure._suptitle.get_text().replace("\n", " ")
    plain = tested.family({"digits": tests["digits"].loc["how"]}, "test_loss")
    assert "hollow" not in plain._suptitle.get_text().replace("\n", " ")


def test_arms_stand_at_their_property_with_names_that_do_not_cover_one_another(tests):
    rng = np.random.default_rng(0)
    rows = pd.concat([tests["digits"]] * 4).reset_index(drop=True).set_axis([f"arm {i}" for i in range(24)])
    rows = rows.assign(share=rng.random(24).round(1), mean=rng.normal(0, 0.02, 24)).assign(low=-0.04, high=0.04)
    figure = tested.against({"digits": rows}, "share", "share", "test_loss")
    figure.draw_without_rendering()
    (axis,) = figure.axes
    points = {(x, y) for line in axis.lines if line.get_marker() == "o" for x, y in zip(*line.get_data())}
    assert points == set(zip(rows["share"], rows["mean"]))
    written = [text.get_text() for text in axis.texts]
    assert len(set(written)) == len(written) and set(written) <= set(rows.index) and len(written) > 8
    boxes = [text.get_window_extent() for text in axis.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    for text, box in zip(axis.texts, boxes):
        x, y = axis.transData.transform(rows.loc[text.get_text(), ["share", "mean"]].to_list())
        assert box.x0 - 30 < x < box.x1 + 30 and box.y0 - 25 < y < box.y1 + 25


def test_groups_of_arms_are_in_the_order_of_their_medians(tests):
    rows = tests["digits"].assign(settings=["a", "b", "a", "b", "b", "a"])
    (axis,) = tested.by_group({"digits": rows}, "settings", "test_loss").axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a (3)", "b (3)"]
    points = [line for line in axis.lines if line.get_marker() == "o"]
    assert [point.get_xdata()[0] for point in points] == [-0.02, 0.001, 0.01, 0.03, 0.04, 0.05]
    assert [round(point.get_ydata()[0]) for point in points] == [0, 0, 0, 1, 1, 1]
