"""Scores of neurons: numbers (R, H) for R replicas of H hidden neurons.

Every score is a function (mlp, blocks), where blocks is what `forward_blocks` returns for the validation images.
Policies choose neurons by scores, and fitted policies use all of FEATURES. Neurons that never fire have scores too.
"""

import math
from collections.abc import Callable, Iterator
from itertools import accumulate, islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from neuronsplit.core.matmul import merge_replicas
from neuronsplit.core.mlp import MLP, logit_gradient
from neuronsplit.data.datasets import Subset
from neuronsplit.growing.curvature import smallest_eigenvalue

GRADIENT_IMAGES = 4000  # fewer images are enough here, where a gradient costs as much as a pass through the network
BLOCK_SIZE = 1000  # images per block, or fewer so that activations (R, H, n) have at most MAX_BLOCK_NUMEL entries
MAX_BLOCK_NUMEL = 2**24
MAX_COPIED_NUMEL = 2_000_000  # of the images (S, n, n_in) of seeds; larger copies are no faster, and fragment memory


class Activations(NamedTuple):
    """A block of images, with the activations and logits that networks compute from them."""

    subset: Subset  # of n images, or of n images of each of S seeds
    hidden: list[Tensor]  # (R, n, H) of each hidden layer
    logits: Tensor  # (R, n, C)

    @property
    def images(self) -> Tensor:
        """The images (n, n_in), or (S, n, n_in) of S seeds."""
        return self.subset.images

    @property
    def labels(self) -> Tensor:
        """The labels (n,), or (R, n)."""
        labels = self.subset.labels
        return labels if labels.dim() == 1 else labels.repeat_interleave(len(self.logits) // len(labels), dim=0)

    def of_replicas(self, replicas: slice) -> "Activations":
        """Return the same block for some replicas, equally many of each seed."""
        return self._replace(hidden=[a[replicas] for a in self.hidden], logits=self.logits[replicas])


def iter_blocks(mlp: MLP, subset: Subset) -> Iterator[Activations]:
    """Run networks on a subset block by block; one block at a time is in memory."""
    size = min(BLOCK_SIZE, MAX_BLOCK_NUMEL // (mlp.n_replicas * max(mlp.sizes[1:])))
    if subset.by_seed:
        size = min(size, MAX_COPIED_NUMEL // (len(subset.rows) * mlp.sizes[0]))
    for block in subset.split(max(1, size)):
        hidden = mlp.hidden(block.images)
        yield Activations(block, hidden, mlp.logits(hidden[-1]))


def forward_blocks(mlp: MLP, subset: Subset) -> list[Activations]:
    """Run networks on a subset and store all activations, so that several scores can read them."""
    return list(iter_blocks(mlp, subset))


def _mean(blocks: list[Activations], function: Callable[[Activations], Tensor]) -> Tensor:
    """Return the mean over all images, in float64, of a function that gives the mean over a block."""
    n_images = sum(block.labels.shape[-1] for block in blocks)
    return sum(function(block).double() * (block.labels.shape[-1] / n_images) for block in blocks)


def ablation_loss(mlp: MLP, blocks: list[Activations]) -> Tensor:
    """Return the mean loss (R, H) with each hidden neuron removed in turn, and the others scaled as dropout does.

    If the only neuron of a network is removed, the output bias remains.
    """
    # One forward pass serves all neurons. Without neuron j, the other H − 1 neurons are scaled by s = H / (H − 1), and
    # the logits lose the term of j. Let z = s V a + b, where b is the output bias, and let y be the label. Then the
    # logits without j are z − s v_j a_j, and the loss is log Σ_c exp(z_c − s v_cj a_j) − (z_y − s v_yj a_j).
    s = mlp.width / max(mlp.width - 1, 1)
    w_out, bias = (p / math.log(2) for p in (mlp.weights[-1] * s, mlp.biases[-1]))  # (R, C, H), (R, C, 1)
    return _mean(blocks, lambda block: _ablation_loss(w_out, bias, block) * math.log(2))


def _ablation_loss(w_out: Tensor, bias: Tensor, block: Activations) -> Tensor:
    # Everything is in units of log 2, as exp2 and log2 are several times faster than exp and log. The label's logit is
    # subtracted before the power is taken, so that only an image whose loss exceeds 88 overflows. It counts as 88.
    activation = block.hidden[-1].mT.contiguous()  # (R, H, n)
    z = torch.baddbmm(bias, w_out, activation)  # (R, C, n)
    label = one_hot(block.labels, z.shape[1]).mT.to(z)  # (C, n) or (R, C, n)
    label_logit = torch.matmul(w_out.mT, label).mul_(activation)  # (R, H, n): s v_yj a_j
    label_logit -= (z * label).sum(1, keepdim=True)  # now −(z_y − s v_yj a_j)
    total, term = torch.zeros_like(label_logit), torch.empty_like(label_logit)
    for c in range(z.shape[1]):  # a loop over classes keeps (R, C, H, n) out of memory
        torch.addcmul(z[:, c, None], w_out[:, c, :, None], activation, value=-1, out=term)
        total += term.add_(label_logit).exp2_()
    return total.clamp_(max=torch.finfo(total.dtype).max).log2_().mean(2)


def fire_rate(mlp: MLP, blocks: list[Activations]) -> Tensor:
    """Return the share (R, H) of the images for which each neuron's activation is above 0."""
    return _mean(blocks, lambda block: (block.hidden[-1] > 0).double().mean(1))


def uniform(mlp: MLP, blocks: list[Activations]) -> Tensor:
    """Return the same score (R, H) for every neuron."""
    return torch.zeros_like(mlp.biases[-2].squeeze(2))


def importance(mlp: MLP, blocks: list[Activations]) -> Tensor:
    """Return Σ |w ∂L/∂w| (R, H) over each neuron's incoming weights, bias and outgoing weights.

    To first order, the loss changes by at most this without them (SNIP: Lee, Ajanthan & Torr 2019, arXiv 1810.02340).
    Only the first GRADIENT_IMAGES images are used.
    """
    parts = torch.cat([mlp.weights[-2], mlp.biases[-2], mlp.weights[-1].mT], dim=2)  # (R, H, n_in + 1 + C)
    return (parts * _gradient(mlp, blocks)).abs().sum(2)


def incoming_gradient_norm(mlp: MLP, blocks: list[Activations]) -> Tensor:
    """Return the gradient norm (R, H) of each neuron's incoming weights and bias, on GRADIENT_IMAGES images."""
    return _gradient(mlp, blocks)[:, :, : mlp.sizes[-3] + 1].norm(dim=2)


def _gradient(mlp: MLP, blocks: list[Activations]) -> Tensor:
    """Return the gradient of each neuron's incoming weights, bias and outgoing weights: (R, H, n_in + 1 + C)."""

    def of_block(block: Activations) -> Tensor:
        gradients = mlp.gradients(block.images, block.hidden, block.logits, block.labels)
        (_, grad_logits, hidden), (_, grad_hidden, inputs) = islice(gradients, 2)
        grad_rows = merge_replicas(grad_hidden.mT, inputs)
        by_w_in = torch.matmul(grad_rows, inputs).view_as(mlp.weights[-2])
        return torch.cat([by_w_in, grad_hidden.sum(1)[..., None], torch.bmm(grad_logits.mT, hidden).mT], dim=2)

    return _mean(_first_blocks(blocks), of_block)


def _first_blocks(blocks: list[Activations]) -> list[Activations]:
    """Return the blocks that hold the first GRADIENT_IMAGES images."""
    starts = accumulate((block.labels.shape[-1] for block in blocks), initial=0)
    return [block for block, start in zip(blocks, starts) if start < GRADIENT_IMAGES]


def outgoing_gradient_norm(mlp: MLP, blocks: list[Activations]) -> Tensor:
    """Return the gradient norm (R, H) of each neuron's outgoing weights."""

    def of_block(block: Activations) -> Tensor:
        return torch.bmm(logit_gradient(block.logits, block.labels).mT, block.hidden[-1])  # (R, C, H)

    return _mean(blocks, of_block).norm(dim=1)


def activation_variance(mlp: MLP, blocks: list[Activations]) -> Tensor:
    """Return the variance (R, H) of each neuron's activation over the images."""
    mean = _mean(blocks, lambda block: block.hidden[-1].mean(1))
    return _mean(blocks, lambda block: (block.hidden[-1] - mean[:, None]).square().mean(1))


def max_correlation(mlp: MLP, blocks: list[Activations]) -> Tensor:
    """Return the largest correlation (R, H) of each neuron's activation with another neuron's.

    It is 0 for a neuron that never fires, and for a network's only neuron. Only the first GRADIENT_IMAGES images are
    used.
    """
    blocks = _first_blocks(blocks)
    mean = _mean(blocks, lambda block: block.hidden[-1].mean(1))[:, None].to(mlp.weights[0])  # (R, 1, H)

    def of_block(block: Activations) -> Tensor:
        centered = block.hidden[-1] - mean  # (R, n, H)
        return torch.bmm(centered.mT, centered) / block.labels.shape[-1]

    covariance = _mean(blocks, of_block)  # (R, H, H)
    sd = covariance.diagonal(dim1=1, dim2=2).sqrt()
    correlation = (covariance / (sd[:, :, None] * sd[:, None])).nan_to_num(0, 0, 0)
    correlation.diagonal(dim1=1, dim2=2).fill_(-1 if mlp.width > 1 else 0)
    return correlation.amax(2)


def incoming_norm(mlp: MLP, blocks: list[Activations]) -> Tensor:
    """Return the norm (R, H) of each neuron's incoming weights and bias."""
    return torch.cat([mlp.weights[-2], mlp.biases[-2]], dim=2).norm(dim=2)


def outgoing_norm(mlp: MLP, blocks: list[Activations]) -> Tensor:
    """Return the norm (R, H) of each neuron's outgoing weights."""
    return mlp.weights[-1].norm(dim=1)


def epochs_since_split(mlp: MLP, blocks: list[Activations]) -> Tensor:
    """Return the epochs (R, H) since each neuron was last split, or since the start of training."""
    return mlp.epochs_since_split


FEATURES = (  # all scores that fitted policies use; their names are columns of tables
    ablation_loss, fire_rate, importance, incoming_gradient_norm, outgoing_gradient_norm, activation_variance,
    smallest_eigenvalue, incoming_norm, outgoing_norm, max_correlation, epochs_since_split,
)  # fmt: skip
