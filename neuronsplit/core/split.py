"""The split as tensor maths.

A neuron (w, b, v) has incoming weights w, a bias b and outgoing weights v. A split makes it two neurons, its twins:

    (αw, αb, γ∘v)  and  (βw, βb, δ∘v)      with  αγ + βδ = 1  for every output,  α, β > 0.

As relu(αz) = α·relu(z), the next layer receives (αγ + βδ) ∘ v·relu(z), which is what it received before.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Coefficients(NamedTuple):
    """The factors of one split: each is a number; γ and δ may also be arrays (n_out,), one number per output."""

    alpha: np.ndarray | float  # scales the first twin's incoming weights and bias
    beta: np.ndarray | float  # the second twin's
    gamma: np.ndarray | float  # scales the first twin's outgoing weights
    delta: np.ndarray | float  # the second twin's


class SplitRule(NamedTuple):
    """A way to draw coefficients, and whether they keep αγ + βδ = 1."""

    draw: Callable[[np.random.Generator, int], Coefficients]  # from a stream and the number of outputs
    exact: bool = True


def scaled(rng: np.random.Generator, n_out: int) -> Coefficients:
    """Draw four numbers from U[½, 1) and divide each by √(αγ + βδ): the rule of the 2021 study."""
    alpha, beta, gamma, delta = rng.uniform(0.5, 1, size=4)
    return Coefficients(*(np.array([alpha, beta, gamma, delta]) / np.sqrt(alpha * gamma + beta * delta)))


def even(rng: np.random.Generator, n_out: int) -> Coefficients:
    """Make two equal twins with half of the outgoing weights each; under SGD they stay equal."""
    return Coefficients(*np.array([1, 1, 0.5, 0.5]))


def outgoing(rng: np.random.Generator, n_out: int) -> Coefficients:
    """Keep the incoming weights and share each outgoing weight at random; this is exact for any activation."""
    gamma, delta = rng.uniform(0.5, 1, size=(2, n_out))
    return Coefficients(np.array(1.0), np.array(1.0), gamma / (gamma + delta), delta / (gamma + delta))


def scaled_outgoing(rng: np.random.Generator, n_out: int) -> Coefficients:
    """Scale the incoming weights as `scaled` does and share each outgoing weight as `outgoing` does."""
    alpha, beta = rng.uniform(0.5, 1, size=2)
    gamma, delta = rng.uniform(0.5, 1, size=(2, n_out))
    total = alpha * gamma + beta * delta  # (n_out,)
    return Coefficients(alpha, beta, gamma / total, delta / total)


def antisymmetric(rng: np.random.Generator, n_out: int) -> Coefficients:
    """Keep the incoming weights and share each outgoing weight as ½ ± ξ with ξ ~ N(0, 1); exact for any activation.

    The twins push many outputs in opposite directions, so their gradients differ from the first step on.
    """
    offset = rng.standard_normal(n_out)
    return Coefficients(np.array(1.0), np.array(1.0), 0.5 + offset, 0.5 - offset)


def net2net(rng: np.random.Generator, n_out: int) -> Coefficients:
    """Share each outgoing weight equally but for noise of 0.02, as Net2Net does; this is not exact.

    Source: Chen, Goodfellow & Shlens 2016, arXiv 1511.05641, section 2.5.
    """
    gamma, delta = 0.5 + 0.02 * rng.standard_normal((2, n_out))
    return Coefficients(np.array(1.0), np.array(1.0), gamma, delta)


SPLIT_RULES = {
    "scaled": SplitRule(scaled),
    "even": SplitRule(even),
    "outgoing": SplitRule(outgoing),
    "scaled-outgoing": SplitRule(scaled_outgoing),
    "antisymmetric": SplitRule(antisymmetric),
    "net2net": SplitRule(net2net, exact=False),
}


def draw_coefficients(rule: str, rngs: list[np.random.Generator], n_out: int) -> list[Coefficients]:
    """Draw the coefficients of one split per replica, each from the replica's own stream."""
    return [SPLIT_RULES[rule].draw(rng, n_out) for rng in rngs]


class Twins(NamedTuple):
    """The neurons of a layer after its splits, in terms of those before."""

    source: Tensor  # (H',) index of the neuron that each one descends from
    gain: Tensor  # (H',) factor of its incoming weights and bias: a product of α and β
    share: Tensor  # (n_out, H') factor of its outgoing weights: a product of γ and δ


def twins(width: int, n_out: int, neurons: list[int], coefficients: list[Coefficients]) -> Twins:
    """Split neurons one after the other: the first twin keeps its parent's place, the second one is appended."""
    source, gain = list(range(width)), [1.0] * width
    share = [np.ones(n_out) for _ in range(width)]
    for neuron, (alpha, beta, gamma, delta) in zip(neurons, coefficients):
        source.append(source[neuron])
        gain.append(gain[neuron] * float(beta))
        share.append(share[neuron] * delta)
        gain[neuron] *= float(alpha)
        share[neuron] = share[neuron] * gamma
    return Twins(torch.tensor(source), torch.tensor(gain, dtype=torch.float64), torch.from_numpy(np.stack(share, 1)))
