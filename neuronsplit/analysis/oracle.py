"""How good could the choice of a neuron be? Compare what policies choose with every possible split of a network.

A table of all splits has a row per branch and horizon. A branch is a network after one of its possible splits. It is
trained on with two shuffles of the mini-batches, which give the two validation losses SHUFFLE_LOSSES. Every
`table` here is one of these.
"""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from neuronsplit.names import DRAW, NETWORK_KEYS, NEURON, SHUFFLE_LOSSES, UNSPLIT

SETTING_KEYS = [name for name in NETWORK_KEYS if name not in ("seed", "horizon")]
ORACLE = "oracle"  # a policy that chooses the best branch by one shuffle and is measured by the other


def setting_labels(table: pd.DataFrame) -> pd.Series:
    """Return a label for the setting of each row: "sgd 0.01 · scaled · width 20, after 11 epochs, 10 prior splits".

    A label names the data set and the batch size only where they vary.
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
    """Measure how much lower the choice of each policy ends than the mean branch.

    choices: policy → what it chooses, as `measuring.all_splits.policy_choices` returns it. The index is that of the
        table's rows of type "neuron". The column `probability` adds to 1 for each network and horizon. The policy
        prefers the highest value of the column `preference`, which is NaN if it prefers none.

    Returns a row per network, horizon and policy. The columns are NETWORK_KEYS, policy, and three measures.
    gain: the mean validation loss of all branches minus the expected loss of the choice, over both shuffles.
    rank_correlation: Spearman's, between the preference and the gains of the branches; NaN without a preference.
    split_gain: the loss of the unsplit network minus the mean loss of its branches, which is the same for all policies.

    The policy ORACLE chooses by one shuffle and is measured by the other, in both directions. With the same shuffle for
    both, it would gain too much, because the lowest of many losses is low by chance. Its rank correlation is that
    between the two shuffles.
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
    varies = len(set(a)) > 1 and len(set(b)) > 1 and not np.isnan(a).all()
    return spearmanr(a, b).statistic if varies else np.nan


def without_diverged(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the networks of which a branch has a validation loss that is not finite."""
    keys = table[NETWORK_KEYS[:-1]].apply(tuple, axis=1)
    return table[~keys.isin(keys[~np.isfinite(table[SHUFFLE_LOSSES]).all(axis=1)])]


def neuron_gains(table: pd.DataFrame) -> pd.DataFrame:
    """Measure how much lower each branch ends than the mean branch of its network, under each of the two shuffles.

    Returns the rows of type "neuron" with two more columns, gain_shuffle_0 and gain_shuffle_1.
    """
    neurons = table[table["branch_type"] == NEURON]
    losses = neurons[SHUFFLE_LOSSES]
    means = losses.groupby([neurons[key] for key in NETWORK_KEYS]).transform("mean")
    return neurons.join((means - losses).rename(columns=lambda name: name.replace("loss", "gain")))


def variances(table: pd.DataFrame) -> pd.DataFrame:
    """Estimate the components of the variance of the branches' validation losses.

    Returns a row per network and horizon. Its columns are NETWORK_KEYS and the variances due to
    choice: the neuron that is split. This is the covariance between the two shuffles.
    coefficients: the random coefficients of the split, estimated in the same way.
    shuffle: the order of the mini-batches, if its effect is common to all branches.
    residual: the effect of a shuffle on one branch and not on the others.

    These are missing for a network of one neuron.
    Each estimate is unbiased, so it can be negative where the true variance is near 0. Take means before square roots.
    """
    records = []
    for key, rows in table.groupby(NETWORK_KEYS, sort=False):
        neurons, draws = (rows.loc[rows["branch_type"] == name, SHUFFLE_LOSSES].to_numpy().T for name in (NEURON, DRAW))
        record = dict(zip(NETWORK_KEYS, key)) | dict.fromkeys(("choice", "coefficients", "shuffle", "residual"), np.nan)
        if neurons.shape[1] > 1:
            difference = neurons[0] - neurons[1]
            residual = np.var(difference, ddof=1) / 2
            record |= {"choice": np.cov(neurons)[0, 1], "coefficients": np.cov(draws)[0, 1]}
            record |= {"shuffle": difference.mean() ** 2 / 2 - residual / len(difference), "residual": residual}
        records.append(record)
    return pd.DataFrame(records)
