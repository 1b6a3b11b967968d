"""The loop: train an epoch, choose a neuron, split it, evaluate, record."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from neuronsplit.data import Dataset, Split
from neuronsplit.model import MLP
from neuronsplit.policies import choose
from neuronsplit.seeds import stream
from neuronsplit.split import draw

BLOCK = 1000  # images evaluated at a time


def every_epoch(splits: int, still: int) -> list[bool]:
    """A split at the end of each of the first `splits` epochs, then `still` epochs without one."""
    return [True] * splits + [False] * still


SCHEDULES = {"every-epoch": every_epoch}


def grow(
    mlp: MLP,
    dataset: Dataset,
    seeds: list[int],
    policy: str | None,
    rule: str,
    schedule: list[bool],
    learning_rate: float,
    batch_size: int,
) -> Iterator[dict[str, int | Tensor]]:
    """Train and split mlp in place; yields, after each epoch and its split, one value or one value a replica (R,).

    `schedule` says at the end of which epochs `policy` chooses a neuron for `rule` to split; policy None splits none.
    """
    order, coefficients, draws = ([stream(s, name) for s in seeds] for name in ("order", "coefficients", "draws"))
    for epoch, splits in enumerate(schedule, start=1):
        record = {"epoch": epoch, "split_neuron": None}
        record |= measures("train", *train_epoch(mlp, dataset.train, order, learning_rate, batch_size))
        if splits and policy is not None:
            record["split_neuron"] = choose(policy, mlp, *dataset.validation, draws)
            mlp.split(record["split_neuron"], draw(rule, coefficients, mlp.sizes[-1]))
        record |= {"hidden": mlp.width, "parameters": mlp.n_parameters()}
        record |= measures("val", *evaluate(mlp, dataset.validation)) | measures("test", *evaluate(mlp, dataset.test))
        yield record


def measures(name: str, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Mean loss and accuracy (R,) of logits (R, N, C) against labels (R, N) or (N,)."""
    labels = labels.expand(logits.shape[:2])
    losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none")  # (R, N)
    hits = logits.argmax(2) == labels  # (R, N)
    return {f"{name}_loss": losses.mean(1), f"{name}_accuracy": hits.double().mean(1)}


@torch.no_grad()
def evaluate(mlp: MLP, split: Split) -> tuple[Tensor, Tensor]:
    """Logits (R, N, C) and labels (N,) of a split."""
    return torch.cat([mlp(images) for images in split.images.split(BLOCK)], dim=1), split.labels


@torch.no_grad()
def train_epoch(
    mlp: MLP, train: Split, order: list[np.random.Generator], learning_rate: float, batch_size: int
) -> tuple[Tensor, Tensor]:
    """One pass of SGD, every replica through the images in an order of its own; the last partial batch is dropped.

    Returns logits (R, N, C), computed as each image was met, before the step that learns from it, and labels (R, N).
    """
    steps = len(train.labels) // batch_size
    orders = np.stack([rng.permutation(len(train.labels))[: steps * batch_size] for rng in order])  # (R, N)
    orders = torch.from_numpy(orders).to(train.labels.device)
    logits = []
    for batch in orders.split(batch_size, dim=1):  # (R, B)
        images = train.images.index_select(0, batch.flatten()).unflatten(0, batch.shape)  # (R, B, n_in)
        logits.append(sgd_step(mlp, images, train.labels[batch], learning_rate))
    return torch.cat(logits, dim=1), train.labels[orders]


@torch.no_grad()
def sgd_step(mlp: MLP, images: Tensor, labels: Tensor, learning_rate: float) -> Tensor:
    """One step of plain SGD on the mean cross-entropy of each replica's own images (R, B, n_in), labels (R, B).

    Back-propagation by hand, the update fused into the product that forms the gradient. With z the logits and
    y the one-hot labels, ∂loss/∂z = (softmax(z) − y) / B; a layer that maps a to a Wᵀ + b and is sent back d
    has gradients dᵀa and Σ d, and sends back d W, where the neuron before it fired. Returns the logits (R, B, C).
    """
    activations = [images, *mlp.hidden(images)]
    logits = torch.baddbmm(mlp.biases[-1], mlp.weights[-1], activations[-1].mT).mT  # (R, B, C)
    back = logits.softmax(2)
    back.scatter_add_(2, labels[:, :, None], -torch.ones_like(back))
    back /= images.shape[1]
    for k in reversed(range(len(activations))):
        w, b, a = mlp.weights[k], mlp.biases[k], activations[k]
        before = torch.bmm(w.mT, back.mT).mT * (a > 0) if k > 0 else None  # (R, B, n_in of layer k)
        w.baddbmm_(back.mT, a, alpha=-learning_rate)
        b.sub_(back.mT.sum(2, keepdim=True), alpha=learning_rate)
        back = before
    return logits
