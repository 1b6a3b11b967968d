"""How good a choice could be: every split that a network could make, each trained on."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from neuronsplit.data import Dataset
from neuronsplit.model import MLP
from neuronsplit.optimizers import start
from neuronsplit.policies import POLICIES, look
from neuronsplit.products import fast_products
from neuronsplit.seeds import stream
from neuronsplit.split import draw
from neuronsplit.training import evaluate, train_epoch

ORDERS = ("a", "b")  # two ways to go on, with mini-batches of their own: what is due to the choice shows in both
SCORES = {policy: POLICIES[policy].score for policy in (
    "max-loss", "max-fire", "max-importance", "max-gradient", "max-variance", "min-eigenvalue"
)}  # fmt: skip  # a policy of every score there is


def branch(mlp: MLP, neurons: Tensor, coefficients: list) -> MLP:
    """Networks split in K ways each, R K in turn: neurons (R, K), and as many coefficients in their order."""
    ways = neurons.shape[1]
    branches = mlp[[r for r in range(len(neurons)) for _ in range(ways)]]
    branches.split(neurons.flatten(), coefficients)
    return branches


def follow(
    mlp: MLP, dataset: Dataset, order: list[np.random.Generator], horizons: list[int], learning_rate: float, batch: int
) -> Iterator[tuple[int, Tensor]]:
    """Train networks on with plain SGD; yields each horizon, in epochs, with their validation losses (S, R / S).

    Those of one order (S of them) see the same mini-batches. mlp itself is left as it was.
    """
    mlp = mlp[:]
    optimizer = start("sgd", mlp, learning_rate)
    for epoch in range(1, max(horizons) + 1):
        with fast_products():
            train_epoch(mlp, dataset.train, order, optimizer, batch)
            losses = evaluate(look(mlp, dataset.validation))[0].mean(1) if epoch in horizons else None
        if epoch in horizons:
            yield epoch, losses.view(len(order), -1)


def every_split(
    dataset: Dataset, seeds: list[int], width: int, age: int, rule: str, horizons: list[int], learning_rate: float,
    batch: int = 32, draws: int = 10,
) -> pd.DataFrame:  # fmt: skip
    """What becomes of every split of networks of so many neurons after so many epochs: a row a branch and a horizon.

    Columns: seed, kind, branch, neuron, horizon, loss_a and loss_b under the two orders, loss_before of the network
    that is split, and of every policy of SCORES its score. Of kind "neuron" are the H branches of a network, split
    with the same coefficients; of kind "draw" are splits of its first neuron with other coefficients.
    """
    mlp = MLP((dataset.train.images.shape[1], width, len(dataset.classes)), len(seeds), seeds[0])
    optimizer, order = start("sgd", mlp, learning_rate), [stream(seed, "order") for seed in seeds]
    with fast_products():
        for _ in range(age):
            train_epoch(mlp, dataset.train, order, optimizer, batch)
        seen = list(look(mlp, dataset.validation))
        scores = {policy: score(mlp, seen) for policy, score in SCORES.items()}  # (R, H) each
        before = evaluate(seen)[0].mean(1)  # (R,)
    n_out, tables = len(dataset.classes), []
    rngs = [stream(seed, "coefficients") for seed in seeds]
    first, *others = [draw(rule, rngs, n_out) for _ in range(1 + draws)]  # each a draw a network
    all_neurons, same = torch.arange(width).expand(len(seeds), -1), torch.zeros(len(seeds), draws, dtype=torch.long)
    for kind, neurons, drawn in (
        ("neuron", all_neurons, [c for c in first for _ in range(width)]),
        ("draw", same, [c for of_network in zip(*others) for c in of_network]),
    ):
        branches = branch(mlp, neurons, drawn)
        ways = neurons.shape[1]
        found = pd.DataFrame({"seed": np.repeat(seeds, ways), "kind": kind, "branch": np.tile(range(ways), len(seeds))})
        found["neuron"], found["loss_before"] = neurons.flatten().numpy(), np.repeat(before.numpy(), ways)
        for policy, score in scores.items():
            found[policy] = score.gather(1, neurons).flatten().numpy()
        after = {}
        for turn, name in enumerate(ORDERS):
            orders = [stream(seed, "order").spawn(len(ORDERS))[turn] for seed in seeds]
            after[name] = dict(follow(branches, dataset, orders, horizons, learning_rate, batch))
        for horizon in horizons:
            losses = {f"loss_{name}": after[name][horizon].flatten().numpy() for name in ORDERS}
            tables.append(found.assign(horizon=horizon, **losses))
    table = pd.concat(tables, ignore_index=True)
    return table.assign(width=width, age=age, rule=rule, learning_rate=learning_rate)


NETWORK = ["rule", "learning_rate", "width", "age", "seed", "horizon"]  # columns that the branches of one share
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
    """The scores (H,) by which a policy chooses, under the name of the policy of SCORES that has the same."""
    return rows[next(name for name, score in SCORES.items() if score is POLICIES[policy].score)].to_numpy()


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """How much lower each policy's choice ends than the mean branch: a row a network, horizon and policy, and ORACLE.

    gain: mean validation loss of the branches less that of the choice, over both orders; a lottery's is its
    expectation. The oracle chooses by one order and is measured by the other, both ways round, for the best of H
    losses is lower than it deserves. rank: Spearman's correlation of the chance, or score, with the gain of a branch.
    """
    found = []
    branches = table[table["kind"] == "neuron"]
    for key, rows in branches.groupby(NETWORK, sort=False):
        a, b = (rows[f"loss_{name}"].to_numpy() for name in ORDERS)
        mean = (a + b) / 2
        of_network = dict(zip(NETWORK, key))
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
        for kind, name in (("neuron", "choice"), ("draw", "coefficients")):
            a, b = (rows.loc[rows["kind"] == kind, f"loss_{order}"].to_numpy() for order in ORDERS)
            sd[name] = np.sqrt(max(np.cov(a, b)[0, 1], 0))
            if kind == "neuron":
                sd |= {"order": abs((a - b).mean()) / np.sqrt(2), "rest": np.std(a - b, ddof=1) / np.sqrt(2)}
        found.append(dict(zip(NETWORK, key)) | sd)
    return pd.DataFrame(found)
