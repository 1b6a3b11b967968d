"""How parameters follow their gradients, and what a split does to the state of an optimiser.

A neuron's gradients scale opposite to its weights. In a twin (αw, αb, γv), the gradient of the incoming weights is γ
times the parent's. That of the outgoing weights is α times the parent's. So a running mean of gradients is split as the
network is, with (γ, δ, α, β) in place of (α, β, γ, δ). A running mean of their squares is split with the squares of
these.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neuronsplit.core.mlp import MLP, merge_replicas
from neuronsplit.core.split import Coefficients

Rate = float | Tensor  # one learning rate for all replicas, or (R, 1, 1)

# The next three functions change a parameter p (B, M, n_in) in place, by a step with the gradient grad_out @ inputs.
# Here grad_out is (B, M, N) and inputs (B, N, n_in). The list state holds tensors like p, and step counts from 1.


def sgd(p: Tensor, grad_out: Tensor, inputs: Tensor, state: list[Tensor], rate: Rate, step: int) -> None:
    """Make a step of plain stochastic gradient descent."""
    # One call forms the gradient and adds it to the weights, so the gradient is never stored.
    if isinstance(rate, Tensor):
        p.baddbmm_(grad_out * -rate, inputs)
    else:
        p.baddbmm_(grad_out, inputs, alpha=-rate)


def momentum(p: Tensor, grad_out: Tensor, inputs: Tensor, state: list[Tensor], rate: Rate, step: int) -> None:
    """Make a step with heavy-ball momentum 0.9 (Polyak 1964), as torch.optim.SGD(momentum=0.9) does."""
    (mean,) = state
    mean.baddbmm_(grad_out, inputs, beta=0.9)
    if isinstance(rate, Tensor):
        p.addcmul_(mean, rate, value=-1)
    else:
        p.sub_(mean, alpha=rate)


def adam(p: Tensor, grad_out: Tensor, inputs: Tensor, state: list[Tensor], rate: Rate, step: int) -> None:
    """Make a step of Adam (Kingma & Ba 2015, arXiv 1412.6980, algorithm 1; β₁ = 0.9, β₂ = 0.999, ε = 1e-8)."""
    mean, square = state
    gradient = torch.bmm(grad_out, inputs)
    mean.lerp_(gradient, 1 - 0.9)
    square.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
    root = square.sqrt().div_(math.sqrt(1 - 0.999**step)).add_(1e-8)
    rate = rate / (1 - 0.9**step)
    if isinstance(rate, Tensor):
        p.addcdiv_(mean * rate, root, value=-1)
    else:
        p.addcdiv_(mean, root, value=-rate)


OPTIMIZERS = {  # name: the update, and for each running mean in its state the power of the gradient that is averaged
    "sgd": (sgd, ()),
    "momentum": (momentum, (1,)),
    "adam": (adam, (1, 2)),
}


@dataclass
class Optimizer:
    """An optimiser of R networks: its update, its learning rate, and its state."""

    update: Callable[[Tensor, Tensor, Tensor, list[Tensor], Rate, int], None]
    learning_rate: Rate
    state: dict[int, MLP]  # power of the gradient → its running mean, in the networks' shape
    n_steps: int = 0

    def __getitem__(self, replicas: list[int]) -> "Optimizer":
        """Return a copy for some replicas; the list may name one several times."""
        rate = self.learning_rate[replicas] if isinstance(self.learning_rate, Tensor) else self.learning_rate
        return replace(self, learning_rate=rate, state={k: mean[replicas] for k, mean in self.state.items()})


def make_optimizer(name: str, mlp: MLP, learning_rate: Rate) -> Optimizer:
    """Make an optimiser of networks that has not made a step yet.

    name: one of OPTIMIZERS. learning_rate: a number for all replicas, or a tensor (R, 1, 1).
    Raises ValueError for an unknown name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer {name!r}: allowed are {', '.join(OPTIMIZERS)}")
    update, exponents = OPTIMIZERS[name]
    return Optimizer(update, learning_rate, {exponent: mlp.zeros_like() for exponent in exponents})


def update_layer(mlp: MLP, optimizer: Optimizer, k: int, grad_out: Tensor, inputs: Tensor) -> None:
    """Change weights[k] and biases[k] in place by one step of the optimiser.

    grad_out, inputs: what `MLP.gradients` yields for layer k, (R, N, n_out) and (S, N, n_in) where S divides R.
    """
    update, rate, step = optimizer.update, optimizer.learning_rate, optimizer.n_steps
    grad_out = grad_out.mT  # (R, n_out, N)
    merged_rate = rate
    if isinstance(rate, Tensor):
        merged_rate = merge_replicas(rate.expand(-1, grad_out.shape[1], 1).contiguous(), inputs)
    # merge_replicas returns views of the networks' own memory. So `update`, which works in place, changes the weights
    # and the state of the networks themselves: nothing has to be copied back.
    state = [merge_replicas(mean.weights[k], inputs) for mean in optimizer.state.values()]
    weights, merged_grad = merge_replicas(mlp.weights[k], inputs), merge_replicas(grad_out, inputs)
    update(weights, merged_grad, inputs, state, merged_rate, step)
    ones = grad_out.new_ones(len(grad_out), 1, 1)  # a bias is a weight of the input 1
    state = [mean.biases[k] for mean in optimizer.state.values()]
    update(mlp.biases[k], grad_out.sum(2, keepdim=True), ones, state, rate, step)


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
    for exponent, mean in optimizer.state.items():
        of_neurons = (mean.weights[-2], 1), (mean.biases[-2], 1), (mean.weights[-1], 2)  # tensor, axis of neurons
        w, b, v = (part.mean(axis, keepdim=True) * (exponent % 2 == 0) for part, axis in of_neurons)
        mean.append(w.expand_as(w_in), b.expand_as(bias), v.expand_as(w_out))


def _gradient_coefficients(drawn: Coefficients, exponent: int) -> Coefficients:
    """Return the coefficients that split a running mean of gradients to the power of exponent."""
    alpha, beta, gamma, delta = drawn
    gamma, delta = (np.mean(np.asarray(c) ** exponent) for c in (gamma, delta))
    return Coefficients(gamma, delta, np.asarray(alpha) ** exponent, np.asarray(beta) ** exponent)
