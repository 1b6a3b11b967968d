"""The greedy choice: make every possible split, train each for an epoch, and go on with the best."""

from collections.abc import Iterator

import torch
from torch import Tensor

from neuronsplit.core.matmul import use_onednn_matmul
from neuronsplit.data.datasets import Dataset, Subset
from neuronsplit.growing.metrics import mean_metrics
from neuronsplit.growing.train import Run, test_metrics, train_metrics
from neuronsplit.growing.which import argmin


def fork_splits(run: Run, neurons: Tensor, growth: str, subset: Subset) -> Run:
    """Fork a run into K branches per replica, and split neuron neurons[r, k] (R, K) in branch k of replica r.

    growth: a name in GROWTHS. subset: the data that the networks train on.
    Returns the branches. Those of one replica draw the same coefficients.
    """
    branches = run.fork([r for r in range(len(neurons)) for _ in range(neurons.shape[1])])
    branches.grow(growth, neurons.flatten(), subset)
    return branches


def every_neuron(run: Run) -> Tensor:
    """Return the numbers of all hidden neurons of each replica, (R, H)."""
    return torch.arange(run.mlp.width, device=run.mlp.weights[0].device).expand(run.mlp.n_replicas, -1)


def grow_greedily(run: Run, dataset: Dataset, *, growth: str, splits: int, epochs: int) -> Iterator[dict]:
    """Grow networks by one split per epoch that is chosen by looking an epoch ahead.

    run: the networks. growth: a name in GROWTHS. splits, epochs: how many of each there are.
    Yields the records of `train.grow_while_training`, one per epoch.

    Every possible split is trained for an epoch on the same mini-batches. The one with the lowest validation loss goes
    on. So the split of an epoch is known only after the next one, and records come an epoch late.
    """
    n_branches, pending_record = 1, {}
    for epoch in range(1, epochs + 1):
        best, run, record = _train_and_keep_best(run, dataset, n_branches)
        n_branches = 1
        if epoch <= splits:
            n_branches = run.mlp.width
            run = fork_splits(run, every_neuron(run), growth, dataset.train)
        record = {"epoch": epoch} | record | {"hidden": run.mlp.width, "parameters": run.mlp.n_parameters()}
        if pending_record:
            yield pending_record | {"split_neuron": best.tolist() if epoch <= splits + 1 else None}
        pending_record = record
    yield pending_record | {"split_neuron": None}


@use_onednn_matmul()
def _train_and_keep_best(run: Run, dataset: Dataset, n_branches: int) -> tuple[Tensor, Run, dict]:
    """Train an epoch; return the best branch (R,) of each network, a run of these branches, and their record."""
    train, val = run.epoch(dataset.train), run.evaluate(dataset.validation)  # losses, correct (R, N)
    mean_losses = val[0].mean(1).view(-1, n_branches).nan_to_num(torch.inf, torch.inf)  # (R, B)
    best = argmin(mean_losses, [])
    survivors = [network * n_branches + branch for network, branch in enumerate(best.tolist())]
    run = run.fork(survivors)
    record = train_metrics(run, *(values[survivors] for values in train))
    record |= mean_metrics("val", *(values[survivors] for values in val))
    return best, run, record | test_metrics(run, dataset)
