"""Every possible split as an experiment of a study. test_all_splits.py tests the table, and test_cli.py the studies."""

import pandas as pd
import pytest
import torch

from neuronsplit.core.mlp import MLP
from neuronsplit.data.datasets import load_dataset
from neuronsplit.experiments.exhaustive_splits import ExhaustiveSplits, run_exhaustive_splits
from neuronsplit.experiments.experiment import run_experiment
from neuronsplit.growing.train import Run
from neuronsplit.measuring.all_splits import HORIZONS, N_COEFFICIENT_DRAWS, run_all_splits, train_with_random_splits

SMALL = ExhaustiveSplits(width=4, prior_splits=1, epochs_before=2)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_its_table_is_that_of_all_splits_behind_its_fields():
    table = run_exhaustive_splits(SMALL, [3, 4])
    fields = {
        "dataset": "digits", "growth": "scaled", "optimizer": "sgd", "learning_rate": 0.05, "width": 4,
        "prior_splits": 1, "epochs_before": 2, "batch_size": 32,
    }  # fmt: skip
    assert list(table)[: len(fields)] == list(fields)
    assert table[list(fields)].drop_duplicates().iloc[0].to_dict() == fields
    digits = load_dataset("digits", [3, 4])
    run = Run.start(MLP((64, 3, 10), [3, 4]), [3, 4], "sgd", 0.05, 32)
    train_with_random_splits(run, digits, "scaled", 1, 2)
    expected = run_all_splits(run, digits, "scaled")
    pd.testing.assert_frame_equal(table.drop(columns=list(fields)), expected, check_exact=True)
    assert len(table) == 2 * (4 + N_COEFFICIENT_DRAWS + 1) * len(HORIZONS)
    pd.testing.assert_frame_equal(run_experiment(SMALL, [3, 4]), table, check_exact=True)


def test_a_seed_alone_equals_the_same_seed_in_a_batch():
    both, alone = (run_exhaustive_splits(SMALL, seeds) for seeds in ([7, 2**32], [2**32]))
    rows = both[both.seed == 2**32].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, alone, rtol=1e-4)


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1]])
def test_seeds_are_different_whole_numbers(seeds):
    with pytest.raises(ValueError, match="^seeds .*: allowed are different whole numbers from 0 to 4294967296$"):
        run_exhaustive_splits(SMALL, seeds)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"growth": "zero-outgoing"}, r"^growth 'zero-outgoing' \(did you mean 'outgoing'\?\): allowed are scaled, "),
        (
            {"prior_splits": 4, "width": 4},
            "^prior_splits 4: allowed are at most 3, one per epoch, of width 4 and epochs_before 5$",
        ),
        (
            {"prior_splits": 6, "width": 9},
            "^prior_splits 6: allowed are at most 5, one per epoch, of width 9 and epochs_before 5$",
        ),
        ({"epochs_before": -1}, "^epochs_before -1: allowed are whole numbers from 0 to 100000$"),
        ({"learning_rate": 0}, "^learning_rate 0: allowed are numbers above 0$"),
        ({"width": 2.0}, "^width 2.0: allowed are whole numbers from 1 to 100000$"),
        ({"dataset": "mnist"}, r"^dataset 'mnist' \(did you mean 'mnist-1d'\?\): allowed are fashion-mnist, "),
        ({"optimizer": None}, "^optimizer None: allowed are sgd, momentum, adam$"),
    ],
)
def test_a_value_not_allowed_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        ExhaustiveSplits(**changes)
