"""Sentences about where the experiments of a study ended, computed from its table, in Markdown.

A `table` is one that `comparison.settings_of` returns. Names of experiments are set as code, so that nothing in a table
is taken for Markdown or HTML.
"""

import pandas as pd

from neuronsplit.analysis import comparison, stats, wording
from neuronsplit.names import GREEDY, NO_SPLIT, SHUFFLE_LOSSES, STAY_NARROW

CONTROLS = {
    NO_SPLIT: ", the control with the final width from the start,",
    STAY_NARROW: ", the control with the first width throughout,",
}


def answer(table: pd.DataFrame, metric: str = "test_accuracy") -> str:
    """Say where the experiments of a setting ended, next to their control and to one that grows, and what they cost."""
    baseline, compared = comparison.baseline_of(table), comparison.compare(table, metric)
    title = metric.replace("_", " ")
    if baseline is None:
        said = _alone(compared, title)
    else:
        said = [*_baseline(compared, title), *_established(compared, title), *_nearest(compared, metric)]
        said += [*_not_testable(compared), *_cost(compared)]
    for family in comparison.families_of(table)[1:]:
        said.append(_among_those_that_grow(comparison.compare(family, metric), metric, said))
    return "\n".join(f"- {sentence}" for sentence in [*said, *_left_out(compared), *_lengths(table)])


def result(table: pd.DataFrame) -> str:
    """Say where an experiment of a study ended, from its own table: its last epoch or horizon."""
    time, metrics = ("epoch", ["test_accuracy", "test_loss"]) if "epoch" in table else ("horizon", SHUFFLE_LOSSES)
    last = table[table[time] == table[time].max()]
    means = [f"{name.replace('_', ' ')} {last[name].mean():.4f}" for name in metrics]
    return f"{', '.join(means)}, mean of {wording.count([table['seed'].nunique()], 'seed')}"


def still_learning(table: pd.DataFrame) -> str:
    """Say whether most networks still improved when their training ended; empty if not, or without val_loss."""
    if "val_loss" not in table:
        return ""
    runs = table.groupby(["policy", "seed"])
    lowest = table["val_loss"] == runs["val_loss"].transform("min")
    n = int((lowest & (table["epoch"] == runs["epoch"].transform("max"))).sum())
    said = (
        f"- In {n} of {runs.ngroups} networks the validation loss is lowest at the end: **training was not finished**."
    )
    return f"{said} More `epochs` or a larger `learning_rate` can change all differences." * (n > runs.ngroups / 2)


def definition(table: pd.DataFrame) -> str:
    """Say when a difference within a setting counts as established; empty if none can be tested."""
    families = comparison.families_of(table)
    n_tests = {comparison.baseline_of(family): int(comparison.compare(family)["p"].count()) for family in families}
    if not any(n_tests.values()):
        return ""
    several = [f"{n} comparisons with {wording.code(name)}" for name, n in n_tests.items() if n > 1]
    corrected = f" The p-value is corrected for {wording.join(several)} (max-T)." if several else ""
    said = "A difference is established if the p-value of a permutation test, paired by seed, is below 0.05."
    said += f"{corrected} Only then do the sentences above say that an experiment ends above or below another."
    return f"{said} Intervals are Student's t, each by itself; of few seeds they can leave the range of a metric."


def _alone(compared: pd.DataFrame, title: str) -> list[str]:
    """Say where experiments ended that have nothing to be compared with."""
    if len(compared) > 1:
        return ["Every setting has one experiment only, so none is compared with another."]
    value = compared["value"].iloc[0]
    ends = f"ends at a {title} of {_value(compared.iloc[0])}" if pd.notna(value) else f"has no final {title}"
    return [f"{wording.code(compared.index[0])} {ends}. There is nothing to compare it with."]


def _baseline(compared: pd.DataFrame, title: str) -> list[str]:
    name, row = compared.index[0], compared.iloc[0]
    said = [] if name in CONTROLS else [f"There is no control here: the others are compared with {wording.code(name)}."]
    control = CONTROLS.get(name, "")
    if pd.isna(row["value"]):
        return [*said, f"{wording.code(name)}{control} has no final {title}, so nothing can be compared with it."]
    return [*said, f"{wording.code(name)}{control} ends at a {title} of {_value(row)}."]


def _value(row: pd.Series) -> str:
    """Return a final value with its interval, such as "0.8510 [0.8490, 0.8530] (n = 10)".

    The interval is as it was computed. With few seeds, that of an accuracy can leave 0 to 1.
    """
    interval = "" if pd.isna(row["value_low"]) else f" [{row['value_low']:.4f}, {row['value_high']:.4f}]"
    return f"{row['value']:.4f}{interval}".replace("-", "−") + f" (n = {row['seeds'] - row['diverged']:.0f})"


