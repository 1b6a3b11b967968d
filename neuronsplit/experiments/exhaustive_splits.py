"""An experiment of a study that makes every possible split of networks and trains on after each."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from neuronsplit.checks import checked_seeds, require_name
from neuronsplit.core.mlp import MLP
from neuronsplit.experiments.base import BaseExperiment, dataset_of
from neuronsplit.growing import how, train
from neuronsplit.measuring import all_splits
from neuronsplit.names import EXPERIMENT, SHUFFLE_LOSSES


def train_all_splits(group: Sequence["ExhaustiveSplits"], seeds: Sequence[int]) -> Iterator[pd.DataFrame]:
    """Train a group of one, and yield its table at the end."""
    (experiment,) = group
    yield run_exhaustive_splits(experiment, seeds).assign(**{EXPERIMENT: experiment.id})


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
    train = staticmethod(train_all_splits)

    def __post_init__(self):
        super().__post_init__()
        require_name("growth", self.growth, [name for name, growth in how.GROWTHS.items() if growth.needs_parent])
        most = min(self.width - 1, self.epochs_before)
        if self.prior_splits > most:
            earlier = f"one per epoch, of width {self.width} and epochs_before {self.epochs_before}"
            raise ValueError(f"prior_splits {self.prior_splits}: allowed are at most {most}, {earlier}")

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.epochs_before + len(SHUFFLE_LOSSES) * max(all_splits.HORIZONS)

    @property
    def n_networks(self) -> int:
        """The number of networks per seed that train at a time."""
        return self.width + all_splits.N_COEFFICIENT_DRAWS


def run_exhaustive_splits(experiment: ExhaustiveSplits, seeds: Sequence[int]) -> pd.DataFrame:
    """Split every neuron of the networks of some seeds, and train each branch on.

    Returns the table of `measuring.all_splits.run_all_splits`, with a row per branch and horizon. Its first columns are
    the fields of the experiment.
    """
    e, seeds = experiment, checked_seeds(seeds)
    dataset = dataset_of(e, seeds)
    mlp = MLP.for_dataset(dataset, e.width - e.prior_splits, seeds)
    run = train.Run.start(mlp, seeds, e.optimizer, e.learning_rate, e.batch_size)
    all_splits.train_with_random_splits(run, dataset, e.growth, e.prior_splits, e.epochs_before)
    table = all_splits.run_all_splits(run, dataset, e.growth)
    return pd.DataFrame(asdict(e), table.index).join(table)
