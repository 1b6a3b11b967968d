"""Intervals and tests of differences between policies, paired by seed."""

import itertools
import zlib
from functools import cache, lru_cache

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.stats

_LEVEL = 0.05  # of the tests that give verdicts
_MOST_ASSIGNMENTS = 100_000  # of signs


def intervals(values: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each column and its 95 % interval (Student's t), mean ± t(n − 1, 0.975) · sd / √n.

    values: a row per seed. Missing values are left out.
    Returns a row per column of values, with the columns n, mean, low, high. The last two are NaN for fewer than 2
    values.

    The interval is exact for normal values. It contains the true mean in 92 % of samples of 10 skewed values, and in
    93 % of samples of 20 (log-normal, σ = 0.5). For heavy-tailed values (t with 3 degrees of freedom), it does so in
    96 % of samples of either size.
    """
    n, mean = values.count(), values.mean()
    half_width = scipy.stats.t.ppf(0.975, n - 1) * values.std() / n**0.5
    return pd.DataFrame({"n": n, "mean": mean, "low": mean - half_width, "high": mean + half_width})


def paired_tests(differences: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Test paired differences to a baseline, as `tables.paired_differences` returns them, as one family.

    differences: a row per seed, a column per policy.
    metric: the name of what differs. A lower value is better if the name ends in "loss".

    Returns a row per policy. Its columns are
    n, mean, low, high: the mean difference and its 95 % interval (Student's t).
    interquartile_mean: the mean of the middle half.
    prob_improvement: the share of seeds at which the policy is better than the baseline. A tie counts half.
    p, p_adjusted: what `sign_flip_tests` returns, alone and corrected for all policies that have a p.
    smallest_p: the smallest p, and p_adjusted, that as many seeds can give, whatever the differences.
    minimum_detectable_effect: for a t-test, with Bonferroni's correction for the number of policies.
    verdict: "better" or "worse" where p_adjusted < 0.05, and "too few seeds" where smallest_p is not below 0.05.
    """
    sign = -1 if metric.endswith("loss") else 1
    result = intervals(differences)
    columns = {name: column.dropna() for name, column in differences.items()}
    quarters = {name: scipy.stats.trim_mean(v, 0.25) if len(v) else np.nan for name, v in columns.items()}
    result["interquartile_mean"] = quarters
    result["prob_improvement"] = {name: (np.sign(sign * v).mean() + 1) / 2 for name, v in columns.items()}
    result[["p", "p_adjusted"]] = sign_flip_tests(differences)
    result["smallest_p"] = result["n"].map(smallest_p)
    level = _LEVEL / max(result["p"].count(), 1)
    effects = {name: minimum_detectable_effect(len(v), level) * v.std() for name, v in columns.items()}
    result["minimum_detectable_effect"] = effects
    better = np.where(sign * result["mean"] > 0, "better", "worse")
    result["verdict"] = np.where(result["p_adjusted"] < _LEVEL, better, "no difference found")
    result.loc[~(result["smallest_p"] < _LEVEL), "verdict"] = "too few seeds"
    return result


def sign_flip_tests(differences: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Test the hypotheses that paired differences are distributed symmetrically about 0, for all policies together.

    differences: a row per seed, a column per policy.

    Returns a row per policy. Its columns are
    p: the share of all assignments of signs whose statistic is at least the one that was found. The statistic is
        |Σ d| / √Σ d², which ranks assignments as Student's t does.
    p_adjusted: the same for the largest statistic of this policy and of all that have smaller ones. It is at least that
        of every policy that has a larger one (step-down max-T; Westfall & Young 1993, algorithm 4.1).

    All policies share their signs, seed by seed, so what they have in common counts. A seed that a policy lacks is left
    out of its statistic. The probability that p_adjusted is below 0.05 for any true hypothesis is at most 0.05,
    whichever hypotheses are false.
    Both are exact for up to 17 seeds. For more, they are estimated from 100,000 assignments, with this seed.
    They are NaN for fewer than 2 differences. Such a policy does not count.
    """
    tested = differences.loc[:, differences.count() > 1].dropna(how="all").astype(float)
    roots = (tested**2).sum() ** 0.5
    scaled = (tested / roots.where(roots > 0, 1)).fillna(0)
    statistics = np.abs(_signs(len(scaled), seed) @ scaled.to_numpy())  # (assignments, policies), as found in row 0
    order = np.argsort(-statistics[0], kind="stable")
    statistics = statistics[:, order]
    found = statistics[0] - 1e-9  # ties count, though sums are rounded, at 0 too
    largest = np.maximum.accumulate(statistics[:, ::-1], axis=1)[:, ::-1]  # of each policy and those that follow
    adjusted = np.maximum.accumulate((largest >= found).mean(0))
    result = pd.DataFrame({"p": (statistics >= found).mean(0), "p_adjusted": adjusted}, tested.columns[order])
    return result.reindex(differences.columns)


@lru_cache(maxsize=1)  # 16 MB for 20 seeds
def _signs(n: int, seed: int) -> np.ndarray:
    """Return assignments of n signs (F, n), the first of which changes none.

    The opposite of an assignment has the same statistics, so half of all are all that there are.
    """
    if (half := 2 ** max(n - 1, 0)) <= _MOST_ASSIGNMENTS:
        changed = np.arange(half)[:, None] >> np.arange(n) & 1
    else:
        changed = np.random.default_rng(seed).integers(2, size=(_MOST_ASSIGNMENTS, n))
        changed[0] = 0
    return 1.0 - 2 * changed


def smallest_p(n: int) -> float:
    """Return the smallest p-value that `sign_flip_tests` can give for n seeds, which is 2 / 2ⁿ if it is exact.

    Two assignments of signs are always as clear as the clearest: all positive and all negative. The result is NaN for
    fewer than 2 seeds.
    """
    return max(2.0 ** (1 - n), 1 / _MOST_ASSIGNMENTS) if n > 1 else np.nan


def n_seeds_needed() -> int:
    """Return the number of seeds from which on a p-value can be below 0.05."""
    return next(n for n in itertools.count(2) if smallest_p(n) < _LEVEL)


@cache
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
        "p": tests["p"].map(_p_value),
        "p (max-T)": tests["p_adjusted"].map(_p_value),
        "detectable": tests["minimum_detectable_effect"].map(f"{{:.{digits}f}}".format),
        "verdict": tests["verdict"],
    }
    return style_verdicts(pd.DataFrame(columns, index=tests.index).replace("nan", "–"))


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


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
