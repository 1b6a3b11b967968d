"""How good the choice of a neuron could be: what policies choose, compared with every possible split of a network.

A table of all splits has a row per branch and horizon. A branch is a network after one of its possible splits. It is
trained on with two shuffles of the mini-batches, which gives the two validation losses SHUFFLE_LOSSES.
"""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from neuronsplit.names import DRAW, NETWORK_KEYS, NEURON, SHUFFLE_LOSSES, UNSPLIT

SETTING_KEYS = [name for name in NETWORK_KEYS if name not in ("seed", "horizon")]
ORACLE = "oracle"  # chooses the best branch by one shuffle and is measured by the other


def setting_labels(table: pd.DataFrame) -> pd.Series:
    """Label the setting of each row, as in "sgd 0.01 · scaled · width 20, after 11 epochs, 10 prior splits".

    A label names the data set and the batch size where they vary.
    """
    varying = [name for name in ("dataset", "batch_size") if table[name].nunique() > 1]

    def label(row: pd.Series) -> str:
        parts = [f"width {row.width}", "after " + _count(row.epochs_before, "epoch")]
        parts += [_count(row.prior_splits, "prior split")] if row.prior_splits else []
        parts += [f"{name.replace('_', ' ')} {row[name]}" for name in varying]
        return f"{row.optimizer} {row.learning_rate:g} · {row.growth} · {', '.join(parts)}"

    labels = {tuple(row): label(row) for _, row in table[SETTING_KEYS].drop_duplicates().iterrows()}
    return pd.Series([labels[row] for row in table[SETTING_KEYS].itertuples(index=False, name=None)], table.index)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def gains(table: pd.DataFrame, choices: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Measure how much lower than the mean branch the choice of each policy ends.

    choices: policy → what it chooses, indexed as the table's rows of type "neuron", as
    `growing.all_splits.policy_choices` makes it. Column probability: with which the policy splits the neuron; it adds
    to 1 per network and horizon. Column preference: a score of which the policy prefers the highest, or NaN throughout.
    Returns a row per network, horizon and policy, with the columns NETWORK_KEYS, policy and
    gain: the mean validation loss of all branches less the expected loss of the choice, over both shuffles.
    rank_correlation: Spearman's, of the preference with the gains of the branches; NaN without a preference.
    split_gain: the loss of the network left unsplit less the mean loss of its branches, the same for all policies.
    The policy ORACLE chooses by one shuffle and is measured by the other, both ways round. Measured by the same one it
    would gain too much, because the lowest of many losses is low by chance. Its rank correlation is that between the
    two shuffles.
    """
    records = []
    for key, rows in table.groupby(NETWORK_KEYS, sort=False):
        neurons = rows[rows["branch_type"] == NEURON]
        loss_0, loss_1 = neurons[SHUFFLE_LOSSES].to_numpy().T
        losses = (loss_0 + loss_1) / 2
        unsplit = rows.loc[rows["branch_type"] == UNSPLIT, SHUFFLE_LOSSES].mean(axis=None)
        network = dict(zip(NETWORK_KEYS, key)) | {"split_gain": unsplit - losses.mean()}
        best = (loss_1.mean() - loss_1[loss_0.argmin()] + loss_0.mean() - loss_0[loss_1.argmin()]) / 2
        records.append(network | {"policy": ORACLE, "gain": best, "rank_correlation": _spearman(loss_0, loss_1)})
        for policy, choice in choices.items():
            probability, preference = choice.loc[neurons.index, ["probability", "preference"]].to_numpy(float).T
            gain = losses.mean() - probability @ losses
            records.append(network | {"policy": policy, "gain": gain})
            records[-1]["rank_correlation"] = _spearman(preference, -losses)
    return pd.DataFrame(records)


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return np.nan if np.isnan(a).all() else spearmanr(a, b).statistic


def variances(table: pd.DataFrame) -> pd.DataFrame:
    """Estimate the variances that make up the validation losses of branches: a row per network and horizon.

    choice: of the neuron that is split; it is what both shuffles agree on, their covariance.
    coefficients: of the random coefficients of the split, likewise.
    shuffle: of the order of the mini-batches, as far as it is common to all branches.
    residual: of what a shuffle does to one branch and not to the others.
    Each estimate is unbiased, so it may be negative where the true variance is near 0: take means before roots.
    """
    records = []
    for key, rows in table.groupby(NETWORK_KEYS, sort=False):
        neurons, draws = (rows.loc[rows["branch_type"] == kind, SHUFFLE_LOSSES].to_numpy().T for kind in (NEURON, DRAW))
        difference = neurons[0] - neurons[1]
        residual = np.var(difference, ddof=1) / 2
        record = dict(zip(NETWORK_KEYS, key))
        record |= {"choice": np.cov(neurons)[0, 1], "coefficients": np.cov(draws)[0, 1]}
        record |= {"shuffle": difference.mean() ** 2 / 2 - residual / len(difference), "residual": residual}
        records.append(record)
    return pd.DataFrame(records)
