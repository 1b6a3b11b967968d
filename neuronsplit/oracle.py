"""How good a choice could be: what policies would have chosen, held to every split that there was."""

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from neuronsplit import learned
from neuronsplit.branches import DRAW, NEURON, ORDERS, UNSPLIT
from neuronsplit.policies import POLICIES

# columns that the branches of one network share; SETTING is all but the last two
NETWORK = "dataset rule optimizer learning_rate width grown age seed horizon".split()
SETTING = NETWORK[:-2]
ORACLE = "oracle"  # the best branch under one order, held to the other


def chances(policy: str, rows: pd.DataFrame) -> np.ndarray:
    """The probability (H,) with which a policy splits each neuron, from the scores of its branches."""
    if policy == "random":
        return np.full(len(rows), 1 / len(rows))
    scores = torch.tensor(_scores(policy, rows)).double()
    if policy.endswith("-probs"):
        return (10 * scores).softmax(0).numpy()
    return np.eye(len(rows))[int(POLICIES[policy].pick(scores[None], []))]


def _scores(policy: str, rows: pd.DataFrame) -> np.ndarray:
    """The scores (H,) by which a policy chooses."""
    name = POLICIES[policy].score.__name__
    if name == learned.predicted_gain.__name__:
        return learned.predict(learned.weights(), learned.inputs(learned.of_table(rows)))[0].numpy()
    return rows[name].to_numpy()


def settings(table: pd.DataFrame) -> pd.Series:
    """The name of each row's setting, as "sgd 0.01 · scaled · width 20, age 11, 10 grown"."""

    def name(row: tuple) -> str:
        of_dataset, rule, optimizer, rate, width, grown, age = row
        by_splits = f", {grown} grown" if grown else ""
        return f"{optimizer} {rate:g} · {rule} · width {width}, age {age}{by_splits}"

    names = {row: name(row) for row in table[SETTING].drop_duplicates().itertuples(index=False, name=None)}
    return pd.Series([names[row] for row in table[SETTING].itertuples(index=False, name=None)], table.index)


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """How much lower each policy's choice ends than the mean branch: a row a network, horizon and policy, and ORACLE.

    gain: mean validation loss of the branches less that of the choice,
    over both orders; a lottery's is its expectation. The oracle chooses by one order and is measured by the other, both
    ways round, for the best of H losses is lower than it deserves. rank: Spearman's correlation of the score with the
    gain of a branch; the oracle's is that of the branches' gains under the two orders. split: how much lower the mean
    branch ends than the network unsplit.
    """
    found = []
    for key, every in table.groupby(NETWORK, sort=False):
        rows = every[every["kind"] == NEURON]
        a, b = (rows[f"loss_{name}"].to_numpy() for name in ORDERS)
        mean = (a + b) / 2
        unsplit = every.loc[every["kind"] == UNSPLIT, [f"loss_{name}" for name in ORDERS]].mean(axis=None)
        of_network = dict(zip(NETWORK, key)) | {"split": unsplit - mean.mean()}
        best = (b.mean() - b[a.argmin()] + a.mean() - a[b.argmin()]) / 2
        found.append(of_network | {"policy": ORACLE, "gain": best, "rank": spearmanr(a, b).statistic})
        for policy in POLICIES:
            chance = chances(policy, rows)
            found.append(of_network | {"policy": policy, "gain": mean.mean() - chance @ mean})
            found[-1]["rank"] = rank_correlation(policy, rows, -mean)
    return pd.DataFrame(found)


def rank_correlation(policy: str, rows: pd.DataFrame, gain: np.ndarray) -> float:
    """Spearman's correlation of what a policy prefers with the gain of each branch; NaN for random."""
    if policy == "random":
        return np.nan
    scores = _scores(policy, rows)
    preference = {"min": -scores, "half": -abs(scores - 0.5)}.get(policy.split("-")[0], scores)
    return spearmanr(preference, gain).statistic


def spreads(table: pd.DataFrame) -> pd.DataFrame:
    """What makes validation losses of one network's branches differ: standard deviations, a row a network and horizon.

    choice: of the neuron, what both orders agree on (the root of their covariance, 0 where that is negative).
    coefficients: the same of the draws. order: of the mini-batches after the split, what is common to all branches.
    rest: what the order does to one branch and not to the others.
    """
    found = []
    for key, rows in table.groupby(NETWORK, sort=False):
        sd = {}
        for kind, name in ((NEURON, "choice"), (DRAW, "coefficients")):
            a, b = (rows.loc[rows["kind"] == kind, f"loss_{order}"].to_numpy() for order in ORDERS)
            sd[name] = np.sqrt(max(np.cov(a, b)[0, 1], 0))
            if kind == NEURON:
                sd |= {"order": abs((a - b).mean()) / np.sqrt(2), "rest": np.std(a - b, ddof=1) / np.sqrt(2)}
        found.append(dict(zip(NETWORK, key)) | sd)
    return pd.DataFrame(found)
