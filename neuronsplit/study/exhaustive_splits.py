"""An experiment of a study that makes every possible split of networks and trains on after each."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from neuronsplit.core.mlp import MLP
from neuronsplit.growing.all_splits import HORIZONS, N_COEFFICIENT_DRAWS, run_all_splits, train_with_random_splits
from neuronsplit.growing.how import GROWTHS
from neuronsplit.growing.train import Run
from neuronsplit.names import SHUFFLE_LOSSES
from neuronsplit.study.base import BaseExperiment, checked_seeds, dataset_of


@dataclass(frozen=True)
class ExhaustiveSplits(BaseExperiment):
    """Networks that are split in every possible way and trained on.

    The fields are parameters of the notebook that trains them.

    Raises ValueError for a value that is not allowed.
    """

    dataset: str = "digits"  # what is learned
    growth: str = "scaled"  # how a neuron is split
    optimizer: str = "sgd"  # how the network learns
    learning_rate: float = 0.05  # of the optimiser
    width: int = 10  # hidden neurons, each of which is split
    prior_splits: int = 0  # how many of them come from earlier splits, of random neurons, one per epoch
    epochs_before: int = 5  # epochs before the split
    batch_size: int = 32  # images per step

    notebook = report = "all_splits"
    metrics, time = SHUFFLE_LOSSES, "horizon"

    def __post_init__(self):
        super().__post_init__()
        if not GROWTHS[self.growth].needs_parent:
            names = [name for name, growth in GROWTHS.items() if growth.needs_parent]
            raise ValueError(f"growth {self.growth!r}: allowed are {', '.join(names)}")
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
    def n_networks(self) -> int:
        """The number of networks per seed that train at a time."""
        return self.width + N_COEFFICIENT_DRAWS

    @staticmethod
    def run(group: Sequence["ExhaustiveSplits"], seeds: Sequence[int]) -> Iterator[list[pd.DataFrame]]:
        """Train a group of one, and yield its table."""
        (experiment,) = group
        yield [run_exhaustive_splits(experiment, seeds)]


def run_exhaustive_splits(experiment: ExhaustiveSplits, seeds: Sequence[int]) -> pd.DataFrame:
    """Split every neuron of the networks of some seeds, and train each branch on.

    Returns the table of `growing.all_splits.run_all_splits`, with a row per branch and horizon. Its first columns are
    the fields of the experiment.
    """
    e, seeds, dataset = experiment, checked_seeds(seeds), dataset_of(experiment)
    mlp = MLP.for_dataset(dataset, e.width - e.prior_splits, seeds)
    run = Run.start(mlp, seeds, e.optimizer, e.learning_rate, e.batch_size)
    train_with_random_splits(run, dataset, e.growth, e.prior_splits, e.epochs_before)
    table = run_all_splits(run, dataset, e.growth)
    return pd.DataFrame(asdict(e), table.index).join(table)
