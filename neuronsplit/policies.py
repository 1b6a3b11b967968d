"""Which neuron to split: a score of every neuron and a way to pick one.

Scores are (R, H), from R replicas of H hidden neurons on the validation images (N, n_in) and labels (N,).
Picks take them, and each replica's own stream, to neurons (R,). Ties go to the neuron of lowest index;
a neuron that never fires is scored like any other.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from neuronsplit.model import MLP

BLOCK = 250  # images scored at a time: bounds the (R, n_out, H, BLOCK) numbers of the loss after removal
TIE = 1e-6  # scores this near are a tie: float32 losses of neurons that never fire differ by less


def loss_after_removal(mlp: MLP, images: Tensor, labels: Tensor) -> Tensor:
    """Mean loss (R, H) with each hidden neuron removed in turn, as dropout would, from one forward pass.

    Removing neuron j takes a_j v_j from the logits; the H - 1 others are scaled by H / (H - 1). A network's only
    neuron leaves nothing to scale: its removal leaves the output bias alone.
    """
    fan_out, bias = mlp.weights[-1], mlp.biases[-1]  # (R, C, H), (R, C, 1)
    replicas, width = len(fan_out), mlp.width
    total = torch.zeros(replicas, width, dtype=torch.float64, device=fan_out.device)
    for x, y in zip(images.split(BLOCK), labels.split(BLOCK)):
        activation = mlp.hidden(x)[-1].mT  # (R, H, n)
        received = torch.bmm(fan_out, activation)  # (R, C, n)
        logits = received[:, :, None] - fan_out[..., None] * activation[:, None]  # (R, C, H, n)
        logits = logits * (width / max(width - 1, 1)) + bias[..., None]
        losses = cross_entropy(logits, y.expand(replicas, width, -1), reduction="none")  # (R, H, n)
        total += losses.sum(2, dtype=torch.float64)
    return total / len(images)


def fire_rate(mlp: MLP, images: Tensor, labels: Tensor) -> Tensor:
    """Share of the images (R, H) on which each neuron's activation is above 0."""
    return (mlp.hidden(images)[-1] > 0).double().mean(1)


def no_score(mlp: MLP, images: Tensor, labels: Tensor) -> Tensor:
    """The same score (R, H) for every neuron."""
    return torch.zeros(len(mlp.weights[-1]), mlp.width, device=images.device)


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


def lottery(scores: Tensor, rngs: list[np.random.Generator]) -> Tensor:
    """A draw with probability softmax(10 · score): the study's temperature; equal scores draw uniformly."""
    bounds = (10 * scores).softmax(1).cumsum(1)  # (R, H)
    tickets = torch.tensor([[rng.random()] for rng in rngs], dtype=bounds.dtype)  # (R, 1)
    return torch.searchsorted(bounds, tickets.to(bounds), right=True).squeeze(1).clamp(max=scores.shape[1] - 1)


class Policy(NamedTuple):
    """A score and a pick."""

    score: Callable[[MLP, Tensor, Tensor], Tensor]
    pick: Callable[[Tensor, list[np.random.Generator]], Tensor]


POLICIES = {
    "random": Policy(no_score, lottery),
    "max-loss": Policy(loss_after_removal, highest),
    "min-loss": Policy(loss_after_removal, lowest),
    "loss-probs": Policy(loss_after_removal, lottery),
    "max-fire": Policy(fire_rate, highest),
    "min-fire": Policy(fire_rate, lowest),
    "half-fire": Policy(fire_rate, nearest_half),
}


@torch.no_grad()
def choose(policy: str, mlp: MLP, images: Tensor, labels: Tensor, rngs: list[np.random.Generator]) -> Tensor:
    """The neuron (R,) that a policy splits in each replica; NaN scores, of a network that diverged, count as 0."""
    score, pick = POLICIES[policy]
    return pick(score(mlp, images, labels).double().nan_to_num(), rngs)
