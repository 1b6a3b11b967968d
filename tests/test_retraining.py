"""A small sample of every committed table of experiments is trained again, and gives the same numbers."""

from itertools import islice
from pathlib import Path

import pytest

import neuronsplit as ns
from neuronsplit.experiments.exhaustive_splits import ExhaustiveSplits, run_exhaustive_splits
from neuronsplit.experiments.experiment import Experiment, train_growing
from neuronsplit.measuring.twin_divergence import track_twins
from neuronsplit.names import ID_COLUMNS, NETWORK_KEYS, NEURON, NO_GROWTH, RESULTS_VERSION, SHUFFLE_LOSSES, UNSPLIT

FOLDER = Path(__file__).parents[1] / "figures" / "data"
N_EPOCHS, N_SAMPLED = 4, 4  # the first epochs of some experiments
TOLERANCE = 0.005  # of losses and accuracies
OF_EXPERIMENTS = ["design-digits", "design-mnist-1d", "mnist-1d-trial"]
OF_FASHION = ["fashion-mnist", "replay", "design-fashion-mnist"]  # these need a download
OF_ALL_SPLITS = ["digits", "mnist-1d", pytest.param("fashion-mnist", marks=pytest.mark.long)]


def read(name):
    """A table that this version of the package made."""
    assert ns.provenance(FOLDER / f"{name}.parquet")["results"] == RESULTS_VERSION
    return ns.read_table(FOLDER / f"{name}.parquet")


def sampled(table, columns):
    """Rows of some experiments of a table, with one seed each, from the first experiment to the last."""
    experiments = [rows for _, rows in table.groupby(columns, sort=False)]
    for n, rows in enumerate(experiments[:: max(1, len(experiments) // N_SAMPLED)]):
        seeds = rows["seed"].unique()
        yield rows[rows["seed"] == seeds[n % len(seeds)]]


def check_experiments(name):
    for rows in sampled(read(name), ID_COLUMNS):
        (fields,) = rows[ID_COLUMNS].drop_duplicates().to_dict("records")
        experiment = Experiment(**fields)
        seed, by_epoch = int(rows["seed"].iloc[0]), rows.set_index("epoch")
        for again in islice(train_growing([experiment], [seed]), N_EPOCHS):
            (row,) = again.to_dict("records")
            before = by_epoch.loc[row["epoch"]]
            assert row["hidden"] == before["hidden"]
            for measure in ("train_loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy"):
                assert row[measure] == pytest.approx(before[measure], abs=TOLERANCE), (experiment, seed, measure)


@pytest.mark.parametrize("name", OF_EXPERIMENTS)
def test_the_first_epochs_of_some_experiments_are_the_same_again(name):
    check_experiments(name)


@pytest.mark.long
@pytest.mark.parametrize("name", OF_FASHION)
def test_the_first_epochs_of_some_experiments_on_fashion_mnist_are_the_same_again(name):
    check_experiments(name)


@pytest.mark.parametrize("name", OF_ALL_SPLITS)
def test_every_split_of_a_network_is_the_same_again(name):
    table = read(f"oracle-{name}-grown")
    fields = [column for column in NETWORK_KEYS if column not in ("seed", "horizon")]
    rows = next(sampled(table, fields))  # of the smallest networks, which have trained for one epoch
    experiment = ExhaustiveSplits(**rows[fields].iloc[0].to_dict())
    again = run_exhaustive_splits(experiment, [int(rows["seed"].iloc[0])])
    before = rows.reset_index(drop=True)
    assert again[["branch_type", "horizon"]].equals(before[["branch_type", "horizon"]])
    assert {NEURON, UNSPLIT} <= set(again["branch_type"])
    for measure in ("loss_before", *SHUFFLE_LOSSES):
        assert (again[measure] - before[measure]).abs().max() <= TOLERANCE


@pytest.mark.long
def test_twins_part_the_same_again():
    table, growths, seed = read("twins"), [NO_GROWTH, "even", "scaled"], 3
    made_by = ns.provenance(FOLDER / "twins.parquet")["parameters"]
    data, (width, before) = ns.load_dataset("fashion-mnist", [seed]), (made_by["width"], made_by["epochs_before"])
    keys = ["growth", "epoch", "pair"]
    old = table[(table["optimizer"] == "sgd") & (table["seed"] == seed)].set_index(keys)
    for again in track_twins(data, growths, "sgd", made_by["learning_rates"]["sgd"], width, before, 2, [seed]):
        again = again.set_index(keys)
        for measure, tolerance in {"test_loss": TOLERANCE, "angle": 0.1, "effective_rank": 0.01}.items():
            assert (again[measure] - old.loc[again.index, measure]).abs().max() <= tolerance, measure
