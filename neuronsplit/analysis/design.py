"""The families of comparisons of a study whose arms differ from one base arm in one choice each, or in a few.

Every arm is tuned on its own, so what was tuned has no part in its name. The base arm has the most frequent value of
each choice among the arms that grow. A `table` is that of the study, with all of ID_COLUMNS.
"""

from collections.abc import Callable, Mapping

import pandas as pd

from neuronsplit.analysis import cost, stats, tables
from neuronsplit.analysis.files import read_table
from neuronsplit.locations import ROOT
from neuronsplit.names import CONTROLS, NO_SPLIT, TUNED_COLUMNS

COMMITTED = {  # of each data set of the design: its table, from the project's folder
    name: f"figures/data/design-{name}.parquet" for name in ("digits", "mnist-1d", "fashion-mnist")
}
QUESTIONS = {"policy": "which", "growth": "how", "schedule": "when"}  # a choice, and the question that it answers
SETTING = ["optimizer", "epochs"]  # in which a control can differ too
CHOICES = [*QUESTIONS, "state", *SETTING]
ANY_WIDTH = f"{NO_SPLIT} of any width"  # the control whose width is tuned too; it makes no splits
SAME_COST = 0.05  # costs that differ by a smaller share count as equal

Family = dict[str, str]  # comparisons that are tested together: the baseline of each arm, by their names


def read_tables(files: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """Return the tables that are there of files, by data set, from the project's folder. Without any, of COMMITTED."""
    found = {name: ROOT / file for name, file in (files or COMMITTED).items()}
    return {name: read_table(file) for name, file in found.items() if file.exists()}


def arms_of(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row per arm, with its name in the index.

    The columns are CHOICES; splits; and `differs`, the names of the choices in which the arm differs from the base arm.
    A control has no growth, schedule or state, so it does not differ in them.
    """
    arms = table[[*CHOICES, "splits"]].drop_duplicates().reset_index(drop=True)
    base = arms[~arms["policy"].isin(CONTROLS)].mode().iloc[0]
    names, differs = zip(*(_describe(arm, base) for _, arm in arms.iterrows()))
    return arms.assign(differs=differs).set_axis(list(names))


def _describe(arm: pd.Series, base: pd.Series) -> tuple[str, tuple[str, ...]]:
    """Return the name of an arm, and the choices in which it differs from the base arm."""
    control = arm["policy"] in CONTROLS
    differs = tuple(name for name in (SETTING if control else CHOICES) if arm[name] != base[name])
    special = {"state": f"state {arm['state']}", "epochs": f"{arm['epochs']} epochs"}
    parts = [special.get(name, arm[name]) for name in differs]
    if control:
        parts.insert(0, ANY_WIDTH if arm["policy"] == NO_SPLIT and not arm["splits"] else arm["policy"])
    return " · ".join(parts) or arm["policy"], differs


def with_arms(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the names of the arms in the column `policy`."""
    arms = arms_of(table).rename_axis("arm").reset_index()
    named = table.merge(arms, how="left", on=[*CHOICES, "splits"])
    return named.assign(policy=named["arm"]).drop(columns=["arm", "differs"])


def families(table: pd.DataFrame) -> dict[str, Family]:
    """Return the families of comparisons by their names.

    which, how, when: arms that differ from the base arm in this alone, against it.
    combined: arms that differ from it in several of these, against it.
    state: what a new neuron has of the optimiser's state, against carrying it, with each optimiser.
    equal epochs: every other arm against the final width from the start, with the same optimiser.
    equal multiply-adds: growing arms against the final width for as many epochs as cost the same, where there is one.
    any width: growing arms against the control whose width is tuned too.
    """
    arms = arms_of(table)
    control, differs = arms["policy"].isin(CONTROLS), arms["differs"].map(set)
    base = arms.index[~control & (differs.map(len) == 0)][0]
    found = {question: arms.index[~control & (differs == {choice})] for choice, question in QUESTIONS.items()}
    found["combined"] = arms.index[~control & (differs.map(len) > 1) & differs.map(set(QUESTIONS).issuperset)]
    result = {name: dict.fromkeys(names, base) for name, names in found.items()}
    result |= {"state": _state(arms[~control & differs.map({"state", "optimizer"}.issuperset)])}
    return {name: family for name, family in (result | _against_controls(table, arms)).items() if family}


def _state(arms: pd.DataFrame) -> Family:
    """Compare arms that differ in the state with the one of the same optimiser that differs in nothing else."""
    differs = arms["differs"].map(lambda names: "state" in names)
    carried = {arm["optimizer"]: name for name, arm in arms[~differs].iterrows()}
    return {name: carried[arm["optimizer"]] for name, arm in arms[differs].iterrows()}


def _against_controls(table: pd.DataFrame, arms: pd.DataFrame) -> dict[str, Family]:
    final_width = arms[(arms["policy"] == NO_SPLIT) & (arms["splits"] > 0)]
    costs = tables.last_epoch(cost.with_cost(with_arms(table), "neuron_epochs")).groupby("policy")["cost"].mean()
    found = {"equal epochs": {}, "equal multiply-adds": {}, "any width": {}}
    for name, arm in arms[~arms.index.isin(final_width.index)].iterrows():
        controls = final_width[final_width["optimizer"] == arm["optimizer"]]
        for control in controls.index[controls["epochs"] == arm["epochs"]]:
            found["equal epochs"][name] = control
        if arm["policy"] in CONTROLS:
            continue
        away = (costs[controls.index] / costs[name] - 1).abs()
        if len(away) and away.min() <= SAME_COST:
            found["equal multiply-adds"][name] = away.idxmin()
        if ANY_WIDTH in arms.index and "optimizer" not in arm["differs"]:
            found["any width"][name] = ANY_WIDTH
    return found


def tests(
    table: pd.DataFrame, metric: str, values_of: Callable[..., pd.DataFrame] = tables.at_best_validation
) -> pd.DataFrame:
    """Test each family of comparisons, paired by seed, with max-T within the family.

    values_of: which values, as in `tables.paired_differences`.
    Returns a row per family and arm, in the index. The columns are those of `stats.paired_tests`; baseline; and
    tuned_alike, whether the arm has the tuned settings of its baseline. Of an arm that has them, the difference is due
    to the choice and to chance. That of another arm is due to its settings too.
    """
    values, settings, found = values_of(with_arms(table), metric), tuned_settings(table), {}
    for name, family in families(table).items():
        differences = pd.DataFrame({arm: values[arm] - values[baseline] for arm, baseline in family.items()})
        alike = {arm: settings.loc[arm].equals(settings.loc[baseline]) for arm, baseline in family.items()}
        tested = stats.paired_tests(differences, metric)
        found[name] = tested.assign(baseline=pd.Series(family), tuned_alike=pd.Series(alike))
    return pd.concat(found, names=["family", "arm"])


def against_control(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Compare every arm of the base arm's optimiser with the final width from the start, paired by seed.

    Returns a row per arm. The columns are those of `stats.intervals`, and cost: share of the control's multiply-adds.
    """
    arms, named = arms_of(table), with_arms(table)
    same = [name for name, arm in arms.iterrows() if "optimizer" not in arm["differs"]]
    values, costs = tables.at_best_validation(named, metric), cost.relative_cost(named, NO_SPLIT)
    return stats.intervals(values[same].sub(values[NO_SPLIT], axis=0)).assign(cost=costs[same])


def tuned_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Return the tuned settings of every arm: a row per arm, with the columns TUNED_COLUMNS."""
    return with_arms(table).drop_duplicates("policy").set_index("policy")[TUNED_COLUMNS]
