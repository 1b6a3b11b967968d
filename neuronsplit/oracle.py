"""How good a choice could be: what policies would have chosen, held to every split that there was."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from neuronsplit import learned
from neuronsplit.branches import DRAW, NEURON, ORDERS, UNSPLIT
from neuronsplit.policies import POLICIES, SHARPNESS
from neuronsplit.scores import FEATURES

# columns that the branches of one network share; SETTING is all but the last two
NETWORK = "dataset rule optimizer learning_rate width grown age batch_size seed horizon".split()
SETTING = NETWORK[:-2]
ORACLE = "oracle"  # the best branch under one order, held to the other
LOSSES = [f"loss_{order}" for order in ORDERS]


def chances(policy: str, rows: pd.DataFrame) -> np.ndarray:
    """The probability (H,) with which a policy splits each neuron, from the scores of its branches."""
    if policy == "random":
        return np.full(len(rows), 1 / len(rows))
    scores = torch.tensor(_scores(policy, rows)).double()
    if policy.endswith("-probs"):
        return (SHARPNESS * scores).softmax(0).numpy()
    return np.eye(len(rows))[int(POLICIES[policy].pick(scores[None], []))]


def _scores(policy: str, rows: pd.DataFrame) -> np.ndarray:
    """The scores (H,) by which a policy chooses."""
    return rows[POLICIES[policy].score.__name__].to_numpy()


def settings(table: pd.DataFrame) -> pd.Series:
    """The name of each row's setting, as "sgd 0.01 · scaled · width 20, age 11, 10 grown"; datasets where they vary."""
    vary = [name for name in ("dataset", "batch_size") if table[name].nunique() > 1]

    def name(row: pd.Series) -> str:
        also = "".join(f", {name.replace('_', ' ')} {row[name]}" for name in vary)
        by_splits = f", {row.grown} grown" if row.grown else ""
        width = f"width {row.width}, age {row.age}{by_splits}{also}"
        return f"{row.optimizer} {row.learning_rate:g} · {row.rule} · {width}"

    names = {tuple(row): name(row) for _, row in table[SETTING].drop_duplicates().iterrows()}
    return pd.Series([names[row] for row in table[SETTING].itertuples(index=False, name=None)], table.index)


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """How much lower each policy's choice ends than the mean branch: a row a network, horizon and policy, and ORACLE.

    Of POLICIES, those whose score the table has. gain: mean validation loss of the branches less that of the choice,
    over both orders; a lottery's is its expectation. The oracle chooses by one order and is measured by the other, both
    ways round, for the best of H losses is lower than it deserves. rank: Spearman's correlation of the score with the
    gain of a branch; the oracle's is that of the branches' gains under the two orders. split: how much lower the mean
    branch ends than the network unsplit.
    """
    found = []
    for key, every in table.groupby(NETWORK, sort=False):
        rows = every[every["kind"] == NEURON]
        a, b = rows[LOSSES].to_numpy().T
        mean = (a + b) / 2
        unsplit = every.loc[every["kind"] == UNSPLIT, LOSSES].mean(axis=None)
        of_network = dict(zip(NETWORK, key)) | {"split": unsplit - mean.mean()}
        best = (b.mean() - b[a.argmin()] + a.mean() - a[b.argmin()]) / 2
        found.append(of_network | {"policy": ORACLE, "gain": best, "rank": spearmanr(a, b).statistic})
        for policy in [p for p in POLICIES if p == "random" or POLICIES[p].score.__name__ in rows]:
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


def variances(table: pd.DataFrame) -> pd.DataFrame:
    """What makes validation losses of one network's branches differ: variances, a row a network and horizon.

    choice: of the neuron, what both orders agree on, which is their covariance. coefficients: the same of the draws.
    order: of the mini-batches after the split, what is common to all branches. rest: what the order does to one branch
    and not to the others. Each is unbiased, so that it may be negative where there is none: take means before roots.
    """
    found = []
    for key, rows in table.groupby(NETWORK, sort=False):
        (a, b), (c, d) = (rows.loc[rows["kind"] == kind, LOSSES].to_numpy().T for kind in (NEURON, DRAW))
        of_network = dict(zip(NETWORK, key)) | {"choice": np.cov(a, b)[0, 1], "coefficients": np.cov(c, d)[0, 1]}
        rest = np.var(a - b, ddof=1) / 2
        found.append(of_network | {"order": (a - b).mean() ** 2 / 2 - rest / len(a), "rest": rest})
    return pd.DataFrame(found)


class Example(NamedTuple):
    """A network that was split in every way: its columns in the table, what is seen of it, and what came of it."""

    of: dict[str, object]
    x: Tensor  # (1, H, learned.INPUTS)
    gains: Tensor  # (2, H): how much lower than unsplit each branch ended, under either order


def examples(table: pd.DataFrame, horizon: int) -> list[Example]:
    """Every network of a table, with what came of it so many epochs after the split."""
    found = []
    for key, rows in table[table["horizon"] == horizon].groupby(NETWORK, sort=False):
        neurons = rows[rows["kind"] == NEURON]
        unsplit, split = (of_kind[LOSSES].to_numpy().T for of_kind in (rows[rows["kind"] == UNSPLIT], neurons))
        known = {f.__name__: torch.tensor(neurons[f.__name__].to_numpy(float))[None] for f in FEATURES}  # (1, H) each
        found.append(Example(dict(zip(NETWORK, key)), learned.inputs(known), torch.tensor(unsplit - split).float()))
    return found
