"""Random tables with the columns of a study's table and of a table of all splits."""

import itertools

import numpy as np
import pandas as pd

from neuronsplit.names import NO_PARENT, NO_SPLIT, SHUFFLE_LOSSES, STAY_NARROW, TABLE_COLUMNS


def study_table(policies, n_seeds=3, width=3, splits=3, epochs=5, growth="scaled", schedule="every-epoch"):
    """A study's table: a split per epoch from the first on, of a random neuron, and losses that fall."""
    rng, rows = np.random.default_rng(0), []
    for policy, seed in itertools.product(policies, range(n_seeds)):
        hidden = width + splits if policy == NO_SPLIT else width
        for epoch in range(1, epochs + 1):
            grows = policy not in (NO_SPLIT, STAY_NARROW) and epoch <= splits
            parent = NO_PARENT if growth in ("zero-outgoing", "gradmax") else str(rng.integers(hidden))
            hidden += grows
            row = {"policy": policy, "growth": growth, "schedule": schedule, "dataset": "digits", "seed": seed}
            row |= {"epoch": epoch, "hidden": hidden, "parameters": 75 * hidden + 10}
            row |= {"split_neuron": parent if grows else None}
            for name in ("train", "val", "test"):
                row |= {f"{name}_loss": (1 + rng.random()) / epoch, f"{name}_accuracy": 1 - rng.random() / epoch}
            rows.append(row)
    return pd.DataFrame(rows)[TABLE_COLUMNS].astype({"split_neuron": "string"})


def course(policy, widths, split_neurons, losses):
    """One seed of a policy: hidden width after each epoch, what was split at its end, and the test loss."""
    epochs = range(1, len(widths) + 1)
    rows = {"policy": policy, "seed": 0, "epoch": epochs, "hidden": widths, "split_neuron": split_neurons}
    return pd.DataFrame(rows | {"test_loss": losses})


def final_table(values):
    """A table of final values, {policy: [a value per seed]}, with an earlier epoch that is to be ignored."""
    rows = [
        {"policy": policy, "seed": seed, "epoch": epoch, "test_loss": value * epoch, "test_accuracy": value * epoch}
        for policy, column in values.items() for seed, value in enumerate(column) for epoch in (0.5, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def all_splits_table(widths=(4, 7), seeds=(0, 1), batch_sizes=(32,), n_draws=5):
    """A table of all splits with losses and two scores drawn at random."""
    rng, rows = np.random.default_rng(0), []
    for width, seed, batch_size, horizon in itertools.product(widths, seeds, batch_sizes, (1, 10)):
        network = {"dataset": "digits", "growth": "scaled", "optimizer": "sgd", "learning_rate": 0.01, "width": width}
        network |= {"prior_splits": 0, "epochs_before": 5, "batch_size": batch_size, "seed": seed, "horizon": horizon}
        for branch_type, count in (("neuron", width), ("draw", n_draws), ("unsplit", 1)):
            for neuron in range(count):
                losses = dict(zip(SHUFFLE_LOSSES, rng.normal(size=2)))
                scores = {name: rng.random() for name in ("ablation_loss", "fire_rate")}
                rows.append(network | {"branch_type": branch_type, "neuron": neuron} | losses | scores)
    return pd.DataFrame(rows)
