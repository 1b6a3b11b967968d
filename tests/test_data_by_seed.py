"""Data that differ by seed: rows (S, N) of shared images give what each seed gives alone on a copy of its own data."""

import numpy as np
import pandas as pd
import pytest
import torch

from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import OPTIMIZERS
from neuronsplit.data.datasets import Dataset, Subset, load_dataset
from neuronsplit.growing.curvature import smallest_eigenvalue, steepest_split
from neuronsplit.growing.greedy import grow_greedily
from neuronsplit.growing.how import GROWTHS
from neuronsplit.growing.scores import FEATURES, forward_blocks
from neuronsplit.growing.train import Run, grow_while_training
from neuronsplit.growing.which import POLICIES, choose
from neuronsplit.measuring.all_splits import run_all_splits
from neuronsplit.names import SHUFFLE_LOSSES

DIGITS, SEEDS = load_dataset("digits"), [3, 8]


IMAGES, LABELS = (torch.cat(tensors) for tensors in zip(*DIGITS[:3]))
ORDERS = [torch.from_numpy(np.random.default_rng(seed).permutation(1797)).split([1200, 297, 300]) for seed in SEEDS]


def dataset(train: Subset, validation: Subset, test: Subset) -> Dataset:
    return DIGITS._replace(train=train, validation=validation, test=test, extra_test={"again": test})


OWN = [dataset(*(Subset(IMAGES[rows], LABELS[rows]) for rows in parts)) for parts in ORDERS]  # copies
TOGETHER = dataset(*(Subset(IMAGES, LABELS, torch.stack(parts)) for parts in zip(*ORDERS)))  # shared


def started(seeds, per_seed=1, optimizer="sgd", width=5):
    mlp = MLP.for_dataset(TOGETHER, width, [seed for seed in seeds for _ in range(per_seed)])
    return Run.start(mlp, seeds, optimizer, 0.01, 32)


def runs(per_seed=1, optimizer="sgd"):
    """The run of all seeds and, of each seed, its replicas, the run of it alone, and its own data."""
    alone = [
        (slice(s * per_seed, (s + 1) * per_seed), started([SEEDS[s]], per_seed, optimizer), OWN[s]) for s in (0, 1)
    ]
    return started(SEEDS, per_seed, optimizer), alone


