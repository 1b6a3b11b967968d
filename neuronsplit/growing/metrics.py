"""Losses and accuracies: of each image, of blocks of images, and their means."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from neuronsplit.growing.scores import Activations


def mean_metrics(name: str, losses: Tensor, correct: Tensor) -> dict[str, Tensor]:
    """Return the mean loss and accuracy (R,) of values per image (R, N); their names start with `name`."""
    return {f"{name}_loss": losses.mean(1), f"{name}_accuracy": correct.double().mean(1)}


def per_example_metrics(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy (R, N) of each image, and whether the label's logit is the highest.

    logits: (R, N, C). labels: (N,) or (R, N). If logits are equal, the first one counts.
    """
    labels = labels.expand(logits.shape[:2])
    losses = cross_entropy(logits.mT, labels, reduction="none")
    return losses, logits.mT.max(1).indices == labels


def block_metrics(blocks: Iterable[Activations]) -> tuple[Tensor, Tensor]:
    """Return the loss and the correctness (R, N) of each image of several blocks."""
    return cat_blocks(per_example_metrics(block.logits, block.labels) for block in blocks)


def cat_blocks(blocks: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Concatenate losses and correctness of several blocks of images into (R, N) each."""
    losses, correct = zip(*blocks)
    return torch.cat(losses, dim=1), torch.cat(correct, dim=1)
