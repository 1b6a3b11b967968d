"""The study as most people would write it: one network at a time, torch.nn, a DataLoader, autograd, torch.optim.

The other benchmarks time these functions for comparison.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset


def loader(images: Tensor, labels: Tensor, batch_size: int) -> DataLoader:
    """Return mini-batches of shuffled images; the last partial one is dropped."""
    return DataLoader(TensorDataset(images, labels), batch_size, shuffle=True, drop_last=True)


def indexed(images: Tensor, labels: Tensor, batch_size: int) -> Iterable[tuple[Tensor, Tensor]]:
    """Return the same without a DataLoader, which is faster: each piece of a permutation indexes the tensors."""
    order = torch.randperm(len(labels))[: len(labels) // batch_size * batch_size]
    return ((images[index], labels[index]) for index in order.split(batch_size))


def network(n_in: int, width: int, n_out: int) -> nn.Sequential:
    """Make a dense ReLU network with one hidden layer."""
    return nn.Sequential(nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, n_out))


def train_epoch(net: nn.Module, batches: Iterable, optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """Train one epoch; return the mean loss and the accuracy of the images before each step."""
    total_loss, n_correct, n_images = 0.0, 0, 0
    for images, labels in batches:
        logits = net(images)
        loss = cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total_loss += loss.item() * len(labels)
        n_correct += (logits.argmax(1) == labels).sum().item()
        n_images += len(labels)
    return total_loss / n_images, n_correct / n_images


@torch.no_grad()
def evaluate(net: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the mean loss and the accuracy."""
    logits = net(images)
    return cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean().item()
