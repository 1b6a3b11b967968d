"""Fit policies to tables of all splits: learned and ridge policies, and the sum of three ranks.

A ridge policy is linear, and fitted in closed form (Hoerl & Kennard 1970, doi 10.1080/00401706.1970.10488634). All that
it takes are mean products of inputs and gains, both less their means in a network.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from neuronsplit.growing.learned import RANK_FEATURES, Weights, features, predict
from neuronsplit.growing.scores import FEATURES
from neuronsplit.measuring.all_splits import HORIZONS
from neuronsplit.measuring.fit_network import fit_network, spreads
from neuronsplit.names import NETWORK_KEYS, NEURON, SHUFFLE_LOSSES, UNSPLIT

N_FOLDS = 5  # of the seeds
PENALTIES = tuple(10.0 ** np.arange(-3, 2.5, 0.5))  # of ridge regression, where every input has variance 1


class TrainingExample(NamedTuple):
    """A network whose splits were all measured: its keys in the table, its features, and the gain of each split."""

    keys: dict[str, object]  # NETWORK_KEYS
    x: Tensor  # (1, H, len(FEATURE_NAMES))
    gains: Tensor  # (2, H): how much lower each branch ended than the unsplit network, for each shuffle


def training_examples(table: pd.DataFrame, horizon: int) -> list[TrainingExample]:
    """Return every network in a table of all splits, with its gains `horizon` epochs after the split."""
    examples = []
    for key, rows in table[table["horizon"] == horizon].groupby(NETWORK_KEYS, sort=False):
        split, unsplit = (rows[rows["branch_type"] == branch_type] for branch_type in (NEURON, UNSPLIT))
        gains = unsplit[SHUFFLE_LOSSES].to_numpy().T - split[SHUFFLE_LOSSES].to_numpy().T
        scores = {f.__name__: torch.tensor(split[f.__name__].to_numpy(float))[None] for f in FEATURES}  # (1, H) each
        keys = dict(zip(NETWORK_KEYS, key))
        examples.append(TrainingExample(keys, features(scores), torch.tensor(gains).float()))
    return examples


class Moments(NamedTuple):
    """Mean products in each of N networks, of F inputs and of the gains in units of their spread, less their means."""

    xx: Tensor  # (N, F, F)
    xy: Tensor  # (N, F)
    yy: Tensor  # (N,)
    weight: Tensor  # (N,): all data sets weigh alike, and so do all networks of one
    fold: Tensor  # (N,) from 0 to N_FOLDS − 1; a seed is in one fold

    def mean(self, chosen: Tensor | float = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weighted means of xx, xy and yy over all networks, or over the chosen ones (N,)."""
        weight = self.weight * chosen / (self.weight * chosen).sum()
        return tuple(torch.tensordot(weight, one, 1) for one in self[:3])


def moments(examples: Sequence[TrainingExample]) -> Moments:
    """Return the moments of examples. Raises ValueError for a gain that is not finite."""
    gains = [e.gains.mean(0).double() for e in examples]
    y = [(gain - gain.mean()) / spread for gain, spread in zip(gains, spreads(gains))]  # (H,) each
    x = [e.x[0].double() - e.x[0].double().mean(0) for e in examples]  # (H, F) each
    datasets, seeds = [e.keys["dataset"] for e in examples], seeds_of(examples)
    return Moments(
        torch.stack([one.mT @ one / len(one) for one in x]),
        torch.stack([one.mT @ of_one / len(one) for one, of_one in zip(x, y)]),
        torch.stack([of_one.square().mean() for of_one in y]),
        torch.tensor([1 / datasets.count(name) for name in datasets], dtype=torch.float64),
        torch.tensor([np.searchsorted(seeds, e.keys["seed"]) % N_FOLDS for e in examples]),
    )


def solve_ridge(xx: Tensor, xy: Tensor, penalty: float) -> Tensor:
    """Return the coefficients (F,) of ridge regression, from moments of inputs that are first scaled to variance 1.

    An input that does not vary in networks, such as their width, gets 0.
    """
    sd = xx.diagonal().sqrt().clamp(min=0.01)
    return torch.linalg.solve(xx / sd / sd[:, None] + penalty * torch.eye(len(sd)).to(sd), xy / sd) / sd


def squared_error(m: Moments, penalty: float) -> float:
    """Return the mean squared error of ridge regression on seeds that are left out, fold by fold."""
    total = 0.0
    for fold in m.fold.unique():
        out = m.fold == fold
        w = solve_ridge(*m.mean(~out)[:2], penalty)
        xx, xy, yy = m.mean(out)
        total += (m.weight * out).sum().item() * (w @ xx @ w - 2 * w @ xy + yy).item()
    return total / m.weight.sum().item()


