"""Do twins diverge? This file measures how the two neurons of a split differ, from the split to the end of training.

Twins (αw, γv) and (βw, δv) that fire on the same images receive the gradients γg and δg of their incoming weights.
Under plain SGD, w₁/α and w₂/β move apart by |γ/α − δ/β| g per step, and never if κ = γβ / δα is 1.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import train_step
from neuronsplit.core.split import Coefficients, draw_coefficients
from neuronsplit.data.datasets import Dataset, Subset
from neuronsplit.growing.scores import iter_blocks
from neuronsplit.growing.train import Run
from neuronsplit.names import NO_GROWTH


def kappa(coefficients: Coefficients) -> float:
    """Return κ = γβ / δα of a split, from the means of γ and δ where they differ by output."""
    alpha, beta, gamma, delta = (float(np.mean(c)) for c in coefficients)
    return gamma * beta / (delta * alpha)


def angles(mlp: MLP, first: list[int], second: list[int]) -> Tensor:
    """Return the angles (R, P), in degrees, between the incoming weights and biases of P pairs of neurons.

    first, second: the P neurons of one and of the other side.
    """
    theta = _theta(mlp)
    return _angle(theta[:, first], theta[:, second])


def firing_disagreement(hidden: Tensor, first: list[int], second: list[int]) -> Tensor:
    """Return the share (R, P) of the images for which only one neuron of a pair fires; pairs are those of `angles`.

    hidden: the activations (R, N, H).
    """
    firing = hidden > 0
    return (firing[..., first] != firing[..., second]).double().mean(1)


def effective_rank(hidden: Tensor) -> Tensor:
    """Return the effective rank (R,) of activations (R, N, H).

    This is exp of the entropy of the normalised singular values. Source: Roy & Vetterli 2007, The effective rank: a
    measure of effective dimensionality, eq. 3.
    """
    values = torch.linalg.svdvals(hidden.double().nan_to_num(0, 0, 0))  # (R, H)
    shares = values / values.sum(1, keepdim=True)
    return torch.special.entr(shares).sum(1).exp()


def _theta(mlp: MLP) -> Tensor:
    """Return the incoming weights and bias (R, H, n_in + 1) of the last hidden layer's neurons."""
    return torch.cat([mlp.weights[-2], mlp.biases[-2]], dim=2).double()


def _angle(first: Tensor, second: Tensor) -> Tensor:
    """Return the angle in degrees between vectors along the last axis.

    arccos of the cosine would lose small angles to rounding; this form (Kahan 2006) does not.
    """
    first, second = (v / v.norm(dim=-1, keepdim=True) for v in (first, second))
    return 2 * torch.atan2((first - second).norm(dim=-1), (first + second).norm(dim=-1)).rad2deg()


def split_all(run: Run, growth: str, subset: Subset) -> None:
    """Split every neuron once: neuron H + j becomes the twin of neuron j."""
    for neuron in range(run.mlp.width):
        run.grow(growth, torch.full((run.mlp.n_replicas,), neuron), subset)


