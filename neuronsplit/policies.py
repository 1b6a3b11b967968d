"""Which neuron to split: a score of every neuron and a way to pick one.

Scores are (R, H), as scores.py has them. Picks take them, and each replica's own stream, to neurons (R,). Ties go to
the neuron of lowest index.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuronsplit.curvature import smallest_eigenvalue
from neuronsplit.learned import predicted_gain
from neuronsplit.model import MLP
from neuronsplit.scores import (
    Seen,
    activation_variance,
    fire_rate,
    importance,
    loss_after_removal,
    no_score,
    outgoing_gradient,
)

SHARPNESS = 10  # of the lotteries
TIE = 1e-6  # scores this near are a tie: float32 losses of neurons that never fire differ by less
Pick = Callable[[Tensor, list[np.random.Generator]], Tensor]


def highest(scores: Tensor, rngs: list[np.random.Generator]) -> Tensor:
    """The neuron of highest score."""
    tied = scores >= scores.amax(1, keepdim=True) - TIE  # (R, H)
    return tied.int().argmax(1)  # argmax gives the first of equals


def lowest(scores: Tensor, rngs: list[np.random.Generator]) -> Tensor:
    """The neuron of lowest score."""
    return highest(-scores, rngs)


def nearest_half(scores: Tensor, rngs: list[np.random.Generator]) -> Tensor:
    """The neuron whose score is nearest to ½."""
    return lowest((scores - 0.5).abs(), rngs)


def lottery(sharpness: float) -> Pick:
    """A pick that draws with probability softmax(sharpness · score): 1 / temperature; equal scores draw uniformly."""

    def draw(scores: Tensor, rngs: list[np.random.Generator]) -> Tensor:
        bounds = (sharpness * scores).softmax(1).cumsum(1)  # (R, H)
        tickets = torch.tensor([[rng.random()] for rng in rngs], dtype=bounds.dtype)  # (R, 1)
        return torch.searchsorted(bounds, tickets.to(bounds), right=True).squeeze(1).clamp(max=scores.shape[1] - 1)

    return draw


class Policy(NamedTuple):
    """A score and a pick."""

    score: Callable[[MLP, list[Seen]], Tensor]
    pick: Pick


POLICIES = {  # the seven of the 2021 study, then those beyond it
    "random": Policy(no_score, lottery(SHARPNESS)),
    "max-loss": Policy(loss_after_removal, highest),
    "min-loss": Policy(loss_after_removal, lowest),
    "loss-probs": Policy(loss_after_removal, lottery(SHARPNESS)),
    "max-fire": Policy(fire_rate, highest),
    "min-fire": Policy(fire_rate, lowest),
    "half-fire": Policy(fire_rate, nearest_half),
    "max-importance": Policy(importance, highest),
    "importance-probs": Policy(importance, lottery(SHARPNESS)),
    "max-gradient": Policy(outgoing_gradient, highest),
    "max-variance": Policy(activation_variance, highest),
    "min-eigenvalue": Policy(smallest_eigenvalue, lowest),
    "learned": Policy(predicted_gain, highest),
}


def choose(policies: list[str], mlp: MLP, seen: list[Seen], rngs: list[np.random.Generator]) -> Tensor:
    """The neuron (R,) that is split in each replica: replicas follow the policies in turn.

    NaN scores, of a network that diverged, count as 0.
    """
    neurons = torch.empty(len(rngs), dtype=torch.long, device=mlp.weights[0].device)
    for turn, policy in enumerate(policies):
        mine = slice(turn, None, len(policies))
        score, pick = POLICIES[policy]
        its_seen = [Seen(x, y, [a[mine] for a in hidden], logits[mine]) for x, y, hidden, logits in seen]
        neurons[mine] = pick(score(mlp[mine], its_seen).double().nan_to_num(), rngs[mine])
    return neurons
