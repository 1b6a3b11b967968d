"""The greedy choice of an oracle: every split is trained for an epoch, and the best goes on."""

from collections.abc import Iterator
from copy import deepcopy

import torch

from neuronsplit.data import Dataset
from neuronsplit.growth import branch, sample_of
from neuronsplit.model import MLP
from neuronsplit.optimizers import some, start
from neuronsplit.policies import lowest
from neuronsplit.products import fast_products
from neuronsplit.scores import look
from neuronsplit.seeds import stream
from neuronsplit.training import evaluate, measures, train_epoch


def grow_greedily(
    mlp: MLP,
    dataset: Dataset,
    seeds: list[int],
    rule: str,
    splits: int,
    epochs: int,
    optimizer: str,
    learning_rate: float,
    batch_size: int,
) -> Iterator[dict]:
    """Train mlp, a replica a seed, with a split an epoch from the first on; yields what `training.grow` does.

    The neuron is the one whose split has the lowest validation loss an epoch later, of all H, on the same mini-batches
    and with the same coefficients: what a policy would choose that saw an epoch ahead.
    """
    order, coefficients = ([stream(seed, name) for seed in seeds] for name in ("order", "coefficients"))
    at_work, ways, before = start(optimizer, mlp, learning_rate), 1, {}
    for epoch in range(1, epochs + 1):
        with fast_products():
            losses, hits = train_epoch(mlp, dataset.train, order, at_work, batch_size)  # (R ways, N) each
            judged = evaluate(look(mlp, dataset.validation))
            means = judged[0].mean(1).view(len(seeds), ways).nan_to_num(torch.inf, torch.inf)
            best = lowest(means, [])  # (R,)
            kept = [r * ways + way for r, way in enumerate(best.tolist())]
            mlp, at_work = mlp[kept], some(at_work, kept)
            losses, hits = losses[kept], hits[kept]
            record = {"epoch": epoch} | measures("train", losses, hits)
            record |= measures("last_batch", losses[:, -batch_size:], hits[:, -batch_size:])
            record |= measures("val", *(of_all[kept] for of_all in judged))
            for name, split in {"test": dataset.test, **dataset.also}.items():
                record |= measures(name, *evaluate(look(mlp, split)))
            ways = 1
            if epoch <= splits:
                ways = mlp.width
                neurons = torch.arange(ways, device=best.device).expand(len(seeds), -1)
                rngs = [deepcopy(rng) for rng in coefficients for _ in range(ways)]
                mlp, at_work = branch(mlp, at_work, neurons, rule, sample_of(dataset), rngs)
                coefficients = rngs[::ways]
            record |= {"hidden": mlp.width, "parameters": mlp.n_parameters()}
        if before:  # whose split is decided now
            yield before | {"split_neuron": best.tolist() if epoch <= splits + 1 else None}
        before = record
    yield before | {"split_neuron": None}
