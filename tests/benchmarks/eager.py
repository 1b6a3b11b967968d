"""The study as one would write it otherwise: one network at a time, torch.nn, a DataLoader, autograd, torch.optim."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset


def loader(images: Tensor, labels: Tensor, batch_size: int) -> DataLoader:
    """Mini-batches of shuffled images; the last partial one is dropped."""
    return DataLoader(TensorDataset(images, labels), batch_size, shuffle=True, drop_last=True)


def indexed(images: Tensor, labels: Tensor, batch_size: int) -> Iterable[tuple[Tensor, Tensor]]:
    """The same without a DataLoader, which is faster: the tensors are indexed by each piece of a permutation."""
    order = torch.randperm(len(labels))[: len(labels) // batch_size * batch_size]
    return ((images[batch], labels[batch]) for batch in order.split(batch_size))


def network(n_in: int, width: int, n_out: int) -> nn.Sequential:
    """A dense ReLU network of one hidden layer."""
    return nn.Sequential(nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, n_out))


def train_epoch(net: nn.Module, batches: Iterable, optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """One pass; mean loss and accuracy as it went."""
    losses, hits, seen = 0.0, 0, 0
    for images, labels in batches:
        logits = net(images)
        loss = cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses += loss.item() * len(labels)
        hits += (logits.argmax(1) == labels).sum().item()
        seen += len(labels)
    return losses / seen, hits / seen


@torch.no_grad()
def evaluate(net: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean loss and accuracy."""
    logits = net(images)
    return cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean().item()
