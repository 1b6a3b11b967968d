"""Do twins part? How far the two neurons of a split differ, from the split to the end of training.

Under plain SGD the incoming weights of twins (αw, γv) and (βw, δv) that fire on the same images receive γg and δg,
the same g scaled. Divided by α and β they part by |γ/α − δ/β| g a step, and never where κ = γβ / δα is 1.
"""

from collections.abc import Iterator
from copy import deepcopy

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neuronsplit.data import Dataset, Split
from neuronsplit.growth import GROWTHS, sample_of
from neuronsplit.model import MLP
from neuronsplit.optimizers import Optimizer, start
from neuronsplit.scores import look
from neuronsplit.seeds import stream
from neuronsplit.split import Coefficients, draw
from neuronsplit.training import evaluate, measures, train_epoch, train_step

NO_SPLIT = "none"  # in place of a rule: the network goes on unsplit


def kappa(drawn: Coefficients) -> float:
    """κ = γβ / δα of a split, from the means of γ and δ where they differ by output."""
    alpha, beta, gamma, delta = (float(np.mean(c)) for c in drawn)
    return gamma * beta / (delta * alpha)


def angles(mlp: MLP, first: list[int], second: list[int]) -> Tensor:
    """Angles (R, P), in degrees, between the incoming weights and biases of P pairs of neurons."""
    theta = _theta(mlp)
    return _angle(theta[:, first], theta[:, second])


def differing(mlp: MLP, images: Tensor, first: list[int], second: list[int]) -> Tensor:
    """Share (R, P) of the images on which one neuron of a pair fires and the other does not."""
    firing = mlp.hidden(images)[-1] > 0  # (R, N, H)
    return (firing[..., first] != firing[..., second]).double().mean(1)


def effective_rank(mlp: MLP, images: Tensor) -> Tensor:
    """Effective rank (R,) of the last hidden layer's activations: exp of the entropy of its normalised singular values.

    Roy & Vetterli 2007, The effective rank: a measure of effective dimensionality, eq. 3.
    """
    values = torch.linalg.svdvals(mlp.hidden(images)[-1].double().nan_to_num(0, 0, 0))  # (R, H)
    shares = values / values.sum(1, keepdim=True)
    return torch.special.entr(shares).sum(1).exp()


def against_theory(
    dataset: Dataset,
    learning_rate: float,
    width: int,
    before: int,
    steps: list[int],
    seeds: list[int],
    batch_size: int = 32,
) -> pd.DataFrame:
    """Angles of `scaled` twins under SGD, measured and predicted, after so many steps from their split.

    Predicted: each twin goes the way of the neuron that the same steps make of the unsplit one, at γ/α and δ/β of its
    speed. Exact for one step; later the ways differ. A row a repeat, neuron and number of steps.
    """
    order = [stream(seed, "order") for seed in seeds]
    whole = MLP((dataset.train.images.shape[1], width, len(dataset.classes)), len(seeds), seeds[0])
    optimizer = start("sgd", whole, learning_rate)
    for _ in range(before):
        train_epoch(whole, dataset.train, order, optimizer, batch_size)
    halves, begun = deepcopy(whole), _theta(whole)  # (R, H, n_in + 1)
    rngs = [stream(seed, "coefficients") for seed in seeds]
    drawn = [draw("scaled", rngs, len(dataset.classes)) for _ in range(width)]  # [neuron][replica]
    for neuron, coefficients in enumerate(drawn):
        halves.split(neuron, coefficients)
    speeds = torch.tensor(
        [[(c.gamma / c.alpha, c.delta / c.beta) for c in of_one] for of_one in zip(*drawn)]
    )  # (R, H, 2)
    orders = torch.from_numpy(np.stack([rng.permutation(len(dataset.train.labels)) for rng in order]))
    rows, kappas = [], [[kappa(c) for c in of_one] for of_one in zip(*drawn)]
    for step, batch in enumerate(orders.split(batch_size, dim=1)[: max(steps)], start=1):
        for mlp in (whole, halves):
            train_step(mlp, dataset.train.images[batch], dataset.train.labels[batch], optimizer)
        if step in steps:
            way = _theta(whole) - begun
            first, second = (begun + speed[..., None] * way for speed in speeds.unbind(2))
            found = {"predicted": _angle(first, second), "measured": angles(halves, *_pairs(width))}
            found |= {"kappa": torch.tensor(kappas), "seed": torch.tensor(seeds)[:, None].expand(-1, width)}
            rows.append(pd.DataFrame({name: values.flatten() for name, values in found.items()}).assign(steps=step))
    return pd.concat(rows, ignore_index=True)


