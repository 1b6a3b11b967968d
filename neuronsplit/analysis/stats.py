"""Intervals and tests of differences between policies, paired by seed."""

import zlib

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.stats

_LEVEL = 0.05  # of the tests that give verdicts
_N_RESAMPLES = 10_000  # assignments of signs, at most


def intervals(values: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each column and its 95 % interval (Student's t), mean ± t(n − 1, 0.975) · sd / √n.

    values: a row per seed. Missing values are left out.
    Returns a row per column of values, with the columns n, mean, low, high. The last two are NaN for fewer than 2
    values.

    The interval is exact for normal values. With n = 10, it contains the true mean in 92 % of samples of skewed values
    (log-normal, σ = 0.5). For heavy-tailed values (t with 3 degrees of freedom), it does so in 96 % of samples.
    """
    n, mean = values.count(), values.mean()
    half_width = scipy.stats.t.ppf(0.975, n - 1) * values.std() / n**0.5
    return pd.DataFrame({"n": n, "mean": mean, "low": mean - half_width, "high": mean + half_width})


def sd_intervals(values: pd.DataFrame) -> pd.DataFrame:
    """Return the standard deviation of each column and its 95 % interval (chi-square, for a normal sample).

    values: a row per seed. Missing values are left out.
    Returns a row per column of values, with the columns n, sd, low, high. These are NaN for fewer than 2 values.
    """
    n, sd = values.count(), values.std()
    low, high = (sd * ((n - 1) / scipy.stats.chi2.ppf(q, n - 1)) ** 0.5 for q in (0.975, 0.025))
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
    p_holm: p, corrected by Holm's method for the number of policies that have a p.
    smallest_p_holm: the smallest p_holm that as many seeds and policies can give, whatever the differences.
    minimum_detectable_effect: for a t-test, with Bonferroni's correction for the number of policies.
    verdict: "better" or "worse" where p_holm < 0.05, and "too few seeds" where smallest_p_holm is not below 0.05.
    """
    sign = -1 if metric.endswith("loss") else 1
    result = intervals(differences)
    columns = {name: column.dropna() for name, column in differences.items()}
    quarters = {name: scipy.stats.trim_mean(v, 0.25) if len(v) else np.nan for name, v in columns.items()}
    result["interquartile_mean"] = quarters
    result["prob_improvement"] = {name: (np.sign(sign * v).mean() + 1) / 2 for name, v in columns.items()}
    result["p"] = {name: sign_flip_test(v) for name, v in columns.items()}
    result["p_holm"] = holm(result["p"])
    result["smallest_p_holm"] = holm(result["n"].map(smallest_p))
    level = _LEVEL / max(result["p"].count(), 1)
    effects = {name: minimum_detectable_effect(len(v), level) * v.std() for name, v in columns.items()}
    result["minimum_detectable_effect"] = effects
    better = np.where(sign * result["mean"] > 0, "better", "worse")
    result["verdict"] = np.where(result["p_holm"] < _LEVEL, better, "no difference found")
    result.loc[~(result["smallest_p_holm"] < _LEVEL), "verdict"] = "too few seeds"
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
    result = scipy.stats.permutation_test(
        (values.to_numpy(),), np.mean, permutation_type="samples", n_resamples=_N_RESAMPLES, vectorized=True,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return result.pvalue


def smallest_p(n: int) -> float:
    """Return the smallest p-value that `sign_flip_test` can give for n values, which is 2 / 2ⁿ if it is exact.

    Two assignments of signs are always as far from 0 as the best: all positive and all negative. The result is NaN for
    fewer than 2 values.
    """
    return 2 / min(2 ** min(n, 30), _N_RESAMPLES + 1) if n > 1 else np.nan


def n_seeds_needed(n_tests: int) -> float:
    """Return the number of seeds from which on a corrected p-value can be below 0.05; infinite if none is enough."""
    enough = (n for n in range(2, 31) if n_tests * smallest_p(n) < _LEVEL)
    return next(enough, np.inf)


def holm(p: pd.Series) -> pd.Series:
    """Correct p-values for their number (Holm 1979); missing ones stay missing and do not count.

    If all null hypotheses are true, the probability that any corrected value is below 0.05 is at most 0.05.
    """
    ranked = p.dropna().sort_values()
    corrected = ranked * np.arange(len(ranked), 0, -1)
    return corrected.cummax().clip(upper=1).reindex(p.index)


def minimum_detectable_effect(n: int, level: float) -> float:
    """Return the smallest true mean, in standard deviations, that a t-test of n values finds 4 times in 5.

    level: the significance level of the two-sided test.
    The power is that of a noncentral t (Cohen 1988, section 2.3), for results with the correct sign.
    The result is NaN for fewer than 4 values.
    """
    critical = scipy.stats.t.ppf(1 - level / 2, n - 1)

    def missing_power(effect):
        return 0.8 - scipy.stats.nct.sf(critical, n - 1, effect * n**0.5)

    return scipy.optimize.brentq(missing_power, 0, (critical + 8) / n**0.5) if n > 3 else np.nan


def style_tests(tests: pd.DataFrame, digits: int = 4) -> "pd.io.formats.style.Styler":
    """Format the result of `paired_tests` for display, with `digits` after the point and verdicts in colour."""
    columns = {
        "difference": [signed(value, digits) for value in tests["mean"]],
        "95 % interval (Student's t)": [interval(a, b, digits) for a, b in zip(tests["low"], tests["high"])],
        "interquartile mean": [signed(value, digits) for value in tests["interquartile_mean"]],
        "better in": tests["prob_improvement"].map("{:.0%}".format),
        "p": tests["p"].map("{:.3f}".format),
        "p (Holm)": tests["p_holm"].map("{:.3f}".format),
        "detectable": tests["minimum_detectable_effect"].map(f"{{:.{digits}f}}".format),
        "verdict": tests["verdict"],
    }
    return style_verdicts(pd.DataFrame(columns, index=tests.index).replace("nan", "–"))


def style_verdicts(texts: pd.DataFrame) -> "pd.io.formats.style.Styler":
    """Format a table of texts for display, with the column `verdict`, if there is one, in colour."""
    colors = {"better": "color: #1b7837", "worse": "color: #b2182b"}
    styler = texts.rename_axis(None).style.format(escape="html").format_index(escape="html")  # names come from files
    if "verdict" in texts:
        styler = styler.map(lambda verdict: colors.get(verdict, "color: #737373"), subset="verdict")
    styler = styler.set_uuid(f"{zlib.crc32(texts.to_csv().encode()):08x}")  # the same in every run
    return styler.set_properties(**{"text-align": "right", "white-space": "nowrap"})


def signed(value: float, digits: int = 4) -> str:
    """Return a number with its sign, or a dash for a missing one."""
    return "–" if np.isnan(value) else f"{value:+.{digits}f}".replace("-", "−")


def interval(low: float, high: float, digits: int = 4) -> str:
    """Return an interval such as "[−0.0130, +0.0020]", or a dash for a missing one."""
    return "–" if np.isnan(low) else f"[{signed(low, digits)}, {signed(high, digits)}]"
