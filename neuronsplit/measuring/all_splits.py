"""Make every possible split of a network, train on after each of them, and measure how well each did."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neuronsplit.core.matmul import use_onednn_matmul
from neuronsplit.data.datasets import Dataset, Subset
from neuronsplit.growing.greedy import every_neuron
from neuronsplit.growing.metrics import block_metrics
from neuronsplit.growing.scores import FEATURES, forward_blocks, uniform
from neuronsplit.growing.train import Run
from neuronsplit.growing.which import POLICIES, pick_probabilities, preference
from neuronsplit.names import DRAW, NETWORK_KEYS, NEURON, SHUFFLE_LOSSES, UNSPLIT

HORIZONS = (1, 3, 10)  # epochs after the split
N_COEFFICIENT_DRAWS = 5  # further splits of neuron 0, each with other coefficients


def run_all_splits(run: Run, dataset: Dataset, growth: str) -> pd.DataFrame:
    """Make every split of networks, one per seed, and train all branches on.

    run: has one replica per seed, and stays as it is. growth: a name in GROWTHS that needs a parent.
    Returns a table with a row per branch and horizon. Its columns are
    seed: the seed of the network.
    branch_type: "neuron" for a split of each of the H neurons, all with the same coefficients. Branches of type "draw"
        split neuron 0 with other coefficients, and "unsplit" is the network itself.
    neuron: the neuron that is split.
    loss_before: the validation loss before the split.
    FEATURES: the scores of the neuron before the split, a column for each.
    horizon: the number of epochs after the split.
    SHUFFLE_LOSSES: the validation losses at the horizon, after two independent shuffles of the mini-batches. Effects of
        the choice appear in both.
    """
    run = run.fork(list(range(run.mlp.n_replicas)))  # spawning changes streams, and those of the caller must stay
    scores, loss_before = _scores_and_loss(run, dataset.validation)
    neurons = torch.nn.functional.pad(every_neuron(run), (0, N_COEFFICIENT_DRAWS))  # (R, K): 0 … H − 1, 0, 0, …
    branch_types, k = [NEURON] * run.mlp.width + [DRAW] * N_COEFFICIENT_DRAWS, neurons.shape[1]
    of_branches = {"seed": np.repeat(run.seeds, k), "branch_type": np.tile(branch_types, len(run.seeds))}
    of_branches |= {"neuron": neurons.flatten().cpu(), "loss_before": loss_before.repeat_interleave(k)}
    of_branches |= {name: values.gather(1, neurons.cpu()).flatten() for name, values in scores.items()}
    of_unsplit = {"seed": run.seeds, "branch_type": UNSPLIT, "loss_before": loss_before}
    orders = list(zip(*(rng.spawn(len(SHUFFLE_LOSSES)) for rng in run.order)))  # S streams per shuffle
    tables = []
    for columns, networks in ((of_branches, _branches(run, neurons, growth, dataset.train)), (of_unsplit, run)):
        losses = {name: train_branches(networks, dataset, order) for name, order in zip(SHUFFLE_LOSSES, orders)}
        for h in HORIZONS:
            tables.append(pd.DataFrame(columns | {"horizon": h} | {name: losses[name][h] for name in SHUFFLE_LOSSES}))
    table = pd.concat(tables).sort_values("horizon", kind="stable", ignore_index=True)
    return table.astype({"neuron": "Int64"})


def _branches(run: Run, neurons: Tensor, growth: str, subset: Subset) -> Run:
    """Fork K branches per replica, and split neurons (R, K); the last ones draw coefficients of their own."""
    branches = run.fork([r for r in range(len(neurons)) for _ in range(neurons.shape[1])])
    for r, rng in enumerate(run.coefficients):
        end = (r + 1) * neurons.shape[1]
        branches.coefficients[end - N_COEFFICIENT_DRAWS : end] = rng.spawn(N_COEFFICIENT_DRAWS)
    branches.grow(growth, neurons.flatten(), subset)
    return branches


def train_with_random_splits(run: Run, dataset: Dataset, growth: str, n_splits: int, n_epochs: int) -> None:
    """Train networks in place for n_epochs; each of the first n_splits ends with the split of a random neuron."""
    for epoch in range(n_epochs):
        run.epoch(dataset.train)
        if epoch < n_splits:
            neurons = torch.tensor([int(rng.integers(run.mlp.width)) for rng in run.draws])
            run.grow(growth, neurons, dataset.train)


@use_onednn_matmul()
def _scores_and_loss(run: Run, subset: Subset) -> tuple[dict[str, Tensor], Tensor]:
    """Return all FEATURES (R, H) of the neurons by name, and the mean loss (R,)."""
    blocks = forward_blocks(run.mlp, subset)
    scores = {feature.__name__: feature(run.mlp, blocks).float().cpu() for feature in FEATURES}
    return scores, block_metrics(blocks)[0].mean(1).cpu()


def train_branches(run: Run, dataset: Dataset, order: list[np.random.Generator]) -> dict[int, Tensor]:
    """Train a copy of networks on, and return the validation loss (R,) at each of HORIZONS.

    order: a stream per seed, which shuffles the images.
    """
    run = replace(run.fork(list(range(run.mlp.n_replicas))), order=deepcopy(order))
    losses = {}
    for epoch in range(1, max(HORIZONS) + 1):
        run.epoch(dataset.train)
        if epoch in HORIZONS:
            losses[epoch] = run.evaluate(dataset.validation)[0].mean(1).cpu()
    return losses


def policy_choices(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return what each policy would choose in a table of all splits, by policy.

    The policies are those whose score is one of FEATURES, and random. Each frame has a row for each row of type
    "neuron" and the columns
    probability: the probability that the policy splits this neuron.
    preference: the score, turned so that the policy prefers the highest one; NaN for random.
    """
    rows, choices = table[table["branch_type"] == NEURON], {}
    networks = list(rows.groupby(NETWORK_KEYS).indices.values())  # of each, the positions of its rows
    for policy, (score, _) in POLICIES.items():
        if score is uniform:
            scores = torch.zeros(len(rows), dtype=torch.float64)
        elif score in FEATURES:  # and not by name: a score of the user's may be called like one of these
            scores = torch.tensor(rows[score.__name__].to_numpy(float))
        else:
            continue
        probability, turned = torch.empty_like(scores), torch.full_like(scores, torch.nan)
        for at in networks:
            probability[at] = pick_probabilities(policy, scores[at])
            if score is not uniform:
                turned[at] = preference(policy, scores[at])
        choices[policy] = pd.DataFrame({"probability": probability, "preference": turned}, rows.index)
    return choices