def _theta(mlp: MLP) -> Tensor:
    """Incoming weights and bias (R, H, n_in + 1) of the last hidden layer's neurons."""
    return torch.cat([mlp.weights[-2], mlp.biases[-2]], dim=2).double()


def _angle(first: Tensor, second: Tensor) -> Tensor:
    """Degrees between vectors of the last axis, exact also where they are few."""
    first, second = (v / v.norm(dim=-1, keepdim=True) for v in (first, second))
    return 2 * torch.atan2((first - second).norm(dim=-1), (first + second).norm(dim=-1)).rad2deg()


def _pairs(width: int) -> tuple[list[int], list[int]]:
    """The twins after split_all."""
    return list(range(width)), list(range(width, 2 * width))


def split_all(mlp: MLP, optimizer: Optimizer, rule: str, sample: Split, rngs: list[np.random.Generator]) -> None:
    """Split every neuron once: the twin of neuron j is neuron H + j."""
    for neuron in range(mlp.width):
        GROWTHS[rule](mlp, optimizer, torch.full((len(rngs),), neuron), sample, rngs)


def follow_twins(
    dataset: Dataset,
    rules: list[str],
    optimizer: str,
    learning_rate: float,
    width: int,
    before: int,
    after: int,
    seeds: list[int],
    batch_size: int = 32,
) -> Iterator[pd.DataFrame]:
    """Train `before` epochs, split every neuron once by each rule in turn, and train each network `after` epochs on.

    Yields a table a rule and epoch, a row a repeat and pair of twins: rule, optimizer, seed, epoch (0 is the moment of
    the split), pair, angle, differ, rank, test_loss. Rule NO_SPLIT trains on without a split; it has no pairs.
    """
    order = [stream(seed, "order") for seed in seeds]
    begun = MLP((dataset.train.images.shape[1], width, len(dataset.classes)), len(seeds), seeds[0])
    at_work = start(optimizer, begun, learning_rate)
    for _ in range(before):
        train_epoch(begun, dataset.train, order, at_work, batch_size)
    sample = sample_of(dataset)
    pairs = _pairs(width)
    for rule in rules:
        mlp, own, same_order = deepcopy((begun, at_work, order))
        if rule != NO_SPLIT:
            split_all(mlp, own, rule, sample, [stream(seed, "coefficients") for seed in seeds])
        for epoch in range(after + 1):
            if epoch:
                train_epoch(mlp, dataset.train, same_order, own, batch_size)
            labels = {"rule": rule, "optimizer": optimizer, "epoch": epoch}
            yield pd.DataFrame(_rows(mlp, dataset, seeds, pairs if rule != NO_SPLIT else ([0], [0]))).assign(**labels)


def _rows(mlp: MLP, dataset: Dataset, seeds: list[int], pairs: tuple[list[int], list[int]]) -> dict[str, np.ndarray]:
    images, count = dataset.validation.images, len(pairs[0])
    of_network = {"seed": torch.tensor(seeds), "rank": effective_rank(mlp, images)}
    of_network["test_loss"] = measures("test", *evaluate(look(mlp, dataset.test)))["test_loss"]
    of_pair = {"angle": angles(mlp, *pairs), "differ": differing(mlp, images, *pairs)}
    rows = {name: values.repeat_interleave(count) for name, values in of_network.items()}
    rows |= {"pair": torch.arange(count).repeat(len(seeds))} | {name: v.flatten() for name, v in of_pair.items()}
    return {name: values.numpy() for name, values in rows.items()}
