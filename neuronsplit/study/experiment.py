"""An experiment is a value, which decides everything about the table that it trains, together with a seed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from neuronsplit.core.mlp import MLP
from neuronsplit.growing.all_splits import grow_greedily
from neuronsplit.growing.how import GROWTHS
from neuronsplit.growing.train import Run, grow_while_training, splits_due
from neuronsplit.growing.when import SCHEDULES
from neuronsplit.names import CONTROLS, GREEDY, ID_COLUMNS, NO_SPLIT, TABLE_COLUMNS
from neuronsplit.study.base import BaseExperiment, checked_seeds, dataset_of

LOOKS_AT_LOSSES = "a schedule that looks at losses needs data_dependent=True"  # a hint in errors


def run_epochs(group: Sequence["Experiment"], seeds: Sequence[int]) -> Iterator[list[pd.DataFrame]]:
    """Train experiments that differ in the policy only; yield their tables epoch by epoch, one per experiment."""
    first, dataset = group[0], dataset_of(group[0])
    options = {"growth": first.growth, "epochs": first.epochs}
    options |= {"splits": 0 if first.policy in CONTROLS else first.splits}
    mlp = MLP.for_dataset(dataset, first.width + (first.splits if first.policy == NO_SPLIT else 0), seeds)
    mlp = mlp[[r for r in range(len(seeds)) for _ in group]]
    run = Run.start(mlp, seeds, first.optimizer, first.learning_rate, first.batch_size)
    if first.policy == GREEDY:
        records = grow_greedily(run, dataset, **options)
    else:
        records = grow_while_training(run, dataset, [e.policy for e in group], schedule=first.schedule, **options)
    for record in records:
        record |= {"seed": np.repeat(seeds, len(group))}
        rows = pd.DataFrame(record).astype({"split_neuron": "string"})
        yield [_with_fields(e, rows.iloc[i :: len(group)]) for i, e in enumerate(group)]


def _with_fields(experiment: "Experiment", rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table with the fields of their experiment as columns."""
    rows = pd.DataFrame({name: getattr(experiment, name) for name in ID_COLUMNS}, rows.index).join(rows)
    return rows[[*TABLE_COLUMNS, *(name for name in rows if name not in TABLE_COLUMNS)]]


@dataclass(frozen=True)
class Experiment(BaseExperiment):
    """Everything but the seed that decides a result. The fields are parameters of the experiment notebook.

    The control "no-split" trains width + splits neurons from the start. The control "stay-narrow" trains the first
    width throughout. Growth and schedule have no effect on controls, and are recorded as given. A growth that needs no
    parent does not use the policy, which is then recorded as given too.

    Raises ValueError for a value that is not allowed.
    """

    policy: str = "random"  # which neuron is split; or a control (no-split, stay-narrow), or greedy
    dataset: str = "digits"  # what is learned
    growth: str = "scaled"  # how a neuron is split, or another way to add one
    schedule: str = "every-epoch"  # when neurons are split
    optimizer: str = "sgd"  # how the network learns
    width: int = 10  # hidden neurons at the start
    splits: int = 10  # neurons that are split
    epochs: int = 20  # epochs in all
    learning_rate: float = 0.05  # of the optimiser
    batch_size: int = 32  # images per step

    notebook = "03_experiment"
    report = "report"
    metrics, time = ("test_accuracy", "test_loss"), "epoch"
    run = staticmethod(run_epochs)

    def __post_init__(self):
        super().__post_init__()
        if self.policy in CONTROLS:
            return
        if not SCHEDULES[self.schedule].data_dependent and (planned := self._scheduled_splits()) < self.splits:
            raise ValueError(
                f"schedule {self.schedule!r} makes {planned} of {self.splits} splits in {self.epochs} epochs: "
                f"allowed are as many epochs as it needs ({LOOKS_AT_LOSSES})"
            )
        growth = GROWTHS[self.growth]
        ahead = self.epochs > self.splits and self.schedule == "every-epoch" and growth.exact and growth.needs_parent
        if self.policy == GREEDY and not ahead:
            raise ValueError(
                f"policy {GREEDY!r} with growth {self.growth!r}, schedule {self.schedule!r}, epochs {self.epochs}: "
                "allowed are exact splits, 'every-epoch' and more epochs than splits"
            )

    def _scheduled_splits(self) -> int:
        """The number of splits that a schedule makes, if it does not depend on the data.

        Raises ValueError where it fails without losses, or returns anything but a whole number from 0.
        """
        left = self.splits
        for epoch in range(1, self.epochs + 1):
            if not left:
                break
            try:
                left -= splits_due(self.schedule, epoch, [[]], left)
            except Exception as error:
                text = f"schedule {self.schedule!r} fails at epoch {epoch} ({type(error).__name__}: {error})"
                raise ValueError(f"{text}: allowed are whole numbers from 0 ({LOOKS_AT_LOSSES})") from error
        return self.splits - left

    @property
    def canonical(self) -> "Experiment":
        """The experiment with defaults in the fields that have no effect."""
        if self.policy in CONTROLS:
            return replace(self, growth=Experiment.growth, schedule=Experiment.schedule)
        if not GROWTHS[self.growth].needs_parent:
            return replace(self, policy=Experiment.policy)
        return self

    @property
    def by_seed(self) -> bool:
        """Whether each seed has times of its own to split."""
        return self.policy not in CONTROLS and SCHEDULES[self.schedule].data_dependent

    @property
    def batchable(self) -> bool:
        """Whether it can train with other policies: a control grows differently, and greedy trains many networks."""
        return self.policy not in (*CONTROLS, GREEDY) and not self.by_seed

    @property
    def n_networks(self) -> int:
        """The number of networks per seed that train at a time, at most."""
        return self.width + self.splits if self.policy == GREEDY else 1


def run_experiment(experiment: BaseExperiment, seeds: Iterable[int]) -> pd.DataFrame:
    """Train an experiment with each of some seeds.

    Returns its tidy table, with a row per seed and epoch. The columns are TABLE_COLUMNS and more.
        split_neuron: the neuron that was split at the end of the epoch, or several in their order, such as "3 5". Its
            second twin is the new last neuron. "new" stands for a neuron that was added without a parent.
        train_loss, train_accuracy: means over the images of the epoch, each measured before the step that uses it.
        last_batch_loss, last_batch_accuracy: the same for the last mini-batch.
        val_loss, val_accuracy: measured before the split, for the policy.
        test_loss, test_accuracy: measured after the split.
    Raises ValueError for seeds that are not different whole numbers.
    """
    seeds = checked_seeds(seeds)
    programs = [[seed] for seed in seeds] if experiment.by_seed else [seeds]
    tables = (table for program in programs for (table,) in experiment.run([experiment], program))
    return pd.concat(tables, ignore_index=True)
