"""Intervals and tests of differences between policies, paired by seed."""

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler
from scipy.optimize import brentq
from scipy.stats import chi2, nct, permutation_test, t, trim_mean


def intervals(values: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each column and its 95 % interval (Student's t), mean ± t(n − 1, 0.975) · sd / √n.

    values: a row per seed. Missing values are left out.
    Returns a row per column of values, with the columns n, mean, low, high. The last two are NaN for fewer than 2
    values.

    The interval is exact for normal values. With n = 10, it contains the true mean in 92 % of samples of skewed values
    (log-normal, σ = 0.5). For heavy-tailed values (t with 3 degrees of freedom), it does so in 96 % of samples.
    """
    n, mean = values.count(), values.mean()
    half_width = t.ppf(0.975, n - 1) * values.std() / n**0.5
    return pd.DataFrame({"n": n, "mean": mean, "low": mean - half_width, "high": mean + half_width})


def sd_intervals(values: pd.DataFrame) -> pd.DataFrame:
    """Return the standard deviation of each column and its 95 % interval (chi-square, for a normal sample).

    values: a row per seed. Missing values are left out.
    Returns a row per column of values, with the columns n, sd, low, high. These are NaN for fewer than 2 values.
    """
    n, sd = values.count(), values.std()
    low, high = (sd * ((n - 1) / chi2.ppf(quantile, n - 1)) ** 0.5 for quantile in (0.975, 0.025))
    return pd.DataFrame({"n": n, "sd": sd, "low": low, "high": high})


def paired_tests(differences: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Test paired differences to a baseline, as `tables.paired_differences` returns them.

    differences: a row per seed, a column per policy.
    metric: the name of what differs. A lower value is better if the name ends in "loss".

    Returns a row per policy. Its columns are
    n, mean, low, high: the mean difference and its 95 % interval (Student's t).
    interquartile_mean: the mean of the middle half.
    prob_improvement: the share of seeds at which the policy is better than the baseline. A tie counts half.
    p: the p-value of the sign flip test.
    p_holm: p, corrected by Holm's method for the number of policies in the table.
    minimum_detectable_effect: for a t-test, with Bonferroni's correction for the number of policies.
    verdict: "better" or "worse" where p_holm < 0.05. With n seeds, this is out of reach for more than 0.05 · 2ⁿ⁻¹
        policies.
    """
    sign = -1 if metric.endswith("loss") else 1
    result = intervals(differences)
    columns = {name: column.dropna() for name, column in differences.items()}
    result["interquartile_mean"] = {name: trim_mean(v, 0.25) if len(v) else np.nan for name, v in columns.items()}
    result["prob_improvement"] = {name: (np.sign(sign * v).mean() + 1) / 2 for name, v in columns.items()}
    result["p"] = {name: sign_flip_test(v) for name, v in columns.items()}
    result["p_holm"] = holm(result["p"])
    effects = {name: minimum_detectable_effect(len(v), 0.05 / len(columns)) * v.std() for name, v in columns.items()}
    result["minimum_detectable_effect"] = effects
    better = np.where(sign * result["mean"] > 0, "better", "worse")
    result["verdict"] = np.where(result["p_holm"] < 0.05, better, "no difference found")
    result.loc[result["n"] < 2, "verdict"] = "too few seeds"
    return result


def sign_flip_test(values: pd.Series, seed: int = 0) -> float:
    """Return the two-sided p-value of the hypothesis that the values are distributed symmetrically about 0.

    This is the share of all assignments of signs whose mean is at least as far from 0. It is exact for up to 13 values.
    For more, it is estimated from 10,000 random assignments, with this seed. It is NaN for fewer than 2 values.
    """
    if len(values) < 2:
        return np.nan
    if not values.any():
        return 1.0
    result = permutation_test(
        (values.to_numpy(),), np.mean, permutation_type="samples", n_resamples=10_000, vectorized=True,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return result.pvalue


def holm(p: pd.Series) -> pd.Series:
    """Correct p-values for their number (Holm 1979).

    If all null hypotheses are true, the probability that any corrected value is below 0.05 is at most 0.05.
    """
    ranked = p.sort_values()
    corrected = ranked * np.arange(len(ranked), 0, -1)
    return corrected.cummax().clip(upper=1)[p.index]


def minimum_detectable_effect(n: int, level: float) -> float:
    """Return the smallest true mean, in standard deviations, that a t-test of n values finds 4 times in 5.

    level: the significance level of the two-sided test.
    The power is that of a noncentral t (Cohen 1988, section 2.3), for results with the correct sign.
    The result is NaN for fewer than 4 values.
    """
    critical = t.ppf(1 - level / 2, n - 1)

    def missing_power(effect):
        return 0.8 - nct.sf(critical, n - 1, effect * n**0.5)

    return brentq(missing_power, 0, (critical + 8) / n**0.5) if n > 3 else np.nan


def style_tests(tests: pd.DataFrame, digits: int = 4) -> Styler:
    """Format the result of `paired_tests` for display, with `digits` after the point and verdicts in colour."""

    def signed(value):
        return f"{value:+.{digits}f}".replace("-", "−")

    columns = {
        "difference": tests["mean"].map(signed),
        "95 % interval (Student's t)": [f"[{signed(a)}, {signed(b)}]" for a, b in zip(tests["low"], tests["high"])],
        "interquartile mean": tests["interquartile_mean"].map(signed),
        "better in": tests["prob_improvement"].map("{:.0%}".format),
        "p": tests["p"].map("{:.3f}".format),
        "p (Holm)": tests["p_holm"].map("{:.3f}".format),
        "detectable": tests["minimum_detectable_effect"].map(f"{{:.{digits}f}}".format),
        "verdict": tests["verdict"],
    }
    colors = {"better": "color: #1b7837", "worse": "color: #b2182b", "no difference found": "color: #737373"}
    styler = pd.DataFrame(columns, index=tests.index).style.map(colors.get, subset="verdict")
    return styler.set_uuid("verdicts").set_properties(**{"text-align": "right", "white-space": "nowrap"})
