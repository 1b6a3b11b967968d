"""Statistics on tidy tables."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler
from scipy.optimize import brentq
from scipy.stats import bootstrap, nct, permutation_test, t, trim_mean

from neuronsplit.study import CONTROLS, LABELS, NARROW
from neuronsplit.training import NEW

COUNTS = "width splits still batch_size".split()  # of LABELS those that say nothing without their names
BENCHMARK = {  # test accuracy of scikit-learn's MLPClassifier: Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747, table 3
    "fashion-mnist": {"Zalando's benchmark, width 10": 0.848, "Zalando's benchmark, width 100": 0.871}
}


def named(table: pd.DataFrame) -> pd.DataFrame:
    """The table with whatever tells its experiments apart in the column `policy`: "random · even", "random · fresh".

    Of the columns LABELS those that vary; a control has no rule and no schedule.
    """
    control = table["policy"].isin(CONTROLS)
    growth = [name for name in ("policy", "rule", "schedule") if table.loc[~control, name].nunique() > 1]
    others = [name for name in LABELS if name in table and name not in ("policy", "rule", "schedule")]
    training = [name for name in others if table[name].nunique() > 1]
    labels = table["policy"].copy()
    for rows, names in ((~control, [*(growth or ["policy"]), *training]), (control, ["policy", *training])):
        texts = {name: table.loc[rows, name].astype(str) for name in names}
        texts |= {name: name.replace("_", " ") + " " + texts[name] for name in names if name in COUNTS}
        labels[rows] = [" · ".join(parts) for parts in zip(*texts.values())]
    return table.assign(policy=labels)


def settings(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The parts of a table whose experiments differ in how they grow alone, named by what tells the parts apart.

    A control is compared with what has its setting: the data, optimiser, learning rate, width, splits and so on.
    """
    names = [name for name in LABELS if name in table and name not in ("policy", "rule", "schedule")]
    apart = [name for name in names if table[name].nunique() > 1]
    if not apart:
        return {"": table}
    parts = table.groupby(apart, sort=False)
    return {", ".join(f"{name} {value}" for name, value in zip(apart, key)): part for key, part in parts}


