"""Compare the experiments of any study with its control, setting by setting.

The functions after `settings_of` take what it returns: tables whose column `policy` distinguishes their experiments.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from neuronsplit.analysis import cost, stats, tables
from neuronsplit.names import CONTROLS, GROWTH_COLUMNS, ID_COLUMNS, TUNED_COLUMNS

REQUIRED = ["policy", "seed", "epoch", "test_loss", "test_accuracy"]  # columns of every table that can be compared


def settings_of(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Divide a study's table into the settings within which its experiments can be compared, and label these.

    Where each experiment has TUNED_COLUMNS of its own, as after `neuronsplit tune`, these make no settings, and are
    left out. If every setting has one experiment only, there is nothing to compare. Then all are put under the name "".
    Rows are in the order of epochs, and `policy` has labels as `tables.with_labels` makes them.
    Raises ValueError where a column is missing, there are no rows, or an experiment has the same epoch twice.
    """
    missing = [name for name in REQUIRED if name not in table]
    if missing or table.empty:
        what = f"columns {', '.join(missing)} are missing" if missing else "it has no rows"
        raise ValueError(f"not a table of experiments ({what}): allowed are tables with {', '.join(REQUIRED)}")
    choices = [name for name in ("policy", *GROWTH_COLUMNS) if name in table]
    labelled = table.assign(policy=tables.with_labels(table[choices])["policy"])  # alike in all settings
    labelled = labelled.drop(columns=_tuned_by_arm(labelled))
    parts = {name: _checked(part) for name, part in tables.by_setting(labelled).items()}
    if len(parts) > 1 and all(part["policy"].nunique() == 1 for part in parts.values()):
        return {"": _checked(tables.with_labels(table))}
    return parts


def _tuned_by_arm(table: pd.DataFrame) -> list[str]:
    """Return the TUNED_COLUMNS in which experiments differ, if each has one combination of values."""
    tuned = [name for name in TUNED_COLUMNS if name in table]
    arms = [name for name in ID_COLUMNS if name in table and name not in tuned]
    of_arms = table.groupby(arms)[tuned].nunique() if tuned else pd.DataFrame()
    return tuned if (of_arms == 1).all(axis=None) else []


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    again = table.duplicated(["policy", "seed", "epoch"])
    twice, table = table[again & ~_is_control(table)], table[~again]  # a control of two growths is one experiment
    if len(twice):
        policy, seed, epoch = twice.iloc[0][["policy", "seed", "epoch"]]
        raise ValueError(f"experiment {policy!r} has seed {seed}, epoch {epoch} twice: allowed is a row for each")
    labels = list(table["policy"].unique())
    table = table.sort_values("epoch", kind="stable")
    return table.sort_values("policy", key=lambda names: names.map(labels.index), kind="stable")


def _is_control(table: pd.DataFrame) -> pd.Series:
    return table["policy"].str.split(" · ").str[0].isin(CONTROLS)


def baseline_of(table: pd.DataFrame) -> str | None:
    """Return what the others are compared with: the control, or else `random`, or else the first experiment.

    Returns None where there is only one experiment, or where the experiments are of different settings.
    """
    labels = list(table["policy"].unique())
    if len(labels) == 1 or len(tables.by_setting(table)) > 1:
        return None
    preferred = [name for name in CONTROLS if name in labels]
    preferred += [label for label in labels if label.split(" · ")[0] == "random"]
    return (preferred or labels)[0]


def families_of(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the parts of a setting that are each compared with a baseline: all, and then those that grow.

    The second part is there where the setting has a control and several experiments that grow.
    """
    grow = table[~_is_control(table)]
    has_both = baseline_of(table) in CONTROLS and grow["policy"].nunique() > 1
    return [table, grow] if has_both else [table]


def without_diverged(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the seeds whose final test loss is not a finite number."""
    last = tables.last_epoch(table)
    finite = last.loc[np.isfinite(last["test_loss"]), ["policy", "seed"]]
    return table[pd.MultiIndex.from_frame(table[["policy", "seed"]]).isin(pd.MultiIndex.from_frame(finite))]


def compare(table: pd.DataFrame, metric: str = "test_accuracy") -> pd.DataFrame:
    """Put the final values of all experiments, and their differences to the baseline, into one table.

    Returns a row per experiment, the baseline first. Its columns are
    seeds, diverged: how many seeds there are, and how many of them have no finite final test loss and are left out.
    value, value_low, value_high: the mean final value and its 95 % interval.
    n, mean, low, high, ...: what `stats.paired_tests` returns for the differences to the baseline.
    cost: multiply-adds of training, as a share of the baseline's; missing where the table does not say enough.
    """
    baseline = baseline_of(table)
    values = tables.final_values(table, metric)
    final = stats.intervals(values)
    result = final[["mean", "low", "high"]].add_prefix("value_").rename(columns={"value_mean": "value"})
    result.insert(0, "diverged", tables.n_diverged(table))
    result.insert(0, "seeds", result["diverged"] + final["n"])
    others = values.drop(columns=[] if baseline is None else baseline)
    differences = others * np.nan if baseline is None else others.sub(values[baseline], axis=0)
    result = result.join(stats.paired_tests(differences, metric)).fillna({"n": 0, "verdict": ""})
    known = baseline is not None and {"hidden", "split_neuron"} <= set(table)
    result["cost"] = cost.relative_cost(table, baseline) if known else np.nan
    order = [name for name in result.index if name != baseline]
    return result.loc[order if baseline is None else [baseline, *order]]


def paired_differences(
    table: pd.DataFrame, metric: str, values_of: Callable[..., pd.DataFrame] = tables.final_values
) -> pd.DataFrame:
    """Return the differences to the baseline of the experiments that have a seed in common with it.

    values_of: which values, as in `tables.paired_differences`.
    Returns a row per seed and a column per experiment, of which there may be none.
    """
    baseline = baseline_of(table)
    if baseline is None:
        return pd.DataFrame()
    return tables.paired_differences(table, metric, baseline, values_of).dropna(how="all", axis=1).dropna(how="all")


def style_comparison(compared: pd.DataFrame, title: str = "test accuracy") -> "pd.io.formats.style.Styler":
    """Format what `compare` returns for display, in as few columns as say something, so that it fits a phone."""
    seeds = compared["seeds"] - compared["diverged"]
    columns = {title: compared["value"].map(lambda value: "–" if np.isnan(value) else f"{value:.4f}")}
    if seeds.nunique() > 1:
        columns["seeds"] = seeds.map("{:.0f}".format)
    if compared["n"].any():
        rows = compared[["mean", "low", "high"]].itertuples(index=False)
        texts = [f"{stats.signed(mean)} {stats.interval(low, high)}" for mean, low, high in rows]
        columns["difference and 95 % interval"] = [text.replace("– –", "").removesuffix(" –") for text in texts]
        columns["verdict"] = compared["verdict"].mask(compared["n"] == 0, "")
    else:
        rows = compared[["value_low", "value_high"]].itertuples(index=False)
        columns["95 % interval"] = ["–" if np.isnan(low) else f"[{low:.4f}, {high:.4f}]" for low, high in rows]
    if compared["cost"].notna().any():
        columns["cost"] = compared["cost"].map(lambda cost: "–" if np.isnan(cost) else f"{cost:.0%}")
    styler = stats.style_verdicts(pd.DataFrame(columns, index=compared.index))
    return styler.set_properties(**{"white-space": "normal"})
