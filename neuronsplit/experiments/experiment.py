"""An experiment is a value, which decides everything about the table that it trains, together with a seed."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from neuronsplit.checks import checked_seeds
from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import OPTIMIZERS
from neuronsplit.experiments.base import BaseExperiment, dataset_of
from neuronsplit.growing import greedy, train
from neuronsplit.growing.how import GROWTHS
from neuronsplit.growing.when import SCHEDULES, require_all_splits
from neuronsplit.names import CONTROLS, EXPERIMENT, GREEDY, GROWTH_COLUMNS, ID_COLUMNS, NO_SPLIT, TABLE_COLUMNS

OF_REPLICAS = ("learning_rate", "weight_decay", "dropout", "rate_after_split", "annealing_epochs")  # values of a `Run`


def train_growing(group: Sequence["Experiment"], seeds: Sequence[int]) -> Iterator[pd.DataFrame]:
    """Train experiments of one group; yield the rows of all after each epoch."""
    first = group[0]
    if first.by_seed and len(seeds) > 1:
        for seed in seeds:
            yield from train_growing(group, [seed])
        return
    dataset = dataset_of(first, seeds)
    mlp = MLP.for_dataset(dataset, first.width + (first.splits if first.policy == NO_SPLIT else 0), seeds)
    mlp = mlp[[r for r in range(len(seeds)) for _ in group]]
    values = {name: torch.tensor([getattr(e, name) for e in group] * len(seeds)) for name in OF_REPLICAS}
    values = {name: of_replicas[:, None, None] for name, of_replicas in values.items()}  # (R, 1, 1)
    run = train.Run.start(mlp, seeds, first.optimizer, batch_size=first.batch_size, state=first.state, **values)
    options = {"growth": first.growth, "epochs": first.epochs}
    options |= {"splits": 0 if first.policy in CONTROLS else first.splits}
    if first.policy == GREEDY:
        records = greedy.grow_greedily(run, dataset, **options)
    else:
        records = train.grow_while_training(run, dataset, [e.policy for e in group], schedule=first.schedule, **options)
    fields = {name: [getattr(e, name) for e in group] * len(seeds) for name in ID_COLUMNS}
    fields |= {"seed": np.repeat(seeds, len(group)), EXPERIMENT: [e.id for e in group] * len(seeds)}
    for record in records:
        rows = pd.DataFrame(fields | record).astype({"split_neuron": "string"})
        yield rows[[*TABLE_COLUMNS, *(name for name in rows if name not in TABLE_COLUMNS)]]


@dataclass(frozen=True)
class Experiment(BaseExperiment):
    """Everything but the seed that decides a result. The fields are parameters of the experiment notebook.

    Each seed has a split of its own of the data into training and validation examples, as `load_dataset` makes it.
    The control "no-split" trains width + splits neurons from the start. The control "stay-narrow" trains the first
    width throughout. Growth, schedule, rate_after_split and state have no effect on controls, and are recorded as
    given. A growth that needs no parent does not use the policy, which is then recorded as given too.

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
    weight_decay: float = 0.0  # times the learning rate: the share of each weight that a step takes away
    dropout: float = 0.0  # the probability with which an activation is dropped in training
    rate_schedule: str = "constant"  # how the learning rate falls: constant, or cosine
    rate_after_split: float = 1.0  # the learning rate from the first split on, relative to the one before
    state: str = "carry"  # what a second twin has of its parent's optimiser state; see STATES in names.py

    notebook = "03_experiment"
    report = "report"
    train = staticmethod(train_growing)

    def __post_init__(self):
        super().__post_init__()
        if self.policy in CONTROLS:
            return
        if not SCHEDULES[self.schedule].data_dependent:
            require_all_splits(self.schedule, self.splits, self.epochs)
        growth = GROWTHS[self.growth]
        ahead = self.epochs > self.splits and self.schedule == "every-epoch" and growth.exact and growth.needs_parent
        if self.policy == GREEDY and not ahead:
            given = f"growth {self.growth!r}, schedule {self.schedule!r}, epochs {self.epochs}"
            allowed = "exact splits, 'every-epoch' and more epochs than splits"
            raise ValueError(f"policy {GREEDY!r} with {given}: allowed are {allowed}")

    @property
    def canonical(self) -> "Experiment":
        """The experiment with defaults in the fields that have no effect."""
        if self.policy in CONTROLS:
            return self._with_defaults(GROWTH_COLUMNS)
        names = [] if GROWTHS[self.growth].needs_parent else ["policy"]
        _, state = OPTIMIZERS[self.optimizer]
        return self._with_defaults(names if state or self.state != "reset" else [*names, "state"])

    @property
    def annealing_epochs(self) -> float:
        """The epochs in which the learning rate falls to 0."""
        return float(self.epochs) if self.rate_schedule == "cosine" else math.inf

    @property
    def by_seed(self) -> bool:
        """Whether each seed has times of its own to split."""
        return self.policy not in CONTROLS and SCHEDULES[self.schedule].data_dependent

    @property
    def group(self) -> "Experiment":
        """All but the policy and what `Run` has for each replica. Controls and greedy train without other policies."""
        if self.by_seed:
            return self
        names = ["learning_rate", "weight_decay", "dropout", "rate_schedule", "rate_after_split"]
        names += [] if self.policy in (*CONTROLS, GREEDY) else ["policy"]
        return self._with_defaults(names)

    def _with_defaults(self, names: Iterable[str]) -> "Experiment":
        return replace(self, **{name: getattr(Experiment, name) for name in names})

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
    if not isinstance(experiment, BaseExperiment):
        raise ValueError(f"experiment {experiment!r}: allowed is one, such as ns.Experiment(policy='random')")
    rows = experiment.train([experiment], checked_seeds(seeds))
    return pd.concat(rows, ignore_index=True).drop(columns=EXPERIMENT)