def _established(compared: pd.DataFrame, title: str) -> list[str]:
    """Say which differences to the baseline are established, and which were tested and are not."""
    baseline, others, said = wording.code(compared.index[0]), compared.iloc[1:], []
    for verdict in ("worse", "better"):
        rows = others[others["verdict"] == verdict]
        if len(rows):
            place = "below" if (rows["mean"] < 0).all() else "above"
            whom, names = _subject(rows, others)
            end = "ends" if len(rows) == 1 else "end"
            by = wording.span(rows["mean"].abs(), "{:.4f}")
            said.append(f"**{whom} {end} {place} {baseline}**, by {by} of {title}{names}.")
    rows = others[others["verdict"] == "no difference found"]
    if len(rows):
        whom, names = _subject(rows, others)
        whom = "any of the others" if len(rows) == len(others) > 1 else whom
        said.append(f"**No difference to {baseline} is established** for {whom}{names}.")
    return said


def _nearest(compared: pd.DataFrame, metric: str) -> list[str]:
    """Say where the best of the others ended, and how far that is from the baseline."""
    others = compared.iloc[1:].dropna(subset=["value", "mean"])
    if others.empty:
        return []
    lower = metric.endswith("loss")
    name = others["value"].idxmin() if lower else others["value"].idxmax()
    row = others.loc[name]
    ends = f"ends at {_value(row)}" if len(compared) == 2 else f"ends {'lowest' if lower else 'highest'} of the others"
    at = "" if len(compared) == 2 else f", at {_value(row)}"
    interval = "" if pd.isna(row["low"]) else f" {stats.interval(row['low'], row['high'])}"
    whom = wording.code(compared.index[0])
    return [f"{wording.code(name)} {ends}{at}: {stats.signed(row['mean'])}{interval} from {whom} at the same seed."]


def _not_testable(compared: pd.DataFrame) -> list[str]:
    """Say for which experiments no difference can be established, however large it is, and why."""
    baseline, others = wording.code(compared.index[0]), compared.iloc[1:]
    if pd.isna(compared["value"].iloc[0]):
        return []
    said = []
    for (n, p), rows in others[others["verdict"] == "too few seeds"].groupby(["n", "smallest_p"]):
        whom = "" if len(rows) == len(others) else f" for {wording.join(map(wording.code, rows.index))}"
        seeds = f"With {n:.0f} seeds the smallest possible p-value is {p:.2g}"
        needed = f"At least {stats.n_seeds_needed()} seeds are needed."
        said.append(f"{seeds}, so **no difference can be established**{whom}. {needed}")
    for n, common in ((1, "one seed in common with {}, too few for a test"), (0, "no seeds in common with {}")):
        rows = others[(others["n"] == n) & others["value"].notna()]
        if len(rows):
            has = "has" if len(rows) == 1 else "have"
            said.append(f"{wording.join(map(wording.code, rows.index))} {has} {common.format(baseline)}.")
    return said


def _among_those_that_grow(compared: pd.DataFrame, metric: str, said: list[str]) -> str:
    """Say where the experiments that grow ended, next to one of them, without what was said already."""
    title = metric.replace("_", " ")
    new = [*_baseline(compared, title)[-1:], *_established(compared, title), *_nearest(compared, metric)]
    new += [sentence for sentence in _not_testable(compared) if sentence not in said]
    return f"Among those that grow, {' '.join(new)}"


def _cost(compared: pd.DataFrame) -> list[str]:
    costs = compared["cost"].iloc[1:].dropna()
    if costs.empty:
        return []
    low, high = f"{costs.min():.0%}", f"{costs.max():.0%}"
    span = low if low == high else f"{low} ({wording.code(costs.idxmin())}) to {high} ({wording.code(costs.idxmax())})"
    whom = wording.code(costs.index[0]) if len(costs) == 1 else "the others"
    of = f"of the multiply-adds of {wording.code(compared.index[0])}"
    said = [f"Training {whom} took {span} {of}, not counting what choosing neurons takes."]
    if any(GREEDY in name.split(" · ") for name in costs.index):
        said.append(
            f"{wording.code(GREEDY)} also trained every possible split for an epoch, which is not counted either."
        )
    return said


def _left_out(compared: pd.DataFrame) -> list[str]:
    said = []
    for name, row in compared[compared["diverged"] > 0].iterrows():
        of = "All" if row["diverged"] == row["seeds"] else f"{row['diverged']:.0f} of"
        are = "is" if row["diverged"] == 1 else "are"
        said.append(
            f"{of} {wording.count([int(row['seeds'])], 'seed')} of {wording.code(name)} diverged and {are} left out."
        )
    return said


def _lengths(table: pd.DataFrame) -> list[str]:
    last = table.groupby("policy")["epoch"].max()
    return [f"Experiments end after {wording.span(last, '{}')} epochs; each counts at its own end."] * (
        last.nunique() > 1
    )


def _subject(rows: pd.DataFrame, others: pd.DataFrame) -> tuple[str, str]:
    """Return how a sentence calls some of the others, and what names them behind it, such as ": `a` and `b`"."""
    if len(others) == 1:
        return wording.code(others.index[0]), ""
    if len(rows) == len(others):
        return "Both others" if len(others) == 2 else f"All {len(others)} others", ""
    return f"{len(rows)} of the {len(others)} others", f": {wording.join(map(wording.code, rows.index))}"
