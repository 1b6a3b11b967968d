"""How a network grows by one neuron: by a split, or by a neuron that is no neuron's twin.

A growth changes a network and its optimiser in place, the same for all R replicas: neurons (R,) are those
chosen, sample are training images and labels, rngs the replicas' streams.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from neuronsplit import optimizers
from neuronsplit.curvature import steepest_split
from neuronsplit.data import Dataset, Split
from neuronsplit.model import MLP
from neuronsplit.optimizers import Optimizer
from neuronsplit.split import INEXACT as INEXACT_RULES
from neuronsplit.split import RULES, draw

SAMPLE = 10_000  # training images that a growth may look at
STEP = 0.1  # how far the twins of a steepest split go apart: a share of the length of their incoming weights
SMALL = 1e-3  # length of a GradMax neuron's incoming weights, likewise
Growth = Callable[[MLP, Optimizer, Tensor, Split, list[np.random.Generator]], None]


def by_rule(rule: str, mlp: MLP, optimizer: Optimizer, neurons: Tensor, sample: Split, rngs: list) -> None:
    """Split by one of the rules of split.py."""
    optimizers.split(mlp, optimizer, neurons, draw(rule, rngs, mlp.sizes[-1]))


def steepest(mlp: MLP, optimizer: Optimizer, neurons: Tensor, sample: Split, rngs: list) -> None:
    """Split into (w, b) ± εu, u the steepest direction (Wu, Wang & Liu 2019, arXiv 1910.02366, algorithm 1).

    ε is STEP times the length of (w, b). Exact only in the limit of ε to 0.
    """
    _, direction = steepest_split(mlp, *sample, neurons[:, None])  # (R, 1, n_in + 1)
    optimizers.split(mlp, optimizer, neurons, draw("even", rngs, mlp.sizes[-1]))
    w, b = mlp.weights[-2], mlp.biases[-2]
    parent = torch.cat([w[:, -1:], b[:, -1:]], dim=2)  # (R, 1, n_in + 1)
    apart = STEP * parent.norm(dim=2, keepdim=True) * direction
    replicas = torch.arange(len(w), device=w.device)
    for place, way in ((neurons, apart), (-1, -apart)):
        w[replicas, place] += way[:, 0, :-1]
        b[replicas, place] += way[:, 0, -1:]


def fresh(mlp: MLP, optimizer: Optimizer, neurons: Tensor, sample: Split, rngs: list) -> None:
    """A random neuron, Xavier-uniform (Glorot & Bengio 2010, eq. 16), with outgoing weights 0: exact, and no split."""
    n_in, width, n_out = mlp.sizes[-3:]
    bound = math.sqrt(6 / (n_in + width + 1))
    fan_in = torch.stack([torch.from_numpy(rng.uniform(-bound, bound, (1, n_in))) for rng in rngs])
    fan_in = fan_in.to(mlp.weights[0])  # (R, 1, n_in)
    optimizers.append(mlp, optimizer, fan_in, fan_in.new_zeros(len(rngs), 1, 1), fan_in.new_zeros(len(rngs), n_out, 1))


def gradmax(mlp: MLP, optimizer: Optimizer, neurons: Tensor, sample: Split, rngs: list) -> None:
    """GradMax (Evci et al. 2022, arXiv 2201.05125, eq. 11): a neuron whose incoming weights get the largest gradient.

    Its outgoing weights v are the top right singular vector of M = E[x gᵀ], g the gradient by the next layer's input,
    as long as the others' are on average. The paper's incoming weights are 0; ReLU sends nothing back at 0, so they
    point along −M v, where their first step would go, and are SMALL times as long as the others' on average.
    """
    images, labels = sample
    received = [images, *mlp.hidden(images)][-2]  # (N, n_in), or (R, N, n_in) of a hidden layer
    back = mlp(images).softmax(2)  # (R, N, n_out)
    back[:, torch.arange(len(labels)), labels] -= 1
    m = (received.mT @ back / len(images)).nan_to_num(0, 0, 0)  # (R, n_in, n_out); NaN: of a network that diverged
    _, _, right = torch.linalg.svd(m, full_matrices=False)
    fan_out = right[:, :1].mT * mlp.weights[-1].norm(dim=1).mean(1)[:, None, None]  # (R, n_out, 1)
    fan_in = -(m @ fan_out).mT  # (R, 1, n_in)
    fan_in *= SMALL * mlp.weights[-2].norm(dim=2).mean(1)[:, None, None] / fan_in.norm(dim=2, keepdim=True)
    optimizers.append(mlp, optimizer, fan_in, fan_in.new_zeros(len(rngs), 1, 1), fan_out)


def sample_of(dataset: Dataset) -> Split:
    """The training images that a growth may look at."""
    return Split(*(part[:SAMPLE] for part in dataset.train))


GROWTHS = {rule: partial(by_rule, rule) for rule in RULES}
GROWTHS |= {"steepest": steepest, "fresh": fresh, "gradmax": gradmax}
INEXACT = (*INEXACT_RULES, "steepest", "gradmax")
WITHOUT_PARENT = ("fresh", "gradmax")  # no neuron is chosen


def branch(
    mlp: MLP, optimizer: Optimizer, neurons: Tensor, rule: str, sample: Split, rngs: list[np.random.Generator]
) -> tuple[MLP, Optimizer]:
    """Copies of networks, and of their optimiser, split in K ways each, R K in turn: neurons (R, K), a stream each."""
    replicas = [r for r in range(len(neurons)) for _ in range(neurons.shape[1])]
    branches, at_work = mlp[replicas], optimizers.some(optimizer, replicas)
    GROWTHS[rule](branches, at_work, neurons.flatten(), sample, rngs)
    return branches, at_work
