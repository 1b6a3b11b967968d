"""The split as tensor maths.

Neuron (w, b, v), with incoming weights w, bias b and outgoing weights v, becomes two:

    (αw, αb, γ∘v)  and  (βw, βb, δ∘v)      with  αγ + βδ = 1  for every output,  α, β > 0.

relu(αz) = α·relu(z), so the next layer receives (αγ + βδ) ∘ v·relu(z): what it received before.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Coefficients(NamedTuple):
    """What each twin takes of its parent: numbers, or for γ and δ also one number an output."""

    alpha: np.ndarray | Tensor
    beta: np.ndarray | Tensor
    gamma: np.ndarray | Tensor
    delta: np.ndarray | Tensor


def scaled(rng: np.random.Generator, n_out: int) -> Coefficients:
    """The 2021 study's rule: four draws from U[½, 1), each divided by √(αγ + βδ)."""
    alpha, beta, gamma, delta = rng.uniform(0.5, 1, size=4)
    return Coefficients(*(np.array([alpha, beta, gamma, delta]) / np.sqrt(alpha * gamma + beta * delta)))


def even(rng: np.random.Generator, n_out: int) -> Coefficients:
    """Two equal twins with half the outgoing weights each: under SGD they never part."""
    return Coefficients(*np.array([1, 1, 0.5, 0.5]))


def outgoing(rng: np.random.Generator, n_out: int) -> Coefficients:
    """Equal incoming weights, a random share of every outgoing weight: exact for any activation."""
    gamma, delta = rng.uniform(0.5, 1, size=(2, n_out))
    return Coefficients(np.array(1.0), np.array(1.0), gamma / (gamma + delta), delta / (gamma + delta))


def scaled_outgoing(rng: np.random.Generator, n_out: int) -> Coefficients:
    """Incoming weights scaled as in `scaled`, outgoing shares drawn per output as in `outgoing`."""
    alpha, beta = rng.uniform(0.5, 1, size=2)
    gamma, delta = rng.uniform(0.5, 1, size=(2, n_out))
    total = alpha * gamma + beta * delta  # (n_out,)
    return Coefficients(alpha, beta, gamma / total, delta / total)


def noisy(rng: np.random.Generator, n_out: int) -> Coefficients:
    """Not exact: a copy with noise, after Net2Net (Chen, Goodfellow & Shlens 2016, arXiv 1511.05641, section 2.5)."""
    gamma, delta = 0.5 + 0.02 * rng.standard_normal((2, n_out))
    return Coefficients(np.array(1.0), np.array(1.0), gamma, delta)


RULES = {
    "scaled": scaled,
    "even": even,
    "outgoing": outgoing,
    "scaled-outgoing": scaled_outgoing,
    "noisy": noisy,
}
INEXACT = ("noisy",)


def draw(rule: str, rngs: list[np.random.Generator], n_out: int) -> Coefficients:
    """One draw of a rule from each replica's stream, in float64: α, β (R, 1) and γ, δ (R, n_out)."""
    drawn = [RULES[rule](rng, n_out) for rng in rngs]
    sizes = Coefficients(1, 1, n_out, n_out)
    return Coefficients(
        *(
            torch.from_numpy(np.stack([np.broadcast_to(each, size) for each in column]))
            for column, size in zip(zip(*drawn), sizes)
        )
    )


def split(
    fan_in: Tensor, bias: Tensor, fan_out: Tensor, neurons: Tensor, coefficients: Coefficients
) -> tuple[Tensor, Tensor, Tensor]:
    """Split one neuron of each of R layers: the first twin keeps the parent's place, the second is appended.

    fan_in (R, H, n_in), bias (R, H, 1), fan_out (R, n_out, H), neurons (R,); α, β (R, 1); γ, δ (R, n_out).
    Returns new tensors with H + 1 in place of H.
    """
    alpha, beta, gamma, delta = (c.to(fan_in) for c in coefficients)
    return (
        _twins(fan_in, neurons, alpha, beta),  # (R, H + 1, n_in)
        _twins(bias, neurons, alpha, beta),  # (R, H + 1, 1)
        _twins(fan_out.mT, neurons, gamma, delta).mT.contiguous(),  # (R, n_out, H + 1)
    )


def _twins(rows: Tensor, neurons: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Replace row neurons[r] of rows (R, H, K) by `first` times it and append `second` times it."""
    replica = torch.arange(len(rows), device=rows.device)
    parent = rows[replica, neurons]  # (R, K)
    grown = torch.cat([rows, (second * parent)[:, None]], dim=1)  # (R, H + 1, K)
    grown[replica, neurons] = first * parent
    return grown
