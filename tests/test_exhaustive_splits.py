"""Every possible split as an experiment of a study; what the table holds is tested in test_all_splits.py."""

import numpy as np
import pandas as pd
import pytest
import torch

from neuronsplit.analysis.tables import read_table
from neuronsplit.core.mlp import MLP
from neuronsplit.data.datasets import load_dataset
from neuronsplit.growing.all_splits import HORIZONS, N_COEFFICIENT_DRAWS, run_all_splits, train_with_random_splits
from neuronsplit.growing.train import Run
from neuronsplit.study import run as batch
from neuronsplit.study.cli import main
from neuronsplit.study.exhaustive_splits import ExhaustiveSplits, run_exhaustive_splits

SMALL = ExhaustiveSplits(width=4, prior_splits=1, epochs_before=2, n_seeds=2, seed=3)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_its_table_is_that_of_all_splits_behind_its_fields():
    table = run_exhaustive_splits(SMALL)
    fields = {
        "dataset": "digits", "growth": "scaled", "optimizer": "sgd", "learning_rate": 0.05, "width": 4,
        "prior_splits": 1, "epochs_before": 2, "batch_size": 32,
    }  # fmt: skip
    assert list(table)[: len(fields)] == list(fields)
    assert table[list(fields)].drop_duplicates().iloc[0].to_dict() == fields
    digits = load_dataset("digits")
    run = Run.start(MLP((64, 3, 10), [3, 4]), [3, 4], "sgd", 0.05, 32)
    train_with_random_splits(run, digits, "scaled", 1, 2)
    expected = run_all_splits(run, digits, "scaled")
    pd.testing.assert_frame_equal(table.drop(columns=list(fields)), expected, check_exact=True)
    assert len(table) == 2 * (4 + N_COEFFICIENT_DRAWS + 1) * len(HORIZONS)


def test_a_study_of_all_splits_is_run_cut_and_taken_up_by_the_batch(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(batch, "RUNS", tmp_path)
    file = tmp_path / "mine.yaml"
    file.write_text("kind: all-splits\nn_seeds: 2\nepochs_before: [1, 2]\nwidth: 3\n")
    assert main(["run", str(file)]) == 0
    folder = tmp_path / "mine"
    table, metadata = read_table(folder / "table.csv")
    assert set(table.epochs_before) == {1, 2} and metadata["parameters"]["kind"] == "all-splits"
    assert len(list(folder.glob("all-splits-????????.ipynb"))) == 2
    order, losses = ["horizon", "branch_type", "seed", "neuron"], ["loss_shuffle_0", "loss_shuffle_1"]
    expected = run_exhaustive_splits(ExhaustiveSplits(width=3, epochs_before=2, n_seeds=2)).sort_values(order)
    found = table[table.epochs_before == 2].sort_values(order)
    np.testing.assert_allclose(found[losses], expected[losses], rtol=1e-4)
    kept, lost = sorted(folder.glob("all-splits-????????.csv"))
    lost.with_suffix(".json").unlink()
    at = kept.stat().st_mtime_ns
    assert main(["status", str(file)]) == 0
    assert "1 done, 0 running, 0 failed, 0 damaged, 1 missing" in capsys.readouterr().out
    assert main(["run", str(file)]) == 0
    assert kept.stat().st_mtime_ns == at and read_table(folder / "table.csv")[0].equals(table)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"growth": "zero-outgoing"}, "^growth 'zero-outgoing': allowed are scaled, "),
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
    ],
)
def test_a_value_not_allowed_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        ExhaustiveSplits(**changes)