def final(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each policy's last epoch, policies in the order of the table."""
    return table[table["epoch"] == table.groupby("policy")["epoch"].transform("max")]


def diverged(table: pd.DataFrame) -> pd.Series:
    """How many repeats of each policy ended with a loss that is not a finite number."""
    last = final(table)
    return (~np.isfinite(last["test_loss"])).groupby(last["policy"], sort=False).sum()


def summary(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Final values of one measure, a row a policy: n, mean, sd, lowest, highest of the repeats that did not diverge."""
    last = final(table)
    groups = last[np.isfinite(last["test_loss"])].groupby("policy", sort=False)[measure]
    found = groups.agg(n="count", mean="mean", sd="std", lowest="min", highest="max")
    return found.reindex(last["policy"].unique()).assign(diverged=diverged(table))


def ends(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Final values: a row a seed, a column a policy; NaN for a repeat that diverged."""
    last = final(table)
    wide = last.assign(value=last[measure].where(np.isfinite(last["test_loss"])))
    return wide.pivot(index="seed", columns="policy", values="value")[table["policy"].unique()]


def paired(table: pd.DataFrame, measure: str, baseline: str) -> pd.DataFrame:
    """Final difference of every policy to the baseline in the same repeat: a row a seed, a column a policy."""
    wide = ends(table, measure)
    return wide.drop(columns=baseline).sub(wide[baseline], axis=0)


def spent(table: pd.DataFrame) -> pd.Series:
    """Neurons trained, summed over the epochs so far: what a network of one hidden layer has cost, row by row.

    Of each image a neuron takes 2 n_in + 3 n_out multiply-adds: its sums, their gradients, and what is sent back to it.
    What a policy spends on scores is not counted, nor what a rule spends on looking at images.
    """
    trained = table["hidden"] - table["split_neuron"].fillna("").astype(str).str.split().str.len()
    return trained.groupby([table["policy"], table["seed"]]).cumsum()


def leads(table: pd.DataFrame, measure: str, baseline: str) -> pd.DataFrame:
    """Difference to the baseline when it had spent as much, after every epoch: column `lead` of the others' rows.

    Between its epochs the baseline is interpolated; before its first and after its last there is nothing: NaN.
    """
    table = table.assign(spent=spent(table))
    course = {seed: rows.sort_values("epoch") for seed, rows in table[table["policy"] == baseline].groupby("seed")}
    found = []
    for seed, rows in table[table["policy"] != baseline].groupby("seed", sort=False):
        own = course[seed]
        then = np.interp(rows["spent"], own["spent"], own[measure], left=np.nan, right=np.nan)
        found.append(rows.assign(lead=rows[measure] - then, spent=rows["spent"] / own["spent"].iloc[-1]))
    return pd.concat(found).sort_index()


def paired_at_equal_cost(table: pd.DataFrame, measure: str, baseline: str) -> pd.DataFrame:
    """Final difference of every policy to the baseline when it had spent as much: a row a seed, a column a policy."""
    return ends(leads(table, measure, baseline), "lead")


def areas(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Mean of a measure over what was spent, in the range that all but stay-narrow have in common.

    A row a seed, a column a policy; NaN for stay-narrow where it ends earlier.
    """
    policies = list(table["policy"].unique())
    table = table.assign(spent=spent(table)).sort_values("epoch")
    runs = {key: rows for key, rows in table.groupby(["policy", "seed"])}
    first = max(rows["spent"].iloc[0] for rows in runs.values())
    last = min(rows["spent"].iloc[-1] for (policy, _), rows in runs.items() if policy != NARROW)
    grid = np.linspace(first, last, 1000)
    means = {key: np.interp(grid, rows["spent"], rows[measure], right=np.nan).mean() for key, rows in runs.items()}
    return pd.Series(means).unstack(0)[policies].rename_axis(index="seed")


def overview(table: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """What to choose from, a row a policy: cost as a share of the baseline's, and measures with 95 % intervals.

    Measures are final test loss and accuracy, the area under each (its mean over what was spent, see areas), and the
    standard deviation over repeats of the accuracy. Columns (measure, mean | low | high).
    """
    cost = final(table.assign(spent=spent(table))).groupby("policy", sort=False)["spent"].mean()
    columns = {("cost", "mean"): cost / cost[baseline]}
    for title, measure in {"test loss": "test_loss", "test accuracy": "test_accuracy"}.items():
        for name, wide in {title: ends(table, measure), f"area, {title}": areas(table, measure)}.items():
            columns |= {(name, part): values for part, values in intervals(wide)[["mean", "low", "high"]].items()}
    spread = intervals(ends(table, "test_accuracy"), partial(np.std, ddof=1))
    columns |= {("spread", part): values for part, values in spread[["mean", "low", "high"]].items()}
    return pd.DataFrame(columns).loc[list(table["policy"].unique())]


def verdicts(differences: pd.DataFrame, measure: str) -> pd.DataFrame:
    """What n paired differences (a row a seed, a column a policy) say about each policy, a row a policy.

    mean, low, high: mean difference and its 95 % interval (BCa). iqm: interquartile mean. improvement: share of the
    repeats in which the policy is better (ties count half; a lower loss is better). p: permutation test of the mean,
    every sign flipped (exact to 13 repeats). holm: p corrected for the number of policies here. detectable: smallest
    true difference that so many repeats would find 4 times in 5, by a t-test so corrected. verdict: better or worse
    where holm < 0.05; n repeats cannot show it for more than 0.05 · 2ⁿ⁻¹ policies at once.
    """
    way = -1 if measure.endswith("loss") else 1
    found = intervals(differences)
    columns = {name: column.dropna() for name, column in differences.items()}
    found["iqm"] = {name: trim_mean(v, 0.25) if len(v) else np.nan for name, v in columns.items()}
    found["improvement"] = {name: (np.sign(way * values).mean() + 1) / 2 for name, values in columns.items()}
    found["p"] = {name: sign_flip_test(values) for name, values in columns.items()}
    found["holm"] = holm(found["p"])
    found["detectable"] = {n: detectable(len(v), 0.05 / len(columns)) * v.std() for n, v in columns.items()}
    better = np.where(way * found["mean"] > 0, "better", "worse")
    found["verdict"] = np.where(found["holm"] < 0.05, better, "no difference found")
    found.loc[found["n"] < 2, "verdict"] = "too few repeats"
    return found


def intervals(values: pd.DataFrame, statistic: Callable = np.mean, seed: int = 0) -> pd.DataFrame:
    """Mean, or another statistic, and its 95 % bootstrap interval (BCa, Efron 1987; 10,000 resamples), a row a column.

    With 10 repeats such an interval holds the true mean about 9 times in 10.
    """
    rows = {name: _interval(column.dropna(), statistic, seed) for name, column in values.items()}
    return pd.DataFrame.from_dict(rows, "index", columns=["n", "mean", "low", "high"], dtype=float)


def _interval(values: pd.Series, statistic: Callable, seed: int) -> tuple[float, float, float, float]:
    found = low = high = statistic(values.to_numpy(), axis=0) if len(values) else np.nan
    if len(values) < 2:
        low = high = np.nan
    elif values.nunique() > 1:  # BCa is not defined on a constant
        low, high = bootstrap(
            (values.to_numpy(),), statistic, n_resamples=10_000, rng=np.random.default_rng(seed)
        ).confidence_interval
    return len(values), found, low, high


def sign_flip_test(values: pd.Series, seed: int = 0) -> float:
    """Two-sided p-value of a mean difference of 0: the share of sign flips with a mean as far from 0."""
    if len(values) < 2:
        return np.nan
    if not values.any():
        return 1.0
    found = permutation_test(
        (values.to_numpy(),), np.mean, permutation_type="samples", n_resamples=10_000, vectorized=True,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return found.pvalue


def holm(p: pd.Series) -> pd.Series:
    """p-values corrected for their number (Holm 1979): none below 0.05 is by chance, with probability 0.95."""
    ranked = p.sort_values()
    steps = ranked * np.arange(len(ranked), 0, -1)
    return steps.cummax().clip(upper=1)[p.index]


def detectable(n: int, level: float) -> float:
    """Smallest true mean, in standard deviations, that a t-test of n differences finds with probability 0.8.

    The test is two-sided; its power, on the side of the truth, is a noncentral t's (Cohen 1988, section
    2.3).
    """
    bound = t.ppf(1 - level / 2, n - 1)

    def missing(effect):
        return 0.8 - nct.sf(bound, n - 1, effect * n**0.5)

    return brentq(missing, 0, (bound + 8) / n**0.5) if n > 3 else np.nan


def readable(found: pd.DataFrame, digits: int = 4) -> Styler:
    """Verdicts as a table for reading: a line a policy, its verdict in colour."""

    def number(value):
        return f"{value:+.{digits}f}".replace("-", "−")

    columns = {
        "difference": found["mean"].map(number),
        "95 % interval": [f"[{number(low)}, {number(high)}]" for low, high in zip(found["low"], found["high"])],
        "interquartile mean": found["iqm"].map(number),
        "better in": found["improvement"].map("{:.0%}".format),
        "p": found["p"].map("{:.3f}".format),
        "p, Holm": found["holm"].map("{:.3f}".format),
        "detectable": found["detectable"].map(f"{{:.{digits}f}}".format),
        "verdict": found["verdict"],
    }
    colours = {"better": "color: #1b7837", "worse": "color: #b2182b", "no difference found": "color: #737373"}
    styler = pd.DataFrame(columns, index=found.index).style.map(colours.get, subset="verdict")
    return styler.set_uuid("verdicts").set_properties(**{"text-align": "right", "white-space": "nowrap"})


def lineage(repeat: pd.DataFrame) -> pd.DataFrame:
    """The family tree of one repeat's neurons, from the rows of its table: a row a neuron.

    founder: the first neuron it descends from; parent: the neuron it was split off (itself for a founder); born: the
    epoch of that split (0 for a neuron there from the start). A parent keeps its number, its second twin becomes
    the new last neuron.
    """
    repeat = repeat.sort_values("epoch")
    chosen = repeat.set_index("epoch")["split_neuron"].dropna().astype(str)
    splits = [(epoch, parent) for epoch, parents in chosen.items() for parent in parents.split()]
    founders = int(repeat["hidden"].iloc[-1]) - len(splits)
    tree = [{"founder": neuron, "parent": neuron, "born": 0} for neuron in range(founders)]
    for epoch, parent in splits:
        parent = len(tree) if parent == NEW else int(parent)
        founder = tree[parent]["founder"] if parent < len(tree) else parent
        tree.append({"founder": founder, "parent": parent, "born": int(epoch)})
    return pd.DataFrame(tree).rename_axis("neuron")
