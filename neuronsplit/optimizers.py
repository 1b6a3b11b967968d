"""How parameters follow their gradients, and how an optimiser goes through a split.

The gradient of a layer's weights is a product d a: of what is sent back to its neurons, d (R, n_out, B), and what
they received, a (R, B, n_in); of its biases, a is 1. A neuron's gradients scale the other way round than its
weights: those of (αw, αb, γv) are γ times its parent's coming in, and α times going out. So a running mean of
gradients is split as the network is, with (γ, δ, α, β); of their squares, with the squares of these.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neuronsplit.model import MLP
from neuronsplit.split import Coefficients


def sgd(p: Tensor, d: Tensor, a: Tensor, means: list[Tensor], rate: float, step: int) -> None:
    """Plain stochastic gradient descent, fused into the product that forms the gradient, which is nowhere kept."""
    p.baddbmm_(d, a, alpha=-rate)


def momentum(p: Tensor, d: Tensor, a: Tensor, means: list[Tensor], rate: float, step: int) -> None:
    """Gradient descent with heavy-ball momentum 0.9 (Polyak 1964), as torch.optim.SGD(momentum=0.9)."""
    (mean,) = means
    mean.baddbmm_(d, a, beta=0.9)
    p.sub_(mean, alpha=rate)


def adam(p: Tensor, d: Tensor, a: Tensor, means: list[Tensor], rate: float, step: int) -> None:
    """Adam (Kingma & Ba 2015, arXiv 1412.6980, algorithm 1; β₁ = 0.9, β₂ = 0.999, ε = 1e-8); step counts from 1."""
    mean, square = means
    gradient = torch.bmm(d, a)
    mean.lerp_(gradient, 1 - 0.9)
    square.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
    root = square.sqrt().div_(math.sqrt(1 - 0.999**step)).add_(1e-8)
    p.addcdiv_(mean, root, value=-rate / (1 - 0.9**step))


OPTIMIZERS = {  # an update of one parameter in place, and the powers of the gradient that it keeps running means of
    "sgd": (sgd, ()),
    "momentum": (momentum, (1,)),
    "adam": (adam, (1, 2)),
}


@dataclass
class Optimizer:
    """An optimiser at work on a network: its update, learning rate, running means and the steps it has made."""

    update: Callable[[Tensor, Tensor, Tensor, list[Tensor], float, int], None]
    learning_rate: float
    means: dict[int, MLP]  # power of the gradient → a number for each parameter, in the network's own shape
    steps: int = 0


def start(name: str, mlp: MLP, learning_rate: float) -> Optimizer:
    """An optimiser that has not made a step: its means are 0."""
    update, powers = OPTIMIZERS[name]
    return Optimizer(update, learning_rate, {power: mlp.zeros() for power in powers})


def some(optimizer: Optimizer, replicas: list[int]) -> Optimizer:
    """The optimiser of some of the replicas, or of one several times, copied."""
    return replace(optimizer, means={power: mean[replicas] for power, mean in optimizer.means.items()})


def split(mlp: MLP, optimizer: Optimizer, neurons: Tensor, coefficients: list[Coefficients]) -> None:
    """Split neuron neurons[r] of replica r, and the optimiser's means, by the means of γ and δ or of their squares."""
    mlp.split(neurons, coefficients)
    for power, part in optimizer.means.items():
        part.split(neurons, [_of_gradients(drawn, power) for drawn in coefficients])


def append(mlp: MLP, optimizer: Optimizer, fan_in: Tensor, bias: Tensor, fan_out: Tensor) -> None:
    """Append neurons, as MLP.append does, with gradients of mean 0 and mean squares as the others have on average.

    Mean squares of 0 would let Adam take steps several times its rate, for it corrects for a late start only once.
    """
    mlp.append(fan_in, bias, fan_out)
    for power, mean in optimizer.means.items():
        w, b, v = (part.mean(axis, keepdim=True) * (power % 2 == 0) for part, axis in _neurons(mean))
        mean.append(w.expand_as(fan_in), b.expand_as(bias), v.expand_as(fan_out))


def _neurons(mlp: MLP) -> tuple[tuple[Tensor, int], ...]:
    """What belongs to the neurons of the last hidden layer, and the axis on which they lie."""
    return (mlp.weights[-2], 1), (mlp.biases[-2], 1), (mlp.weights[-1], 2)


def _of_gradients(drawn: Coefficients, power: int) -> Coefficients:
    alpha, beta, gamma, delta = drawn
    gamma, delta = (np.mean(np.asarray(c) ** power) for c in (gamma, delta))
    return Coefficients(gamma, delta, np.asarray(alpha) ** power, np.asarray(beta) ** power)
