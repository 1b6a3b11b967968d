"""Sentences about tested families of comparisons, in Markdown: a list with an item per data set.

`tests` are those of each data set by its name, as `design.tests` returns them. A family that a data set lacks is left
out.
"""

import pandas as pd

from neuronsplit.analysis import stats, wording

VERDICTS = ("better", "worse")  # of differences that are established


def of_family(tests: dict[str, pd.DataFrame], family: str) -> dict[str, pd.DataFrame]:
    """Return the tests of one family, with a row per arm, for each data set that has this family."""
    return {name: found.loc[family] for name, found in tests.items() if family in found.index.get_level_values(0)}


def headline(tests: dict[str, pd.DataFrame], family: str, noun: str, baseline: str) -> str:
    """Say in two sentences which arms of a family are better, and which worse, and on which data sets.

    noun, baseline: what the arms and their baseline are called.
    """
    found = of_family(tests, family)
    n_sets = wording.count([len(found)], "data set")
    said = {}
    for verdict in VERDICTS:
        where = {}
        for name, rows in found.items():
            for arm in rows.index[rows["verdict"] == verdict]:
                where.setdefault(arm, []).append(name)
        said[verdict] = (
            wording.join(f"{wording.code(arm)} on {wording.join(names)}" for arm, names in where.items())
            if where
            else ""
        )
    better = f"**Better than {baseline}: {said['better']}.**"
    if not said["better"]:
        better = f"**No {noun} is established as better than {baseline}**, on {n_sets}."
    return f"{better} {'Worse: ' + said['worse'] if said['worse'] else 'None is worse'}."


def established(tests: dict[str, pd.DataFrame], family: str) -> str:
    """Say which arms of a family are better or worse than their baseline."""
    lines = []
    for name, rows in of_family(tests, family).items():
        of = f"- **{name}**: of {wording.count([len(rows)], 'arm')},"
        for verdict in VERDICTS:
            arms = rows.index[rows["verdict"] == verdict]
            if len(arms):
                verb, noun = ("is", "arm") if len(arms) == 1 else ("are", "arms")
                listed = wording.join(map(wording.code, arms))
                lines.append(f"{of} {len(arms)} {verb} {verdict}: the {noun} {listed}.")
        if not rows["verdict"].isin(VERDICTS).any():
            why = " There are too few seeds." if (rows["verdict"] == "too few seeds").all() else ""
            lines.append(f"{of} none is established as better or worse.{why}")
    return "\n".join(lines)


def visible(tests: dict[str, pd.DataFrame], family: str, digits: int = 3) -> str:
    """Say how large a true difference has to be, so that it is found 4 times in 5."""
    lines = []
    for name, rows in of_family(tests, family).items():
        effects = rows["minimum_detectable_effect"]
        ends = " to ".join(f"{effect:.{digits}f}" for effect in (effects.min(), effects.max()))
        lines.append(f"- **{name}**: {effects.median():.{digits}f} for the median arm, {ends} over all arms.")
    return "\n".join(lines)


def tuned(tests: dict[str, pd.DataFrame], family: str) -> str:
    """Say how many arms have the settings of their baseline, and what is established of these and of the others."""
    lines = []
    for name, rows in of_family(tests, family).items():
        alike, others = rows[rows["tuned_alike"]], rows[~rows["tuned_alike"]]
        lines.append(f"- **{name}**: {len(alike)} of {len(rows)} arms have the settings of the baseline.")
        parts = {"With the same settings": alike, "With other settings": others}
        lines[-1] += "".join(f" {title}, {_counted(part)}." for title, part in parts.items() if len(part))
    return "\n".join(lines)


def _counted(rows: pd.DataFrame) -> str:
    """Count verdicts and give the range of the differences, such as "2 are worse; differences are +0.01 to +0.02"."""
    counts = {verdict: int((rows["verdict"] == verdict).sum()) for verdict in VERDICTS}
    said = [f"{n} {'is' if n == 1 else 'are'} {verdict}" for verdict, n in counts.items() if n]
    ends = [stats.signed(value, 3) for value in (rows["mean"].min(), rows["mean"].max())]
    return f"{' and '.join(said) or 'none is established'}; differences are {' to '.join(dict.fromkeys(ends))}"
