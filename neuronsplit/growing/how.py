"""*How* a network grows by one neuron: it splits a neuron, or it adds one that has no parent.

The weights of a split are computed in core/split.py. This file defines the entries of GROWTHS, which use it.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuronsplit.core.matmul import merge_replicas
from neuronsplit.core.mlp import MLP, logit_gradient
from neuronsplit.core.optimizers import Optimizer, append_with_state, split_with_state
from neuronsplit.core.split import SPLIT_RULES, draw_coefficients
from neuronsplit.data.datasets import Subset
from neuronsplit.growing.curvature import steepest_split
from neuronsplit.growing.scores import iter_blocks

GROWTH_IMAGES = 10_000  # training images that a growth may look at
STEEPEST_STEP = 0.1  # distance of the twins of steepest-descent from their parent, relative to its norm
GRADMAX_SCALE = 1e-3  # norm of a GradMax neuron's incoming weights, relative to the mean norm of the others
Rngs = list[np.random.Generator]  # a stream per replica


class Growth(NamedTuple):
    """A growth adds one neuron to each network.

    apply: a function (mlp, optimizer, neurons, sample, rngs) that changes networks and their optimiser in place.
    neurons: the chosen parents, (R,), or None.
    sample: a Subset of the training images.
    rngs: a stream per replica.
    """

    apply: Callable[[MLP, Optimizer, Tensor | None, Subset, Rngs], None]
    exact: bool = True  # whether the networks' outputs stay the same
    needs_parent: bool = True  # whether a policy chooses a neuron; if not, neurons is None


def split_by_rule(rule: str, mlp: MLP, optimizer: Optimizer, neurons: Tensor, sample: Subset, rngs: Rngs) -> None:
    """Split neurons (R,) by one of SPLIT_RULES."""
    split_with_state(mlp, optimizer, neurons, draw_coefficients(rule, rngs, mlp.sizes[-1]))


def steepest_descent(mlp: MLP, optimizer: Optimizer, neurons: Tensor, sample: Subset, rngs: Rngs) -> None:
    """Split into (w, b) ± εu, where u is the steepest direction and ε is STEEPEST_STEP times the norm of (w, b).

    This is exact only in the limit ε → 0. Source: Wu, Wang & Liu 2019, arXiv 1910.02366, algorithm 1.
    """
    _, direction = steepest_split(mlp, sample, neurons[:, None])  # (R, 1, n_in + 1)
    split_with_state(mlp, optimizer, neurons, draw_coefficients("even", rngs, mlp.sizes[-1]))
    w, b = mlp.weights[-2], mlp.biases[-2]
    parent = torch.cat([w[:, -1:], b[:, -1:]], dim=2)  # (R, 1, n_in + 1)
    offset = STEEPEST_STEP * parent.norm(dim=2, keepdim=True) * direction
    replicas = torch.arange(len(w), device=w.device)
    for neuron, signed in ((neurons, offset), (-1, -offset)):
        w[replicas, neuron] += signed[:, 0, :-1]
        b[replicas, neuron] += signed[:, 0, -1:]


def zero_outgoing(mlp: MLP, optimizer: Optimizer, neurons: None, sample: Subset, rngs: Rngs) -> None:
    """Add a neuron with Xavier-uniform incoming weights (Glorot & Bengio 2010, eq. 16) and outgoing weights 0."""
    n_in, width, n_out = mlp.sizes[-3:]
    bound = math.sqrt(6 / (n_in + width + 1))
    w_in = torch.stack([torch.from_numpy(rng.uniform(-bound, bound, (1, n_in))) for rng in rngs])
    w_in = w_in.to(mlp.weights[0])  # (R, 1, n_in)
    append_with_state(mlp, optimizer, w_in, w_in.new_zeros(len(rngs), 1, 1), w_in.new_zeros(len(rngs), n_out, 1))


def gradmax(mlp: MLP, optimizer: Optimizer, neurons: None, sample: Subset, rngs: Rngs) -> None:
    """Add the neuron whose incoming weights get the largest gradient (GradMax: Evci et al. 2022, arXiv 2201.05125).

    By eq. 11, the outgoing weights v are the leading right singular vector of M = E[x gᵀ]. Here g is the gradient of
    the loss with respect to the logits. The norm of v is the mean norm of the others' outgoing weights. The paper's
    incoming weights are 0, where ReLU has no gradient. Here they point along −M v, in the direction of their first
    step. Their norm is GRADMAX_SCALE times the mean norm of the others.
    """
    m = 0
    for block in iter_blocks(mlp, sample):
        logit_grad = logit_gradient(block.logits, block.labels)  # (R, n, n_out), of the block's mean loss
        inputs = [block.images, *block.hidden][-2]  # (n, n_in) or (S, n, n_in); of a hidden layer, (R, n, n_in)
        product = torch.matmul(merge_replicas(logit_grad.mT.contiguous(), inputs), inputs)  # (S, R / S · n_out, n_in)
        m += product.view(mlp.n_replicas, -1, inputs.shape[-1]).mT * logit_grad.shape[1]  # (R, n_in, n_out)
    m /= sample.labels.shape[-1]
    m = m.nan_to_num(0, 0, 0)  # a network that diverged has NaN
    _, _, right = torch.linalg.svd(m, full_matrices=False)
    w_out = right[:, :1].mT * mlp.weights[-1].norm(dim=1).mean(1)[:, None, None]  # (R, n_out, 1)
    w_in = -(m @ w_out).mT  # (R, 1, n_in)
    w_in *= GRADMAX_SCALE * mlp.weights[-2].norm(dim=2).mean(1)[:, None, None] / w_in.norm(dim=2, keepdim=True)
    append_with_state(mlp, optimizer, w_in, w_in.new_zeros(len(rngs), 1, 1), w_out)


GROWTHS = {name: Growth(partial(split_by_rule, name), rule.exact) for name, rule in SPLIT_RULES.items()}
GROWTHS |= {
    "steepest-descent": Growth(steepest_descent, exact=False),
    "zero-outgoing": Growth(zero_outgoing, needs_parent=False),
    "gradmax": Growth(gradmax, exact=False, needs_parent=False),
}