def fit_ridge(examples: Sequence[TrainingExample]) -> Weights:
    """Fit a ridge policy, with the penalty that has the lowest error on seeds that are left out.

    It predicts how far gains are from their mean in the network, in units of their spread there.
    Raises ValueError for examples of a single seed.
    """
    if len(seeds_of(examples)) < 2:
        raise ValueError(f"examples of {len(seeds_of(examples))} seeds: allowed are 2 or more, as some are left out")
    m = moments(examples)
    penalty = min(PENALTIES, key=lambda one: squared_error(m, one))
    coefficients = solve_ridge(*m.mean()[:2], penalty)
    return {"coefficients": coefficients.float().numpy(), "seeds": seeds_of(examples)}


def fit_rank_sum(examples: Sequence[TrainingExample]) -> Weights:
    """Choose three ranks, and the sign of each, whose sum correlates best with gains in networks."""
    xx, xy, _ = moments(examples).mean()
    signs = [one for one in product((-1.0, 0.0, 1.0), repeat=len(RANK_FEATURES)) if sum(map(abs, one)) == 3]
    sums = torch.zeros(len(signs), len(xy), dtype=xx.dtype)  # a row of coefficients for each
    sums[:, : len(RANK_FEATURES)] = torch.tensor(signs)  # ranks are the first features
    correlation = sums @ xy / ((sums @ xx) * sums).sum(1).clamp(min=1e-12).sqrt()  # with the gains, times their spread
    return {"coefficients": sums[correlation.argmax()].float().numpy(), "seeds": seeds_of(examples)}


def fit_learned(examples: Sequence[TrainingExample], rng: torch.Generator) -> Weights:
    """Fit a learned policy. rng: draws the first weights of its network."""
    networks = [(e.x, e.gains.mean(0, keepdim=True)) for e in examples]
    return fit_network(networks, rng) | {"seeds": seeds_of(examples)}


def seeds_of(examples: Sequence[TrainingExample]) -> np.ndarray:
    """Return the seeds of examples, in order."""
    return np.unique([e.keys["seed"] for e in examples])


def cross_fit(
    fit: Callable[[Sequence[TrainingExample]], Weights], examples: Sequence[TrainingExample]
) -> list[Weights]:
    """Fit weights to the examples of all folds but one, for each fold in turn."""
    return [fit([e for e in examples if e.keys["seed"] % N_FOLDS != fold]) for fold in range(N_FOLDS)]


def evaluate(weights: Sequence[Weights], examples: Sequence[TrainingExample]) -> pd.DataFrame:
    """Measure how well weights, as `cross_fit` returns them, choose in examples of the folds that they left out.

    Returns a row per example. Its columns are NETWORK_KEYS, and gain and rank_correlation as in `oracle.gains`. The
    last two, predicted and actual, are gains of the neuron that is chosen, over the unsplit network.
    """
    rows = []
    for example in examples:
        left_out = weights[example.keys["seed"] % N_FOLDS]
        gains, predicted = example.gains.mean(0), predict(left_out, example.x)[0]  # (H,) each
        best = predicted.argmax()
        row = {"gain": gains[best] - gains.mean(), "predicted": predicted[best], "actual": gains[best]}
        correlation = spearmanr(predicted, gains).statistic
        numbers = {name: value.item() for name, value in row.items()}
        rows.append(example.keys | numbers | {"rank_correlation": correlation})
    return pd.DataFrame(rows)


def fit_policies(tables: Mapping[str, pd.DataFrame], rng: torch.Generator) -> dict[str, Weights]:
    """Fit a learned and a ridge policy to the table of each data set, and these and the rank sum to all of them.

    tables: of all splits, by data set. Their gains are those at the last of HORIZONS.
    rng: draws the first weights of networks.
    Returns the weights by policy. With the parameters stand the seeds that they were fitted to.
    """
    examples = {dataset: training_examples(table, max(HORIZONS)) for dataset, table in tables.items()}
    fitted = {f"learned-{dataset}": fit_learned(own, rng) for dataset, own in examples.items()}
    fitted |= {f"ridge-{dataset}": fit_ridge(own) for dataset, own in examples.items()}
    together = [e for own in examples.values() for e in own]
    to_all = {"learned": fit_learned(together, rng), "ridge": fit_ridge(together), "rank-sum": fit_rank_sum(together)}
    return fitted | to_all


def save_weights(file: Path, fitted: Mapping[str, Weights]) -> None:
    """Save weights by policy, in the form that `growing.learned.weights` reads."""
    np.savez(file, **{f"{policy}/{name}": array for policy, own in fitted.items() for name, array in own.items()})
