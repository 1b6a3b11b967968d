"""What can be said of every neuron: numbers (R, H), of R replicas of H hidden neurons, all of them together.

Each is of the networks and what they make of the validation images. They are the scores of policies, and what the
network that decides knows of a neuron. A neuron that never fires has numbers like any other.
"""

import math
from collections.abc import Callable, Iterator
from itertools import accumulate, islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from neuronsplit.curvature import smallest_eigenvalue
from neuronsplit.data import Split
from neuronsplit.model import MLP, wide

FEW = 4000  # images of which a gradient by every weight is taken: a product as large as a pass through the network
BLOCK = 1000  # images looked at together, or as few as keep (R, H, n) numbers below LARGEST
LARGEST = 2**24


class Seen(NamedTuple):
    """Some images (n, n_in) and their labels (n,), with the activations (R, n, H) and logits (R, n, C) they cause."""

    images: Tensor
    labels: Tensor
    hidden: list[Tensor]  # of each hidden layer
    logits: Tensor


def look(mlp: MLP, split: Split) -> Iterator[Seen]:
    """What the networks make of a split, block by block."""
    block = max(1, min(BLOCK, LARGEST // (len(mlp.weights[0]) * max(mlp.sizes[1:]))))
    for images, labels in zip(split.images.split(block), split.labels.split(block)):
        hidden = mlp.hidden(images)
        yield Seen(images, labels, hidden, mlp.logits(hidden[-1]))


def _mean(seen: list[Seen], of_block: Callable[[Seen], Tensor]) -> Tensor:
    """A mean over all images, in float64, from the means over blocks."""
    images = sum(len(block.labels) for block in seen)
    return sum(of_block(block).double() * (len(block.labels) / images) for block in seen)


def loss_after_removal(mlp: MLP, seen: list[Seen]) -> Tensor:
    """Mean loss (R, H) with each hidden neuron removed in turn, as dropout would.

    Removing neuron j takes a_j v_j from the logits, and the H - 1 others are scaled by s = H / (H - 1). With b the
    output bias, class c is left with z_c - s v_cj a_j, where z = s V a + b; the loss is log Σ_c exp of that less the
    label's own. So one forward pass serves for all neurons, and nothing overflows unless the loss of an image is above
    88, as which it then counts. In base 2, whose powers are several times faster. A network's only neuron leaves
    nothing to scale: its removal leaves the output bias alone.
    """
    s = mlp.width / max(mlp.width - 1, 1)
    fan_out, bias = (p / math.log(2) for p in (mlp.weights[-1] * s, mlp.biases[-1]))  # (R, C, H), (R, C, 1)
    return _mean(seen, lambda block: _loss_after_removal(fan_out, bias, block) * math.log(2))


def _loss_after_removal(fan_out: Tensor, bias: Tensor, block: Seen) -> Tensor:
    activation = block.hidden[-1].mT.contiguous()  # (R, H, n)
    z = torch.baddbmm(bias, fan_out, activation)  # (R, C, n)
    label = one_hot(block.labels, z.shape[1]).mT.to(z)  # (C, n)
    own = torch.matmul(fan_out.mT, label).mul_(activation)  # (R, H, n)
    own -= (z * label).sum(1, keepdim=True)
    total, term = torch.zeros_like(own), torch.empty_like(own)
    for c in range(z.shape[1]):
        torch.addcmul(z[:, c, None], fan_out[:, c, :, None], activation, value=-1, out=term)
        total += term.add_(own).exp2_()
    return total.clamp_(max=torch.finfo(total.dtype).max).log2_().mean(2)


def fire_rate(mlp: MLP, seen: list[Seen]) -> Tensor:
    """Share of the images (R, H) on which each neuron's activation is above 0."""
    return _mean(seen, lambda block: (block.hidden[-1] > 0).double().mean(1))


def no_score(mlp: MLP, seen: list[Seen]) -> Tensor:
    """The same score (R, H) for every neuron."""
    return torch.zeros_like(mlp.biases[-2].squeeze(2))


def importance(mlp: MLP, seen: list[Seen]) -> Tensor:
    """Σ |w ∂L/∂w| (R, H) over a neuron's incoming weights, bias and outgoing weights.

    To first order, how much the loss on some FEW images would change without each of them (Lee, Ajanthan & Torr 2019,
    SNIP, arXiv 1810.02340).
    """
    parts = torch.cat([mlp.weights[-2], mlp.biases[-2], mlp.weights[-1].mT], dim=2)  # (R, H, n_in + 1 + C)
    return (parts * _gradient(mlp, seen)).abs().sum(2)


def incoming_gradient(mlp: MLP, seen: list[Seen]) -> Tensor:
    """Length (R, H) of the gradient of the loss on some FEW images by each neuron's incoming weights and bias."""
    return _gradient(mlp, seen)[:, :, : mlp.sizes[-3] + 1].norm(dim=2)


def _gradient(mlp: MLP, seen: list[Seen]) -> Tensor:
    """By each neuron's incoming weights, bias and outgoing weights: (R, H, n_in + 1 + C)."""

    def of_block(block: Seen) -> Tensor:
        (_, d_out, hidden), (_, d_in, inputs) = islice(_gradients(mlp, block), 2)
        by_fan_in = torch.matmul(wide(d_in, inputs), inputs).view_as(mlp.weights[-2])
        return torch.cat([by_fan_in, d_in.sum(2, keepdim=True), torch.bmm(d_out, hidden).mT], dim=2)

    return _mean(_few(seen), of_block)


def _few(seen: list[Seen]) -> list[Seen]:
    """Blocks that have the first FEW images between them."""
    before = accumulate((len(block.labels) for block in seen), initial=0)
    return [block for block, first in zip(seen, before) if first < FEW]


def outgoing_gradient(mlp: MLP, seen: list[Seen]) -> Tensor:
    """Length (R, H) of the gradient of the loss by each neuron's outgoing weights."""

    def gradient(block: Seen) -> Tensor:
        _, d, hidden = next(_gradients(mlp, block))
        return torch.bmm(d, hidden)  # (R, C, H)

    return _mean(seen, gradient).norm(dim=1)


def _gradients(mlp: MLP, block: Seen) -> Iterator[tuple[int, Tensor, Tensor]]:
    return mlp.gradients(block.images, block.hidden, block.logits, block.labels)


def activation_variance(mlp: MLP, seen: list[Seen]) -> Tensor:
    """Variance (R, H) of each neuron's activation over the images."""
    mean = _mean(seen, lambda block: block.hidden[-1].mean(1))
    return _mean(seen, lambda block: (block.hidden[-1] - mean[:, None]).square().mean(1))


def nearest(mlp: MLP, seen: list[Seen]) -> Tensor:
    """Correlation (R, H) of each neuron's activation with that of the one most like it, on FEW images.

    0 for a neuron that never fires, and where there is no other.
    """
    seen = _few(seen)
    mean = _mean(seen, lambda block: block.hidden[-1].mean(1))[:, None].to(mlp.weights[0])  # (R, 1, H)

    def products(block: Seen) -> Tensor:
        apart = block.hidden[-1] - mean  # (R, n, H)
        return torch.bmm(apart.mT, apart) / len(block.labels)

    covariance = _mean(seen, products)  # (R, H, H)
    sd = covariance.diagonal(dim1=1, dim2=2).sqrt()
    correlation = (covariance / (sd[:, :, None] * sd[:, None])).nan_to_num(0, 0, 0)
    correlation.diagonal(dim1=1, dim2=2).fill_(-1 if mlp.width > 1 else 0)
    return correlation.amax(2)


def fan_in(mlp: MLP, seen: list[Seen]) -> Tensor:
    """Length (R, H) of each neuron's incoming weights and bias."""
    return torch.cat([mlp.weights[-2], mlp.biases[-2]], dim=2).norm(dim=2)


def fan_out(mlp: MLP, seen: list[Seen]) -> Tensor:
    """Length (R, H) of each neuron's outgoing weights."""
    return mlp.weights[-1].norm(dim=1)


def since_split(mlp: MLP, seen: list[Seen]) -> Tensor:
    """Epochs (R, H) since each neuron was last split, or began."""
    return mlp.ages


FEATURES = (  # all that is known of a neuron, by the functions' names
    loss_after_removal, fire_rate, importance, incoming_gradient, outgoing_gradient, activation_variance,
    smallest_eigenvalue, fan_in, fan_out, nearest, since_split,
)  # fmt: skip
