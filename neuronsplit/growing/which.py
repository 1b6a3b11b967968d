"""*Which* neuron is split: a policy scores every neuron and picks one by the scores.

The greedy choice is not one of POLICIES, because it trains every split for an epoch: see greedy.py.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from neuronsplit.core.mlp import MLP
from neuronsplit.core.seeds import stream
from neuronsplit.growing import scores
from neuronsplit.growing.curvature import smallest_eigenvalue
from neuronsplit.growing.learned import predicted_gain
from neuronsplit.growing.scores import Activations

INVERSE_TEMPERATURE = 10  # of policies that draw by softmax, as in the 2021 study
N_DRAWS = 1000  # from which the probabilities of an own pick are estimated
TIE_TOLERANCE = 1e-6  # neurons that never fire have equal losses, but float32 makes them differ by less than this
Pick = Callable[[Tensor, list[np.random.Generator]], Tensor]  # scores (R, H) and a stream per replica → neurons (R,)


def argmax(scores: Tensor, rngs: list[np.random.Generator]) -> Tensor:
    """Pick the neuron with the highest score, or the first of several that tie."""
    tied = scores >= scores.amax(1, keepdim=True) - TIE_TOLERANCE  # (R, H)
    return tied.int().argmax(1)  # torch's argmax returns the first of equal values


def argmin(scores: Tensor, rngs: list[np.random.Generator]) -> Tensor:
    """Pick the neuron with the lowest score."""
    return argmax(-scores, rngs)


def nearest_half(scores: Tensor, rngs: list[np.random.Generator]) -> Tensor:
    """Pick the neuron whose score is nearest to ½."""
    return argmin((scores - 0.5).abs(), rngs)


def softmax_sample(scores: Tensor, rngs: list[np.random.Generator]) -> Tensor:
    """Draw a neuron with probability softmax(INVERSE_TEMPERATURE · score); equal scores draw uniformly."""
    cumulative = (INVERSE_TEMPERATURE * scores).softmax(1).cumsum(1)  # (R, H)
    u = torch.tensor([[rng.random()] for rng in rngs], dtype=cumulative.dtype)  # (R, 1)
    return torch.searchsorted(cumulative, u.to(cumulative), right=True).squeeze(1).clamp(max=scores.shape[1] - 1)


class Policy(NamedTuple):
    """A policy scores every neuron, by a function such as those of scores.py, and picks one by the scores.

    score: a function of R networks and of what they make of the validation images, block by block. It returns (R, H).
        Networks have mlp.weights[k] (R, n_out, n_in) and mlp.biases[k] (R, n_out, 1). A block has the images (n, n_in)
        and labels (n,), or (S, n, n_in) and (R, n) where each seed has its own. It has hidden[k] (R, n, H) too, and
        the logits (R, n, C).
    pick: a function of the scores (R, H) and of R random generators. It returns a neuron of each network, (R,).
    """

    score: Callable[[MLP, list[Activations]], Tensor]
    pick: Pick


POLICIES = {  # the seven of the 2021 study, then those beyond it
    "random": Policy(scores.uniform, softmax_sample),
    "max-loss": Policy(scores.ablation_loss, argmax),
    "min-loss": Policy(scores.ablation_loss, argmin),
    "loss-probs": Policy(scores.ablation_loss, softmax_sample),
    "max-fire": Policy(scores.fire_rate, argmax),
    "min-fire": Policy(scores.fire_rate, argmin),
    "half-fire": Policy(scores.fire_rate, nearest_half),
    "max-importance": Policy(scores.importance, argmax),
    "importance-probs": Policy(scores.importance, softmax_sample),
    "max-gradient": Policy(scores.outgoing_gradient_norm, argmax),
    "max-variance": Policy(scores.activation_variance, argmax),
    "min-eigenvalue": Policy(smallest_eigenvalue, argmin),
}
# These were fitted to measured splits: of the data set in the name, or of all three.
# `rank-sum` adds the ranks of the importance and of the incoming gradient, less that of the outgoing gradient.
FITTED = (
    "learned learned-fashion-mnist learned-digits learned-mnist-1d "
    "ridge ridge-fashion-mnist ridge-digits ridge-mnist-1d rank-sum"
).split()
POLICIES |= {name: Policy(partial(predicted_gain, name), argmax) for name in FITTED}


def choose(policies: list[str], mlp: MLP, blocks: list[Activations], rngs: list[np.random.Generator]) -> Tensor:
    """Choose one neuron (R,) per replica; replica r follows policy r modulo the number of policies.

    policies: names in POLICIES. blocks: what `scores.forward_blocks` returns. rngs: a stream per replica.
    A network that diverged has NaN scores, which count as 0.
    """
    neurons = torch.empty(mlp.n_replicas, dtype=torch.long, device=mlp.weights[0].device)
    for i, policy in enumerate(policies):
        replicas = slice(i, None, len(policies))
        own_blocks = [block.of_replicas(replicas) for block in blocks]
        score, pick = POLICIES[policy]
        found, expected = score(mlp[replicas], own_blocks), (len(rngs[replicas]), mlp.width)
        if not isinstance(found, Tensor) or found.shape != expected:
            given = f"{type(found).__name__} of shape {tuple(getattr(found, 'shape', ()))}"
            allowed = f"a tensor of shape {expected}, networks by neurons"
            raise ValueError(f"score of policy {policy!r}, {given}: allowed is {allowed}")
        neurons[replicas] = pick(found.double().nan_to_num(), rngs[replicas])
    return neurons


def pick_probabilities(policy: str, scores: Tensor) -> Tensor:
    """Return the probability (H,) with which a policy splits each neuron, given their scores (H,).

    For a pick that is not of this file, it is the frequency in N_DRAWS draws.
    """
    scores, pick = scores.nan_to_num(), POLICIES[policy].pick
    if pick is softmax_sample:
        return (INVERSE_TEMPERATURE * scores).softmax(0)
    n = 1 if pick in (argmax, argmin, nearest_half) else N_DRAWS
    rngs = [stream(seed, "draws") for seed in range(n)]
    return one_hot(pick(scores.expand(n, -1), rngs), len(scores)).to(scores).mean(0)


def preference(policy: str, scores: Tensor) -> Tensor:
    """Return scores (H,) turned so that the policy prefers the highest one; NaN for a pick that is not of this file."""
    scores = scores.nan_to_num()
    turned = {argmax: scores, softmax_sample: scores, argmin: -scores, nearest_half: -(scores - 0.5).abs()}
    return turned.get(POLICIES[policy].pick, torch.full_like(scores, torch.nan))
