"""How good could the choice of a neuron be? Compare what policies choose with every possible split of a network.

A table of all splits has a row per branch and horizon. A branch is a network after one of its possible splits. It is
trained on with two shuffles of the mini-batches, which give the two validation losses SHUFFLE_LOSSES. Every
`table` here is one of these.
"""

import numpy as np
import pandas as pd

from neuronsplit.analysis.tables import with_labels
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


def experiment_labels(fields: pd.DataFrame) -> pd.Series:
    """Return a label for each row of fields of experiments, which all have policies or all are of every split."""
    return with_labels(fields)["policy"] if "policy" in fields else setting_labels(fields)


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
    network, keys = _networks(table)
    losses = _finite_losses(table, network)
    means = losses.groupby([network, table["branch_type"]]).mean().mean(axis=1).unstack()  # a row per network
    keys["split_gain"] = means[UNSPLIT] - means[NEURON]
    losses = losses[table["branch_type"] == NEURON]
    network = network[losses.index]
    loss, (loss_0, loss_1) = losses.mean(axis=1), (losses[name] for name in SHUFFLE_LOSSES)
    gain, gain_0, gain_1 = (one.groupby(network).transform("mean") - one for one in (loss, loss_0, loss_1))
    best_0, best_1 = (one.fillna(0).groupby(network).idxmin() for one in (loss_0, loss_1))
    of_oracle = (gain_1[best_0].to_numpy() + gain_0[best_1].to_numpy()) / 2
    found = {ORACLE: {"gain": of_oracle, "rank_correlation": _rank_correlation(loss_0, loss_1, network)}}
    for policy, choice in choices.items():
        expected = (choice["probability"] * gain).groupby(network).sum(min_count=1)
        found[policy] = {"gain": expected, "rank_correlation": _rank_correlation(choice["preference"], -loss, network)}
    frames = [keys.assign(policy=policy, **measured) for policy, measured in found.items()]
    return pd.concat(frames).sort_index(kind="stable", ignore_index=True)


def _networks(table: pd.DataFrame) -> tuple[pd.Series, pd.DataFrame]:
    """Return the number of the network of each row, and the NETWORK_KEYS of each network, by its number."""
    number = table.groupby(NETWORK_KEYS, sort=False).ngroup()
    return number, table.loc[~number.duplicated(), NETWORK_KEYS].reset_index(drop=True)


def _finite_losses(table: pd.DataFrame, network: pd.Series) -> pd.DataFrame:
    """Return the columns SHUFFLE_LOSSES, with NaN throughout a network that has a loss that is not finite."""
    losses = table[SHUFFLE_LOSSES]
    return losses.where(np.isfinite(losses).all(axis=1).groupby(network).transform("all"))


def _rank_correlation(a: pd.Series, b: pd.Series, network: pd.Series) -> pd.Series:
    """Return Spearman's correlation of a and b in each network; NaN where one of them does not vary."""
    ranks = pd.DataFrame({"a": a, "b": b}).groupby(network).rank()
    x, y = (ranks[name] - ranks[name].groupby(network).transform("mean") for name in ranks)
    xy, xx, yy = (product.groupby(network).sum() for product in (x * y, x * x, y * y))
    return xy / (xx * yy) ** 0.5


def without_diverged(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the networks of which a branch has a validation loss that is not finite."""
    network = table.groupby(NETWORK_KEYS[:-1]).ngroup()  # at all horizons
    return table[_finite_losses(table, network).notna().all(axis=1)]


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
    network, keys = _networks(table)
    losses = _finite_losses(table, network)
    of_type = [network, table["branch_type"]]
    deviations = losses - losses.groupby(of_type).transform("mean")
    n = losses[SHUFFLE_LOSSES[0]].groupby(of_type).count().unstack()  # a row per network, as all that follow
    covariances = deviations.prod(axis=1, skipna=False).groupby(of_type).sum().unstack() / (n - 1)
    differences = (losses[SHUFFLE_LOSSES[0]] - losses[SHUFFLE_LOSSES[1]])[table["branch_type"] == NEURON]
    differences = differences.groupby(network)
    residual = differences.var() / 2
    shuffle = differences.mean() ** 2 / 2 - residual / n[NEURON]
    found = {"choice": covariances[NEURON], "coefficients": covariances[DRAW], "shuffle": shuffle, "residual": residual}
    return keys.join(pd.DataFrame(found).where(n[NEURON] > 1))
