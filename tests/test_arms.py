"""Arms of one training are compared at the same seed, and at equal cost."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from neuronsplit.analysis import arms
from neuronsplit.analysis.files import write_table
from neuronsplit.plots import growth_in_training

plt.switch_backend("Agg")


def table_of(tuning: bool, seeds: range, rates: dict[str, list[float]]) -> pd.DataFrame:
    """The loss falls from 3 by a half of the share of the budget, and by what the learning rate is away from 0.2."""
    rows = [
        {"arm": arm, "seed": seed, "learning_rate": rate, "tuning": tuning, "point": point, "tokens": 100 * point,
         "multiply_adds": 10**9 * point, "val_loss": 3 + 0.01 * seed + (rate - 0.2) ** 2 - point / 8,
         "distance_MLP": 0.1 * (point - 2) if point >= 2 and "grown" in arm else np.nan}
        for arm, of in rates.items() for rate in of for seed in seeds for point in range(5)
    ]  # fmt: skip
    return pd.DataFrame(rows)


RATES = {"small": [0.1, 0.2], "large": [0.2, 0.4], "grown": [0.4, 0.6], "grown, reset": [0.4]}
TUNING = table_of(True, range(100, 102), RATES)
MEASURED = table_of(False, range(3), {arm: [min(rates, key=lambda r: abs(r - 0.2))] for arm, rates in RATES.items()})


def test_the_best_rates_are_those_of_tuning_seeds_alone():
    both = pd.concat([TUNING, MEASURED])
    assert arms.best_rates(both) == {"small": 0.2, "large": 0.2, "grown": 0.4, "grown, reset": 0.4}
    assert arms.tuning_losses(both).loc["large", 0.4] == pytest.approx(3 + 1.005 + 0.04 - 0.5)


def test_losses_are_taken_at_the_end_or_between_evaluations():
    final = arms.final_losses(MEASURED)
    assert final.loc[2, "large"] == pytest.approx(2.52) and final.shape == (3, 4)
    at = arms.losses_at(MEASURED, "tokens", 150)
    assert at.loc[0, "grown"] == pytest.approx(3 + 0.04 - 1.5 / 8)
    assert arms.losses_at(MEASURED, "tokens", 401).isna().all(axis=None)


def test_the_row_with_the_lowest_validation_loss_is_picked_for_every_run():
    table = MEASURED.assign(val_loss=[(point - 2.2) ** 2 for point in MEASURED.point])
    table.loc[(table.arm == "large") & (table.point == 2), "val_loss"] = np.nan
    table.loc[(table.arm == "grown") & (table.seed == 1), "val_loss"] = np.nan  # it diverged
    found = arms.at_lowest_validation(table).set_index(["arm", "seed"]).point
    assert found["small"].tolist() == [2] * 3 and found["large"].tolist() == [3] * 3
    assert found["grown"].to_dict() == {0: 2, 2: 2}
    with_rates = table_of(True, range(1), {"small": [0.1, 0.2]})
    assert arms.at_lowest_validation(with_rates)[["learning_rate", "point"]].to_numpy().tolist() == [[0.1, 4], [0.2, 4]]


def test_differences_are_paired_and_written_with_their_interval():
    values = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1.5, 2.6, 3.4], "c": [1.1, 1.9, 3.0]})
    assert arms.differences(values, "a", ["b"]) == ["+0.500 [+0.252, +0.748]"]
    assert arms.compare(values, "b", "a") == "0.500 [0.252, 0.748] above that of `a`"
    assert arms.compare(values, "a", "b") == "0.500 [0.252, 0.748] below that of `b`"
    assert arms.compare(values, "c", "a").endswith("that of `a`, an interval that includes 0")


def test_tables_of_a_folder_are_read_together(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        TUNING.to_parquet(tmp_path / name / "rows.parquet")
    assert len(arms.read_tables(tmp_path)) == 2 * len(TUNING)
    with pytest.raises(ValueError, match="holds no tables"):
        arms.read_tables(tmp_path / "nothing")


def test_runs_of_a_file_are_kept_if_all_their_settings_are_the_same(tmp_path):
    file, wanted = tmp_path / "0.parquet", {"small": [0.2, 0.3], "grown": [0.4], "new": [0.1]}
    own = {"small": {"at": 1, "parts": ("q",)}, "grown": {"at": 0.5, "parts": ()}}
    made_by = {"parameters": {"steps": 4, "arms": own, "learning_rates": RATES}, "text": {"sha256": "ab"}}
    assert arms.kept_runs(file, made_by) == {}
    write_table(TUNING, file, made_by)
    parameters = {"steps": 4, "arms": own | {"new": {"at": 0}}, "learning_rates": wanted}
    now = {"parameters": parameters, "text": {"sha256": "ab"}}
    kept = arms.kept_runs(file, now)
    assert set(kept) == {("small", 0.2), ("grown", 0.4)}
    same = TUNING[(TUNING["arm"] == "small") & (TUNING["learning_rate"] == 0.2)]
    pd.testing.assert_frame_equal(kept["small", 0.2], same, check_dtype=False)
    parameters["arms"]["grown"] = own["grown"] | {"at": 0.25}
    assert set(arms.kept_runs(file, now)) == {("small", 0.2)}
    assert arms.kept_runs(file, now | {"text": {"sha256": "cd"}}) == {}
    assert arms.kept_runs(file, now | {"parameters": parameters | {"steps": 5}}) == {}


def test_the_loss_is_drawn_from_the_growth_on():
    tables = {"one": MEASURED, "other": MEASURED[MEASURED["arm"] != "small"]}
    figure = growth_in_training.loss_against_cost(tables, {"small": 1, "large": 0, "grown": 0.5})
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["grown"].get_xdata().tolist() == [2, 3, 4] and lines["large"].get_xdata().tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(lines["small"].get_ydata(), 3.01 - np.arange(5) / 8)
    names = [text.get_text() for text in figure.axes[0].texts]
    assert names == ["small  2.510", "large  2.510", "grown  2.550"]
    heights = [text.xyann[1] for text in figure.axes[0].texts]
    assert min(np.diff(heights)) > 0.05  # no two names overlap
    others = {line.get_label(): line.get_color() for line in figure.axes[1].lines if line.get_label() in RATES}
    assert others == {arm: lines[arm].get_color() for arm in ("large", "grown")}
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["one", "other"]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert "billions" in figure.axes[1].get_xlabel() and "n = 3 seeds" in figure.get_suptitle()


def test_the_distance_of_twins_is_drawn_from_the_growth_on():
    names = ["grown", "grown, reset"]
    figure = growth_in_training.twin_distances(MEASURED, names, {"distance_MLP": "hidden neurons"})
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines) == names and lines["grown"].get_color() == lines["grown, reset"].get_color()
    assert lines["grown"].get_linestyle() != lines["grown, reset"].get_linestyle()
    np.testing.assert_allclose(lines["grown"].get_ydata(), [0, 0.1, 0.2])
