"""The learned policy: a network that predicts how much each possible split lowers the loss.

It was fitted to splits whose effect was measured by further training. Its inputs do not depend on scale: they are
ranks, shares and the width of the network. So one network can choose neurons in networks of any width.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from neuronsplit.core.mlp import MLP
from neuronsplit.growing.scores import FEATURES, Activations
from neuronsplit.names import NETWORK_KEYS, NEURON, SHUFFLE_LOSSES, UNSPLIT

FILE = Path(__file__).with_name("learned.npz")
RANK_FEATURES = (
    "ablation_loss importance incoming_gradient_norm outgoing_gradient_norm activation_variance smallest_eigenvalue "
    "incoming_norm outgoing_norm"
).split()
NETWORK_FEATURES = ("width", "max_epochs_since_split")  # the same for all neurons of a network
FEATURE_NAMES = (*RANK_FEATURES, "fire_rate", "max_correlation", "epochs_since_split", *NETWORK_FEATURES)
Weights = dict[str, np.ndarray]  # the parameters of the network, and the scales of its inputs and outputs


def features(scores: dict[str, Tensor]) -> Tensor:
    """Return the network's inputs (R, H, len(FEATURE_NAMES)).

    scores: the scores in FEATURES by name, (R, H) each.
    Ranks run from −½ to ½, and equal scores share their mean rank. The fire rate and the correlation stay as they are.
    The epochs since a neuron's split are divided by their maximum in the network. That maximum and the width are
    logarithms.
    """
    ranks = [_rank(scores[name]) for name in RANK_FEATURES]
    since = scores["epochs_since_split"]  # (R, H)
    oldest = since.amax(1, keepdim=True).expand_as(since)
    width = torch.full_like(since, since.shape[1])
    rest = [scores["fire_rate"], scores["max_correlation"], since / oldest.clamp(min=1), width.log(), oldest.log1p()]
    return torch.stack([column.float() for column in [*ranks, *rest]], dim=2)


def _rank(values: Tensor) -> Tensor:
    above = (values[:, :, None] > values[:, None]).double() + 0.5 * (values[:, :, None] == values[:, None])  # (R, H, H)
    return (above.sum(2) - 0.5) / max(values.shape[1] - 1, 1) - 0.5 * (values.shape[1] > 1)


def predict(weights: Weights, x: Tensor) -> Tensor:
    """Predict how much lower the validation loss ends with each split than without it, (R, H).

    weights: what `fit` or `weights` returns. x: what `features` returns.
    The prediction is a value, common to all neurons, plus the advantage of each neuron. The mean advantage is 0. This
    is a dueling head (Wang et al. 2016, arXiv 1511.06581, eq. 9).
    """
    w = {name: torch.from_numpy(array).to(x) for name, array in weights.items()}
    value, advantage = _forward(w, (x - w["mean"]) / w["sd"])
    return value * w["value"] + advantage * w["advantage"]


def _forward(w: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    hidden = torch.relu(x @ w["w_in"] + w["bias"])  # (R, H, units)
    value, advantage = (hidden @ w["w_out"]).unbind(2)  # (R, H) each
    return value.mean(1, keepdim=True), advantage - advantage.mean(1, keepdim=True)


def fit(
    networks: list[tuple[Tensor, Tensor]],
    rng: torch.Generator,
    n_units: int = 16,
    n_steps: int = 100,
    weight_decay: float = 1.0,
) -> Weights:
    """Fit the weights of the learned policy to the gains of splits.

    networks: for each network, what `features` returns (1, H, ·) and the gains (1, H) of its splits.
    rng: draws the initial weights. n_units: hidden units. n_steps, weight_decay: of the optimiser, AdamW (Loshchilov &
        Hutter 2019, arXiv 1711.05101).

    The loss is the squared error of a network's mean gain, plus that of the gains' differences from it. The second part
    is in units of their standard deviation, so that all networks have the same influence.
    Raises ValueError for a gain that is not finite, which a network that diverged has.
    """
    if not all(gain.isfinite().all() for _, gain in networks):
        raise ValueError("gains of nan or inf: allowed are gains of networks that did not diverge")
    scales, targets = _scales(networks)
    n_features, bound = len(scales["mean"]), len(scales["mean"]) ** -0.5
    w = {
        "w_in": (2 * torch.rand(n_features, n_units, generator=rng) - 1) * bound,
        "bias": torch.zeros(n_units),
        "w_out": (2 * torch.rand(n_units, 2, generator=rng) - 1) * n_units**-0.5,
    }
    optimizer = torch.optim.AdamW([p.requires_grad_() for p in w.values()], lr=0.01, weight_decay=weight_decay)
    batches = _batches_by_width(networks, targets, scales)
    for _ in range(n_steps):
        optimizer.zero_grad()
        for x, value_target, advantage_target in batches:
            value, advantage = _forward(w, x)
            loss = mse_loss(value, value_target) + mse_loss(advantage, advantage_target)
            (loss * (len(x) / len(networks))).backward()
        optimizer.step()
    return {name: array.detach().numpy() for name, array in (w | scales).items()}


def _scales(networks: list[tuple[Tensor, Tensor]]) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
    """Return the scales of inputs and outputs, and the targets of each network: value (1,) and advantages (1, H)."""
    x = torch.cat([one.flatten(0, 1) for one, _ in networks])
    values = torch.stack([gain.mean() for _, gain in networks])
    spreads = torch.stack([gain.std(correction=0) for _, gain in networks])
    spreads = spreads.clamp(min=1e-3 * spreads.mean().item() or 1)  # one neuron, or equal gains, have no spread
    scale = values.abs().mean()
    scales = {"mean": x.mean(0), "sd": x.std(0).clamp(min=0.01), "value": scale, "advantage": spreads.mean()}
    targets = [(v[None] / scale, (gain - v) / s) for (_, gain), v, s in zip(networks, values, spreads)]
    return scales, targets


def _batches_by_width(networks: list, targets: list, scales: dict[str, Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return inputs (B, H, ·), values (B, 1) and advantages (B, H) of networks of the same width, batch by batch."""
    by_width = {}
    for (x, _), (value, advantage) in zip(networks, targets):
        by_width.setdefault(x.shape[1], []).append(((x - scales["mean"]) / scales["sd"], value, advantage))
    return [
        (torch.cat(x), torch.stack(value), torch.cat(adv)) for x, value, adv in (zip(*b) for b in by_width.values())
    ]


@cache
def weights() -> Weights:
    """Return the weights that come with the package, fitted by notebook 12. Reading the file runs no code."""
    with np.load(FILE, allow_pickle=False) as file:
        return dict(file)


def predicted_gain(mlp: MLP, blocks: list[Activations]) -> Tensor:
    """Predict how much lower the validation loss is ten epochs after each split than without it, (R, H)."""
    return predict(weights(), features({feature.__name__: feature(mlp, blocks) for feature in FEATURES}))


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
