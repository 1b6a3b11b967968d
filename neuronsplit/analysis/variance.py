"""What decides: the share of the variance of a result that each choice accounts for, when all are drawn at random."""

import numpy as np
import pandas as pd
import scipy.stats

N_GROUPS = 20  # of the jackknife


def omega_squared(values: pd.Series, levels: pd.Series) -> float:
    """Return ω², the share of the variance of values (n,) that lies between levels (n,); 0 where none can be seen.

    ω² = (SS_between − df_between · MS_within) / (SS_total + MS_within). It does not
    grow with the number of levels, as the plain share does (Olejnik & Algina 2003, Psychological Methods 8, 434).
    It is NaN if there are not more values than levels.
    """
    values = values.astype(float)
    means, n_levels = values.groupby(levels.to_numpy()).transform("mean"), levels.nunique()
    between, total = ((means - values.mean()) ** 2).sum(), ((values - values.mean()) ** 2).sum()
    if len(values) <= n_levels:
        return np.nan
    within = (total - between) / (len(values) - n_levels)
    return max(0.0, (between - (n_levels - 1) * within) / (total + within)) if total else 0.0


def variance_shares(values: pd.Series, choices: pd.DataFrame) -> pd.DataFrame:
    """Return for each choice the share of the variance of values (n,) that it accounts for, whatever the others are.

    choices: the level of each choice (n, choices), drawn independently of one another.
    Returns a row per choice, with the columns share, low, high: ω² and its 95 % interval. The interval is Student's t
    with the standard error of a jackknife of 20 groups (Efron & Tibshirani 1993, section 11.5). It is NaN for fewer
    than 40 values.
    """
    rows = {}
    for name, levels in choices.items():
        share, half_width = omega_squared(values, levels), np.nan
        if len(values) >= 2 * N_GROUPS:
            group = np.arange(len(values)) % N_GROUPS
            without = [omega_squared(values[group != g], levels[group != g]) for g in range(N_GROUPS)]
            se = ((N_GROUPS - 1) * np.var(without)) ** 0.5
            half_width = scipy.stats.t.ppf(0.975, N_GROUPS - 1) * se
        rows[name] = {"share": share, "low": np.maximum(0, share - half_width), "high": share + half_width}
    return pd.DataFrame(rows).T