def assert_same_parameters(run, replicas, alone):
    for p, q in zip(run.mlp.parameters(), alone.mlp.parameters()):
        torch.testing.assert_close(p[replicas], q, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("per_seed", [1, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_and_evaluation(optimizer, per_seed):
    run, alone = runs(per_seed, optimizer)
    metrics = [*run.epoch(TOGETHER.train), *run.evaluate(TOGETHER.train)]
    for replicas, own_run, own in alone:
        for found, expected in zip(metrics, [*own_run.epoch(own.train), *own_run.evaluate(own.train)]):
            torch.testing.assert_close(found[replicas].float(), expected.float(), rtol=1e-3, atol=1e-4)
        assert_same_parameters(run, replicas, own_run)


@pytest.mark.parametrize("per_seed", [1, 3])
def test_activations_and_scores(per_seed):
    run, alone = runs(per_seed)
    blocks = forward_blocks(run.mlp, TOGETHER.train)
    assert len(blocks) == 2 and blocks[0].images.shape == (2, 1000, 64)
    for replicas, own_run, own in alone:
        own_blocks = forward_blocks(own_run.mlp, own.train)
        for block, own_block in zip(blocks, own_blocks, strict=True):
            torch.testing.assert_close(block.logits[replicas], own_block.logits)
            torch.testing.assert_close(block.hidden[0][replicas], own_block.hidden[0])
            assert all(torch.equal(labels, own_block.labels) for labels in block.labels[replicas])
        for score in FEATURES:
            if score is smallest_eigenvalue:  # its directions are those of the images that all seeds share
                rows = TOGETHER.train.rows[[SEEDS.index(own_run.seeds[0])]]
                own_blocks = forward_blocks(own_run.mlp, Subset(IMAGES, LABELS, rows))
            found, expected = score(run.mlp, blocks)[replicas], score(own_run.mlp, own_blocks)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, msg=lambda m, s=score: f"{s}: {m}")


def test_choices():
    policies = list(POLICIES)
    run, alone = runs(len(policies))
    neurons = choose(policies, run.mlp, forward_blocks(run.mlp, TOGETHER.validation), run.draws)
    for replicas, own_run, own in alone:
        own_blocks = forward_blocks(own_run.mlp, own.validation)
        assert neurons[replicas].tolist() == choose(policies, own_run.mlp, own_blocks, own_run.draws).tolist()


@pytest.mark.parametrize("per_seed", [1, 3])
@pytest.mark.parametrize("growth", GROWTHS)
def test_growths(growth, per_seed):
    run, alone = runs(per_seed, "adam")
    run.epoch(TOGETHER.train)
    parents = torch.arange(2 * per_seed) % 5 if GROWTHS[growth].needs_parent else None
    run.grow(growth, parents, TOGETHER.train)
    for replicas, own_run, own in alone:
        own_run.epoch(own.train)
        own_run.grow(growth, None if parents is None else parents[replicas], own.train)
        assert_same_parameters(run, replicas, own_run)


def test_the_steepest_direction():
    run, alone = runs(2)
    neurons = torch.tensor([[0, 3], [1, 4], [2, 2], [4, 0]])
    values, directions = steepest_split(run.mlp, TOGETHER.train, neurons)
    assert values.shape == (4, 2) and directions.shape == (4, 2, 65)
    for replicas, own_run, own in alone:
        own_values, own_directions = steepest_split(own_run.mlp, own.train, neurons[replicas])
        torch.testing.assert_close(values[replicas], own_values)
        torch.testing.assert_close(directions[replicas], own_directions)


@pytest.mark.parametrize("growth", ["scaled", "steepest-descent", "gradmax"])
def test_growing_while_training(growth):
    policies = ["max-fire", "min-eigenvalue", "loss-probs"]
    options = {"growth": growth, "schedule": "every-epoch", "splits": 2, "epochs": 3}
    run, alone = runs(len(policies))
    records = list(grow_while_training(run, TOGETHER, policies, **options))
    for replicas, own_run, own in alone:
        for record, expected in zip(records, grow_while_training(own_run, own, policies, **options), strict=True):
            assert (record["split_neuron"] or [])[replicas] == (expected["split_neuron"] or [])
            for name in [name for name in record if name.endswith("_loss")]:
                torch.testing.assert_close(record[name][replicas], expected[name], rtol=1e-4, atol=1e-6)


def test_growing_greedily():
    run, alone = runs()
    options = {"growth": "scaled", "splits": 2, "epochs": 4}
    records = list(grow_greedily(run, TOGETHER, **options))
    for replicas, own_run, own in alone:
        for record, expected in zip(records, grow_greedily(own_run, own, **options), strict=True):
            assert (record["split_neuron"] or [])[replicas] == (expected["split_neuron"] or [])
            torch.testing.assert_close(record["test_loss"][replicas], expected["test_loss"], rtol=1e-4, atol=1e-6)


def test_every_split():
    run, alone = runs()
    table = run_all_splits(run, TOGETHER, "scaled")
    expected = pd.concat([run_all_splits(own_run, own, "scaled") for _, own_run, own in alone])
    keys = ["horizon", "branch_type", "seed", "neuron", *SHUFFLE_LOSSES]
    table, expected = (t.sort_values(keys[:4], kind="stable").reset_index(drop=True) for t in (table, expected))
    assert table[keys[:4]].equals(expected[keys[:4]])
    np.testing.assert_allclose(table[SHUFFLE_LOSSES], expected[SHUFFLE_LOSSES], rtol=1e-3)


def test_other_seeds_than_those_of_the_run_are_refused():
    with pytest.raises(ValueError, match="^images of 2 seeds: allowed are 3, or the same for all$"):
        started([1, 2, 3]).epoch(TOGETHER.train)