def _twin_pairs(width: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the twins after `split_all`."""
    return list(range(width)), list(range(width, 2 * width))


def _pretrain(
    dataset: Dataset, optimizer: str, learning_rate: float, width: int, n_epochs: int, seeds: list[int], batch_size: int
) -> Run:
    run = Run.start(MLP.for_dataset(dataset, width, seeds), seeds, optimizer, learning_rate, batch_size)
    for _ in range(n_epochs):
        run.epoch(dataset.train)
    return run


def predicted_and_measured_angles(
    dataset: Dataset, learning_rate: float, width: int, epochs_before: int, steps: list[int], seeds: list[int],
    batch_size: int = 32,
) -> pd.DataFrame:  # fmt: skip
    """Return the angles between `scaled` twins under SGD, predicted and measured.

    learning_rate, batch_size, width: those of the networks, one per seed. epochs_before: epochs before the split.
    steps: the numbers of steps after the split at which angles are taken.
    Returns a row per neuron, seed and step, with the columns predicted and measured (degrees), kappa, seed, steps.

    For the prediction, each twin moves as the unsplit neuron does on the same mini-batches, at γ/α or δ/β of its speed.
    This is exact for one step.
    """
    unsplit = _pretrain(dataset, "sgd", learning_rate, width, epochs_before, seeds, batch_size)
    split, initial = unsplit.fork(list(range(len(seeds)))), _theta(unsplit.mlp)  # (R, H, n_in + 1)
    drawn = [draw_coefficients("scaled", split.coefficients, len(dataset.classes)) for _ in range(width)]
    for neuron, coefficients in enumerate(drawn):
        split.mlp.split(neuron, coefficients)
    by_replica = list(zip(*drawn))  # [replica][neuron]
    speeds = torch.tensor([[(c.gamma / c.alpha, c.delta / c.beta) for c in row] for row in by_replica])  # (R, H, 2)
    columns = {"kappa": torch.tensor([[kappa(c) for c in row] for row in by_replica])}  # (R, H)
    columns |= {"seed": torch.tensor(seeds)[:, None].expand(-1, width)}
    tables = []
    for step, batch in enumerate(islice(unsplit.batches(dataset.train), max(steps)), start=1):
        for run in (unsplit, split):
            train_step(run.mlp, *batch, run.optimizer)
        if step in steps:
            moved = _theta(unsplit.mlp) - initial
            first, second = (initial + speed[..., None] * moved for speed in speeds.unbind(2))
            found = {"predicted": _angle(first, second), "measured": angles(split.mlp, *_twin_pairs(width))} | columns
            tables.append(pd.DataFrame({name: values.flatten() for name, values in found.items()}).assign(steps=step))
    return pd.concat(tables, ignore_index=True)


def track_twins(
    dataset: Dataset, growths: list[str], optimizer: str, learning_rate: float, width: int, epochs_before: int,
    epochs_after: int, seeds: list[int], batch_size: int = 32,
) -> Iterator[pd.DataFrame]:  # fmt: skip
    """Train networks, split every neuron once by each growth in turn, and train on; yield a table per epoch.

    growths: names in GROWTHS, or NO_GROWTH, with which networks train on unsplit.
    epochs_before, epochs_after: the epochs of training before and after the split. Networks have this width at first.
    Yields tables with a row per pair of twins and seed. Without a split, the first neuron stands for a pair.
    Their columns are growth, optimizer, seed, epoch, pair, angle, firing_disagreement, effective_rank and test_loss.
    Epoch 0 is the moment of the split.
    """
    trained = _pretrain(dataset, optimizer, learning_rate, width, epochs_before, seeds, batch_size)
    for growth in growths:
        run, pairs = trained.fork(list(range(len(seeds)))), ([0], [0])
        if growth != NO_GROWTH:
            split_all(run, growth, dataset.train)
            pairs = _twin_pairs(width)
        for epoch in range(epochs_after + 1):
            if epoch:
                run.epoch(dataset.train)
            labels = {"growth": growth, "optimizer": optimizer, "epoch": epoch}
            yield pd.DataFrame(_twin_columns(run, dataset, pairs)).assign(**labels)


def _twin_columns(run: Run, dataset: Dataset, pairs: tuple[list[int], list[int]]) -> dict:
    mlp, n_pairs = run.mlp, len(pairs[0])
    hidden = torch.cat([block.hidden[-1] for block in iter_blocks(mlp, dataset.validation)], dim=1)  # (R, N, H)
    of_network = {"seed": torch.tensor(run.seeds), "effective_rank": effective_rank(hidden)}
    of_network["test_loss"] = run.evaluate(dataset.test)[0].mean(1)
    of_pair = {"angle": angles(mlp, *pairs), "firing_disagreement": firing_disagreement(hidden, *pairs)}
    columns = {name: values.repeat_interleave(n_pairs) for name, values in of_network.items()}
    columns |= {"pair": torch.arange(n_pairs).repeat(len(run.seeds))}
    columns |= {name: values.flatten() for name, values in of_pair.items()}
    return {name: values.numpy() for name, values in columns.items()}
