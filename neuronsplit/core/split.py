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
    """A rule draws the coefficients of a split; it is exact if they always keep αγ + βδ = 1."""

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
    """Share each outgoing weight equally, with noise of standard deviation 0.02, as Net2Net does; this is not exact.

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
    """Draw the coefficients of one split per replica, each from the replica's own stream.

    rule: a name in SPLIT_RULES. rngs: a stream per replica. n_out: the number of the neuron's outputs.
    """
    return [SPLIT_RULES[rule].draw(rng, n_out) for rng in rngs]


class Twins(NamedTuple):
    """The neurons of a layer after its splits, in terms of those before."""

    source: Tensor  # (H',) index of the neuron that each one descends from
    gain: Tensor  # (H',) factor of its incoming weights and bias: a product of α and β
    share: Tensor  # (n_out, H') factor of its outgoing weights: a product of γ and δ


def twins(width: int, n_out: int, neurons: list[int], coefficients: list[Coefficients]) -> Twins:
    """Split neurons of one layer one after the other.

    The first twin takes its parent's place, and the second one is appended.
    width: the number of neurons before the splits. n_out: the number of outputs of each.
    neurons, coefficients: what is split and how, in order. A neuron named again has its first twin split once more.
    """
    source, gain = list(range(width)), [1.0] * width
    share = [np.ones(n_out) for _ in range(width)]
    for neuron, (alpha, beta, gamma, delta) in zip(neurons, coefficients):
        source.append(source[neuron])
        gain.append(gain[neuron] * float(beta))
        share.append(share[neuron] * delta)
        gain[neuron] *= float(alpha)
        share[neuron] = share[neuron] * gamma
    return Twins(torch.tensor(source), torch.tensor(gain, dtype=torch.float64), torch.from_numpy(np.stack(share, 1)))


def split_layer(
    w_in: Tensor, bias: Tensor, w_out: Tensor, neurons: list[int], coefficients: list[Coefficients]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the weights of a layer of R networks after neuron neurons[r] of network r is split.

    w_in, bias, w_out: (R, H, n_in), (R, H, 1) and (R, n_out, H). neurons, coefficients: one per network.
    Returns the same three with H + 1 in place of H, and the index (R, H + 1) of the neuron that each one descends from.
    """
    width, n_out = w_in.shape[1], w_out.shape[1]
    of_replicas = [twins(width, n_out, [neuron], [drawn]) for neuron, drawn in zip(neurons, coefficients)]
    source, gain, share = (torch.stack(parts).to(w_in.device) for parts in zip(*of_replicas))
    rows, gain = source[:, :, None], gain[:, :, None].to(w_in)  # (R, H + 1, 1)
    w_in = w_in.take_along_dim(rows, 1) * gain  # (R, H + 1, n_in)
    bias = bias.take_along_dim(rows, 1) * gain  # (R, H + 1, 1)
    w_out = w_out.take_along_dim(source[:, None], 2) * share.to(w_out)  # (R, n_out, H + 1)
    return w_in, bias, w_out, source
