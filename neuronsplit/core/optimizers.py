"""How parameters follow their gradients, and what a split does to the state of an optimiser.

A neuron's gradients scale opposite to its weights. In a twin (αw, αb, γv), the gradient of the incoming weights is γ
times the parent's. That of the outgoing weights is α times the parent's. So a running mean of gradients is split as the
network is, with (γ, δ, α, β) in place of (α, β, γ, δ). A running mean of their squares is split with the squares of
these.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuronsplit.checks import require_name
from neuronsplit.core.matmul import merge_replicas
from neuronsplit.core.mlp import MLP
from neuronsplit.core.split import Coefficients


class Rates(NamedTuple):
    """The learning rates of R networks throughout training; each is a tensor (R, 1, 1)."""

    first: Tensor  # in the first epoch
    after_split: Tensor  # from the first split on, relative to the rates before
    annealing_epochs: Tensor  # in which they fall to 0 along a cosine; inf where they are constant

    def after(self, n_epochs: int, grown: bool) -> Tensor:
        """Return the learning rates (R, 1, 1) of the epoch after n_epochs others; grown: whether a split was made.

        Source: Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5, with a single period and a step per epoch. Here its
        (1 + cos 2x) / 2 is cos² x.
        """
        rates = self.first * torch.cos(math.pi / 2 * n_epochs / self.annealing_epochs).square()
        return rates * self.after_split if grown else rates


# The next three functions change a parameter p (R, M, n_in) in place, by a step with the gradient grad_out @ inputs.
# Here grad_out is (R, M, N) and inputs (S, N, n_in), where S divides R. The list state holds tensors like p, the rate
# is (R, 1, 1), and step counts from 1. They may change grad_out too.


def sgd(p: Tensor, grad_out: Tensor, inputs: Tensor, state: list[Tensor], rate: Tensor, step: int) -> None:
    """Make a step of plain stochastic gradient descent."""
    _add_gradient(p, grad_out.mul_(rate), inputs, alpha=-1)  # so the gradient is never stored


def momentum(p: Tensor, grad_out: Tensor, inputs: Tensor, state: list[Tensor], rate: Tensor, step: int) -> None:
    """Make a step with heavy-ball momentum 0.9 (Polyak 1964), as torch.optim.SGD(momentum=0.9) does."""
    (mean,) = state
    _add_gradient(mean, grad_out, inputs, beta=0.9)
    p.addcmul_(mean, rate, value=-1)


def adam(p: Tensor, grad_out: Tensor, inputs: Tensor, state: list[Tensor], rate: Tensor, step: int) -> None:
    """Make a step of Adam (Kingma & Ba 2015, arXiv 1412.6980, algorithm 1; β₁ = 0.9, β₂ = 0.999, ε = 1e-8)."""
    mean, square = state
    gradient = torch.bmm(merge_replicas(grad_out, inputs), inputs).view_as(p)
    mean.lerp_(gradient, 1 - 0.9)
    square.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
    # The gradient's memory serves again, because large new tensors cost more than what is computed in them.
    root = torch.sqrt(square, out=gradient).div_(math.sqrt(1 - 0.999**step)).add_(1e-8)
    p.addcmul_(torch.div(mean, root, out=root), rate / (1 - 0.9**step), value=-1)


def _add_gradient(p: Tensor, grad_out: Tensor, inputs: Tensor, **factors: float) -> None:
    """Add the gradient to p in place, with the factors alpha and beta of torch.baddbmm."""
    # merge_replicas returns a view, so this changes p itself.
    merge_replicas(p, inputs).baddbmm_(merge_replicas(grad_out, inputs), inputs, **factors)


OPTIMIZERS = {  # name: the update, and for each running mean in its state the power of the gradient that is averaged
    "sgd": (sgd, ()),
    "momentum": (momentum, (1,)),
    "adam": (adam, (1, 2)),
}


@dataclass
class Optimizer:
    """An optimiser of R networks: its update, its learning rate and weight decay, and its state."""

    update: Callable[[Tensor, Tensor, Tensor, list[Tensor], Tensor, int], None]
    learning_rate: Tensor  # (R, 1, 1)
    weight_decay: Tensor  # (R, 1, 1)
    state: dict[int, MLP]  # power of the gradient → its running mean, in the networks' shape
    n_steps: int = 0

    def __post_init__(self):
        self.decays = bool(self.weight_decay.any())

    def __getitem__(self, replicas: list[int]) -> "Optimizer":
        """Return a copy for some replicas; the list may name one several times."""
        rate, decay = self.learning_rate[replicas], self.weight_decay[replicas]
        state = {k: mean[replicas] for k, mean in self.state.items()}
        return replace(self, learning_rate=rate, weight_decay=decay, state=state)


def per_replica(value: float | Tensor, mlp: MLP) -> Tensor:
    """Return a number for all replicas, or one for each (R, 1, 1), as a tensor (R, 1, 1) like those of networks."""
    w = mlp.weights[0]
    return torch.as_tensor(value, dtype=w.dtype, device=w.device).expand(mlp.n_replicas, 1, 1).clone()


def make_optimizer(name: str, mlp: MLP, learning_rate: float | Tensor, weight_decay: float | Tensor = 0.0) -> Optimizer:
    """Make an optimiser of networks that has not made a step yet.

    name: one of OPTIMIZERS. learning_rate, weight_decay: a number for all replicas, or a tensor (R, 1, 1).
    Raises ValueError for an unknown name.
    """
    require_name("optimizer", name, OPTIMIZERS)
    update, exponents = OPTIMIZERS[name]
    state = {exponent: mlp.zeros_like() for exponent in exponents}
    return Optimizer(update, per_replica(learning_rate, mlp), per_replica(weight_decay, mlp), state)


def update_layer(mlp: MLP, optimizer: Optimizer, k: int, grad_out: Tensor, inputs: Tensor) -> None:
    """Change weights[k] and biases[k] in place by one step of the optimiser.

    grad_out, inputs: what `MLP.gradients` yields for layer k, (R, N, n_out) and (S, N, n_in) where S divides R.
    Weights and biases decay before the step, apart from the gradient, as those of torch.optim.AdamW do. Source:
    Loshchilov & Hutter 2019, arXiv 1711.05101, algorithms 1 and 2.
    """
    grad_out = grad_out.mT  # (R, n_out, N)
    grad_bias, ones = grad_out.sum(2, keepdim=True), grad_out.new_ones(len(grad_out), 1, 1)
    means = optimizer.state.values()
    _update(optimizer, mlp.weights[k], [mean.weights[k] for mean in means], grad_out, inputs)
    # A bias is a weight of the input 1.
    _update(optimizer, mlp.biases[k], [mean.biases[k] for mean in means], grad_bias, ones)


def _update(optimizer: Optimizer, p: Tensor, state: list[Tensor], grad_out: Tensor, inputs: Tensor) -> None:
    if optimizer.decays:
        p.mul_(1 - optimizer.learning_rate * optimizer.weight_decay)
    optimizer.update(p, grad_out, inputs, state, optimizer.learning_rate, optimizer.n_steps)


def train_step(mlp: MLP, images: Tensor, labels: Tensor, optimizer: Optimizer, masks: Sequence[Tensor] = ()) -> Tensor:
    """Make a step of each replica on images (S, B, n_in) with labels (R, B); return the logits (R, B, C) before it.

    masks: those of `dropout.draw_masks`.
    """
    optimizer.n_steps += 1
    hidden = mlp.hidden(images, masks)
    logits = mlp.logits(hidden[-1])
    for k, grad_out, inputs in mlp.gradients(images, hidden, logits, labels, masks):
        update_layer(mlp, optimizer, k, grad_out, inputs)
    return logits


def split_with_state(mlp: MLP, optimizer: Optimizer, neurons: Tensor, coefficients: list[Coefficients]) -> None:
    """Split neuron neurons[r] of replica r, and the optimiser's state with it.

    neurons: (R,). coefficients: one set per replica.
    Where γ and δ differ by output, the state of the incoming weights is scaled by the means of their powers.
    """
    mlp.split(neurons, coefficients)
    for exponent, mean in optimizer.state.items():
        mean.split(neurons, [_gradient_coefficients(drawn, exponent) for drawn in coefficients])


def append_with_state(mlp: MLP, optimizer: Optimizer, w_in: Tensor, bias: Tensor, w_out: Tensor) -> None:
    """Append K neurons, with a state of their own: w_in (R, K, n_in), bias (R, K, 1), w_out (R, n_out, K).

    Their running means of gradients start at 0, and those of squared gradients at the average of the other neurons'. If
    these started at 0, Adam's first steps would be several times its learning rate. Its correction for a start at 0
    works only at the start of training.
    """
    mlp.append(w_in, bias, w_out)
    for mean in optimizer.state.values():
        mean.append(*map(torch.zeros_like, (w_in, bias, w_out)))
    reset_state(optimizer, w_in.shape[1])


def reset_state(optimizer: Optimizer, n: int) -> None:
    """Give the last n neurons of the last hidden layer the state that `append_with_state` gives to new neurons."""
    for exponent, mean in optimizer.state.items():
        others, new = (mean.neurons(numbers) for numbers in (slice(-n), slice(-n, None)))
        for p, q, axis in zip(others, new, (1, 1, 2)):
            q.copy_(p.mean(axis, keepdim=True) * (exponent % 2 == 0))


def _gradient_coefficients(drawn: Coefficients, exponent: int) -> Coefficients:
    """Return the coefficients that split a running mean of gradients to the power of exponent."""
    alpha, beta, gamma, delta = drawn
    gamma, delta = (np.mean(np.asarray(c) ** exponent) for c in (gamma, delta))
    return Coefficients(gamma, delta, np.asarray(alpha) ** exponent, np.asarray(beta) ** exponent)
