"""Compare arms of one training, such as networks that grow at different times: paired by seed, at equal cost.

Every `table` has a row per arm, learning rate, seed and evaluation. The column `point` counts the evaluations.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from neuronsplit.analysis import stats
from neuronsplit.analysis.files import provenance, read_table


def read_tables(folder: Path) -> pd.DataFrame:
    """Read all tables in a folder and beneath it, one below the other."""
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise ValueError(f"{folder} holds no tables: allowed are folders of .parquet files")
    return pd.concat([read_table(file) for file in files], ignore_index=True)


def kept_runs(file: Path, made_by: dict) -> dict[tuple[str, float], pd.DataFrame]:
    """Read the runs of a file that need not be made again, by arm and learning rate.

    made_by: what would make the file now. Its "parameters" hold "arms", the settings of each arm by its name, and
        "learning_rates", those that are wanted of each. A run is kept if it is wanted, and its arm is that of the file.
        All other parameters have to be the same too, and so has the "text", if there is one. Without a file, no run is
        kept.
    """
    if not file.is_file():
        return {}
    now, before = (_settings(of) for of in (made_by, provenance(file)))
    arms, arms_before = now.pop("arms"), before.pop("arms")
    rates, _ = now.pop("learning_rates"), before.pop("learning_rates")
    if now != before:
        return {}
    runs = read_table(file).groupby(["arm", "learning_rate"])
    return {
        (arm, rate): rows
        for (arm, rate), rows in runs
        if rate in rates.get(arm, []) and arms[arm] == arms_before.get(arm)
    }


def _settings(made_by: dict) -> dict:
    """The parameters and the text, as they are after a way through a file."""
    return json.loads(json.dumps(made_by["parameters"] | {"text": made_by.get("text")}))


def final_losses(table: pd.DataFrame) -> pd.DataFrame:
    """Return the last validation loss, with a row per seed and a column per arm."""
    return table[table["point"] == table["point"].max()].pivot(index="seed", columns="arm", values="val_loss")


def losses_at(table: pd.DataFrame, column: str, value: float) -> pd.DataFrame:
    """Return the validation loss where a column that rises, such as tokens, has a value; interpolated.

    It has a row per seed and a column per arm. It is NaN for an arm that does not get there.
    """
    found = {
        key: np.interp(value, rows[column], rows["val_loss"], right=np.nan)
        for key, rows in table.sort_values("point").groupby(["seed", "arm"])
    }
    return pd.Series(found).rename_axis(["seed", "arm"]).unstack()


def tuning_losses(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean final loss over tuning seeds, with a row per arm and a column per learning rate."""
    last = table[table["tuning"] & (table["point"] == table["point"].max())]
    return last.pivot_table(index="arm", columns="learning_rate", values="val_loss", sort=False)


def best_rates(table: pd.DataFrame) -> dict[str, float]:
    """Return the learning rate of each arm with the lowest mean final loss over tuning seeds."""
    return {arm: float(rate) for arm, rate in tuning_losses(table).idxmin(axis=1).items()}


def at_lowest_validation(table: pd.DataFrame) -> pd.DataFrame:
    """Return the row of every arm, learning rate and seed at which the validation loss is lowest.

    A run whose losses are all NaN has no row.
    """
    lowest = table.dropna(subset="val_loss").groupby(["arm", "learning_rate", "seed"])["val_loss"].idxmin()
    return table.loc[lowest]


def differences(values: pd.DataFrame, baseline: str, arms: list[str]) -> list[str]:
    """Write the paired difference of each arm to a baseline, with its 95 % interval.

    values: a row per seed and a column per arm.
    """
    found = stats.intervals(values[arms].sub(values[baseline], axis=0))
    rows = zip(found["mean"], found["low"], found["high"])
    return [f"{stats.signed(mean, 3)} {stats.interval(low, high, 3)}" for mean, low, high in rows]


def compare(values: pd.DataFrame, arm: str, baseline: str) -> str:
    """Write how far an arm is above or below a baseline, as the end of a sentence."""
    row = stats.intervals((values[arm] - values[baseline]).to_frame()).iloc[0]
    side, sign = ("above", 1) if row["mean"] > 0 else ("below", -1)
    low, high = sorted(sign * row[["low", "high"]])
    ends = f"[{low:.3f}, {high:.3f}]".replace("-", "−")
    unclear = "" if low > 0 else ", an interval that includes 0"
    return f"{abs(row['mean']):.3f} {ends} {side} that of `{baseline}`{unclear}"
