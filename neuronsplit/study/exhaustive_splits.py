"""An experiment of a study that makes every possible split of networks and trains on after each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import OPTIMIZERS
from neuronsplit.data.datasets import DATASETS
from neuronsplit.growing.all_splits import HORIZONS, N_COEFFICIENT_DRAWS, run_all_splits, train_with_random_splits
from neuronsplit.growing.how import GROWTHS
from neuronsplit.growing.train import Run
from neuronsplit.names import NETWORK_KEYS, NEURON, SHUFFLE_LOSSES, UNSPLIT
from neuronsplit.study.experiment import Plan, dataset_of

SETTING = [name for name in NETWORK_KEYS if name not in ("seed", "horizon")]  # the fields that its table has


@dataclass(frozen=True)
class ExhaustiveSplits(Plan):
    """Networks that are split in every possible way and trained on.

    The fields are the parameters of the notebook, one to one.

    Raises ValueError for a value that is not allowed.
    """

    dataset: str = "digits"  # what is learned
    growth: str = "scaled"  # how a neuron is split
    optimizer: str = "sgd"  # how the network learns
    learning_rate: float = 0.05  # of the optimiser
    width: int = 10  # hidden neurons, each of which is split
    prior_splits: int = 0  # how many of them come from earlier splits, of random neurons, one per epoch
    epochs_before: int = 5  # epochs before the split
    n_seeds: int = 5  # networks, of seeds seed, seed + 1, …
    seed: int = 0  # the first seed
    batch_size: int = 32  # images per step

    title = "all-splits"
    notebook = report = "11_how_good_could_a_choice_be"
    by = "horizon"
    ends = {
        "loss split": lambda last: last.loc[last["branch_type"] == NEURON, SHUFFLE_LOSSES[0]].mean(),
        "loss unsplit": lambda last: last.loc[last["branch_type"] == UNSPLIT, SHUFFLE_LOSSES[0]].mean(),
    }

    def __post_init__(self):
        growths = [name for name, growth in GROWTHS.items() if growth.needs_parent]
        self.refuse(
            {"dataset": DATASETS, "growth": growths, "optimizer": OPTIMIZERS},
            {"width": 1, "prior_splits": 0, "epochs_before": 0, "n_seeds": 1, "seed": 0, "batch_size": 1},
        )
        most = min(self.width - 1, self.epochs_before)
        if self.prior_splits > most:
            raise ValueError(
                f"prior_splits {self.prior_splits}: allowed are at most {most}, one per epoch, of width {self.width} "
                f"and epochs_before {self.epochs_before}"
            )

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.epochs_before + len(SHUFFLE_LOSSES) * max(HORIZONS)

    @property
    def networks(self) -> int:
        """The number of networks per seed that train at a time."""
        return self.width + N_COEFFICIENT_DRAWS

    def arguments(self, folder: Path) -> dict:
        """Return the parameters of its notebook, which then uses this table alone."""
        return super().arguments(folder) | {"table": ""}

    @staticmethod
    def run(group: list["ExhaustiveSplits"]) -> Iterator[list[pd.DataFrame]]:
        """Train a group of one, and yield its table."""
        (experiment,) = group
        yield [run_exhaustive_splits(experiment)]


def run_exhaustive_splits(experiment: ExhaustiveSplits) -> pd.DataFrame:
    """Split every neuron of the networks, and train each branch on.

    Returns the table of `growing.all_splits.run_all_splits`, with a row per branch and horizon. Its first columns are
    the fields of the experiment.
    """
    e, dataset = experiment, dataset_of(experiment)
    mlp = MLP.for_dataset(dataset, e.width - e.prior_splits, e.seeds)
    run = Run.start(mlp, e.seeds, e.optimizer, e.learning_rate, e.batch_size)
    train_with_random_splits(run, dataset, e.growth, e.prior_splits, e.epochs_before)
    table = run_all_splits(run, dataset, e.growth)
    return pd.DataFrame({name: getattr(e, name) for name in SETTING}, table.index).join(table)
