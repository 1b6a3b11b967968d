"""The loop: train an epoch, choose neurons, grow by them, evaluate, record."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from neuronsplit.data import Dataset, Split
from neuronsplit.growth import GROWTHS, WITHOUT_PARENT, sample_of
from neuronsplit.model import MLP, wide
from neuronsplit.optimizers import Optimizer, start
from neuronsplit.policies import choose
from neuronsplit.products import fast_products
from neuronsplit.scores import Seen, look
from neuronsplit.seeds import stream

NEW = "new"  # stands for the neuron split where one was added without a parent
Schedule = Callable[[int, list[float], int], int]  # epoch from 1, validation losses so far, all splits → splits now


def every(epochs: int, neurons: int) -> Schedule:
    """A schedule that splits so many neurons at the end of every so many epochs."""
    return lambda epoch, losses, splits: 0 if epoch % epochs else neurons


def once(at: int) -> Schedule:
    """A schedule of all splits at the end of one epoch."""
    return lambda epoch, losses, splits: splits if epoch == at else 0


def at_once(epoch: int, losses: list[float], splits: int) -> int:
    """All splits half-way, at which they cost as much training as one an epoch."""
    return splits if epoch == (splits + 1) // 2 else 0


def plateau(epoch: int, losses: list[float], splits: int) -> int:
    """A split when the validation loss fell by less than 1 % in the epoch before."""
    return 1 if len(losses) > 1 and losses[-1] > 0.99 * losses[-2] else 0


SCHEDULES = {
    "every-epoch": every(epochs=1, neurons=1),
    "5-every-5": every(epochs=5, neurons=5),
    "at-once": at_once,
    "at-first": once(at=1),
    "at-tenth": once(at=10),
    "plateau": plateau,
}
BY_LOSS = ("plateau",)  # may split at different epochs in different repeats


def grow(
    mlp: MLP,
    dataset: Dataset,
    seeds: list[int],
    policies: list[str],
    rule: str,
    schedule: str,
    splits: int,
    epochs: int,
    optimizer: str,
    learning_rate: float,
    batch_size: int,
) -> Iterator[dict[str, int | list | None | Tensor]]:
    """Train mlp and split `splits` neurons in place; yields, after each epoch, one value or one a replica (R,).

    mlp holds a replica for every policy of the first seed, then of the next; those of a seed see the same mini-batches.
    Replicas grow together: raises ValueError where `schedule` tells them apart, as one of BY_LOSS may.
    """
    order = [stream(seed, "order") for seed in seeds]
    coefficients, draws = (
        [stream(seed, name) for seed in seeds for _ in policies] for name in ("coefficients", "draws")
    )
    sample = sample_of(dataset)
    at_work = start(optimizer, mlp, learning_rate)
    past: list[list[float]] = [[] for _ in draws]  # validation losses
    for epoch in range(1, epochs + 1):
        with fast_products():
            losses, hits = train_epoch(mlp, dataset.train, order, at_work, batch_size)  # (R, N) each
            record = {"epoch": epoch} | measures("train", losses, hits)
            record |= measures("last_batch", losses[:, -batch_size:], hits[:, -batch_size:])
            now = min(_agreed(schedule, epoch, past, splits), splits)
            seen = look(mlp, dataset.validation)
            seen = list(seen) if now else seen  # kept where a policy wants it
            record |= measures("val", *evaluate(seen))
            chosen = []
            for turn in range(now):
                seen = list(look(mlp, dataset.validation)) if turn else seen
                neurons = None if rule in WITHOUT_PARENT else choose(policies, mlp, seen, draws)  # (R,)
                GROWTHS[rule](mlp, at_work, neurons, sample, coefficients)
                chosen.append([NEW] * len(draws) if neurons is None else map(str, neurons.tolist()))
            del seen
            splits -= now
            record |= {"split_neuron": [" ".join(names) for names in zip(*chosen)] or None}
            record |= {"hidden": mlp.width, "parameters": mlp.n_parameters()}
            for name, split in {"test": dataset.test, **dataset.also}.items():
                record |= measures(name, *evaluate(look(mlp, split)))
        for so_far, loss in zip(past, record["val_loss"].tolist()):
            so_far.append(loss)
        yield record


def _agreed(schedule: str, epoch: int, past: list[list[float]], splits: int) -> int:
    wanted = {SCHEDULES[schedule](epoch, so_far, splits) for so_far in past} if splits else {0}
    if len(wanted) > 1:
        raise ValueError(f"schedule {schedule!r} tells repeats apart: allowed is one replica at a time")
    return wanted.pop()


def measures(name: str, losses: Tensor, hits: Tensor) -> dict[str, Tensor]:
    """Mean loss and accuracy (R,) from the loss and hit of every image (R, N)."""
    return {f"{name}_loss": losses.mean(1), f"{name}_accuracy": hits.double().mean(1)}


def judged(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of every image (R, N) and whether the label's logit is the highest, from logits (R, N, C).

    labels are (N,) or (R, N); of equal logits the first counts.
    """
    labels = labels.expand(logits.shape[:2])
    losses = cross_entropy(logits.mT, labels, reduction="none")
    return losses, logits.mT.max(1).indices == labels


def joined(blocks: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Losses and hits (R, N) of several blocks of images as one."""
    losses, hits = zip(*blocks)
    return torch.cat(losses, dim=1), torch.cat(hits, dim=1)


def evaluate(seen: Iterable[Seen]) -> tuple[Tensor, Tensor]:
    """Losses and hits (R, N) of the images that networks have looked at."""
    return joined(judged(block.logits, block.labels) for block in seen)


def train_epoch(
    mlp: MLP, train: Split, order: list[np.random.Generator], optimizer: Optimizer, batch_size: int
) -> tuple[Tensor, Tensor]:
    """One pass through the images in S orders, each for R / S replicas; the last partial batch is dropped.

    Returns losses and hits (R, N), of each image as it was met, before the step that learns from it.
    """
    steps, replicas = len(train.labels) // batch_size, len(mlp.weights[0])
    orders = np.stack([rng.permutation(len(train.labels))[: steps * batch_size] for rng in order])  # (S, N)
    orders = torch.from_numpy(orders).to(train.labels.device)
    all_labels = train.labels[orders].repeat_interleave(replicas // len(order), dim=0)  # (R, N)
    met = []
    for batch, labels in zip(orders.split(batch_size, dim=1), all_labels.split(batch_size, dim=1)):
        images = train.images.index_select(0, batch.flatten()).unflatten(0, batch.shape)  # (S, B, n_in)
        met.append(judged(train_step(mlp, images, labels, optimizer), labels))
    mlp.ages += 1
    return joined(met)


def train_step(mlp: MLP, images: Tensor, labels: Tensor, optimizer: Optimizer) -> Tensor:
    """One step of each replica on images (S, B, n_in), as `MLP.hidden` takes them, with labels (R, B).

    Returns the logits (R, B, C).
    """
    optimizer.steps += 1
    update, rate, step = optimizer.update, optimizer.learning_rate, optimizer.steps
    hidden = mlp.hidden(images)
    logits = mlp.logits(hidden[-1])
    one = logits.new_ones(len(logits), 1, 1)
    for k, d, a in mlp.gradients(images, hidden, logits, labels):
        means = [wide(mean.weights[k], a) for mean in optimizer.means.values()]
        update(wide(mlp.weights[k], a), wide(d, a), a, means, rate, step)
        means = [mean.biases[k] for mean in optimizer.means.values()]
        update(mlp.biases[k], d.sum(2, keepdim=True), one, means, rate, step)
    return logits
