"""An experiment is a value, which decides everything about the table that it trains."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import OPTIMIZERS
from neuronsplit.data.datasets import DATASETS, Dataset, fingerprint, load_dataset
from neuronsplit.growing import learned
from neuronsplit.growing.all_splits import grow_greedily
from neuronsplit.growing.how import GROWTHS
from neuronsplit.growing.train import Run, grow_while_training
from neuronsplit.growing.when import SCHEDULES
from neuronsplit.growing.which import POLICIES
from neuronsplit.names import CONTROLS, GREEDY, ID_COLUMNS, NO_SPLIT, TABLE_COLUMNS
from neuronsplit.study import extensions

LARGEST = 100_000  # the largest count that a field may hold
RESULTS = 7  # raised when a change to the package changes what an experiment computes
LOOKS_AT_LOSSES = "a schedule that looks at losses needs data_dependent=True"  # a hint in errors
LEARNED = "learned"  # the policy whose weights come with the package


def policy_names() -> tuple[str, ...]:
    """Return the names of the controls, of every registered policy, and of the greedy choice.

    Raises ValueError where a registered policy has the name of another.
    """
    extensions.refuse_reserved_names()
    return *CONTROLS, *POLICIES, GREEDY


class Plan:
    """What experiments of every kind have in common; each kind is a frozen dataclass of all that decides its result.

    notebook shows one experiment, and report shows a study of several. run trains a group of experiments, and yields
    their tables. A table has its rows in the order of the column `by`; its last rows give the numbers of `ends`.
    Experiments that are not `alone` train together with those that differ from them in the policy only. An experiment
    trains `networks` networks per seed at a time.
    """

    notebook: ClassVar[str]
    report: ClassVar[str]
    by: ClassVar[str]
    ends: ClassVar[dict[str, Callable[[pd.DataFrame], float]]]
    alone = True

    def refuse(self, named: dict[str, Iterable[str]], least: dict[str, int]) -> None:
        """Check fields that hold one of some names, and fields that hold a whole number from the least allowed.

        Raises ValueError for a value that is not allowed.
        """
        for name, names in named.items():
            if getattr(self, name) not in tuple(names):
                raise ValueError(f"{name} {getattr(self, name)!r}: allowed are {', '.join(names)}")
        for name, lowest in least.items():
            value, most = getattr(self, name), LARGEST if name != "seed" else 2**32
            if type(value) is not int or not lowest <= value <= most:
                raise ValueError(f"{name} {value!r}: allowed are whole numbers from {lowest} to {most}")
        if self.seed + self.n_seeds - 1 > 2**32:
            raise ValueError(f"seed {self.seed} with n_seeds {self.n_seeds}: allowed are seeds to {2**32}")
        if type(self.learning_rate) not in (int, float) or not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate {self.learning_rate!r}: allowed are numbers above 0")

    def arguments(self, folder: Path) -> dict:
        """The parameters of the notebook that shows the experiment whose table is in a folder."""
        return asdict(self) | {"folder": str(folder)}

    @property
    def seeds(self) -> list[int]:
        """The seeds: seed, seed + 1, …"""
        return list(range(self.seed, self.seed + self.n_seeds))

    @property
    def name(self) -> str:
        """A file name: the title, and a hash of everything that decides the result.

        These are the fields, the data, the version of the results and the weights of the learned policy. The text of
        an extension file counts if it registered one of the names. So does the source of what a notebook registered.
        """
        decides = [RESULTS, asdict(self) | {"learning_rate": float(self.learning_rate)}]
        decides += [_fingerprint(self.dataset, DATASETS[self.dataset]), *extensions.digests(self)]
        if self.title == LEARNED:
            decides.append(hashlib.sha256(learned.FILE.read_bytes()).hexdigest())
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        return f"{re.sub(r'[^A-Za-z0-9_-]', '_', self.title)}-{digest[:8]}"


@cache  # by the function too, so that a name that is registered anew is not taken for what it was
def _fingerprint(name: str, loader: Callable[[], Dataset]) -> str:
    return fingerprint(load_dataset(name))


def run_epochs(group: list["Experiment"]) -> Iterator[list[pd.DataFrame]]:
    """Train experiments of one group of `store.together`; yield their tables epoch by epoch, one per experiment."""
    first, policies = group[0], [e.policy for e in group]
    dataset = dataset_of(first)
    splits = 0 if first.policy in CONTROLS else first.splits
    options = {"growth": first.growth, "splits": splits, "epochs": first.epochs}
    for seeds in [[seed] for seed in first.seeds] if first.by_seed else [first.seeds]:
        mlp = MLP.for_dataset(dataset, first.width + (first.splits if first.policy == NO_SPLIT else 0), seeds)
        mlp = mlp[[r for r in range(len(seeds)) for _ in group]]
        run = Run.start(mlp, seeds, first.optimizer, first.learning_rate, first.batch_size)
        if first.policy == GREEDY:
            records = grow_greedily(run, dataset, **options)
        else:
            records = grow_while_training(run, dataset, policies, schedule=first.schedule, **options)
        for record in records:
            record |= {"seed": np.repeat(seeds, len(group))}
            rows = pd.DataFrame(record).astype({"split_neuron": "string"})
            yield [_with_fields(e, rows.iloc[i :: len(group)]) for i, e in enumerate(group)]


def _with_fields(experiment: "Experiment", rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table with the fields of their experiment as columns."""
    rows = pd.DataFrame({name: getattr(experiment, name) for name in ID_COLUMNS}, rows.index).join(rows)
    return rows[[*TABLE_COLUMNS, *(name for name in rows if name not in TABLE_COLUMNS)]]


@dataclass(frozen=True)
class Experiment(Plan):
    """Everything that decides a result. The fields are the parameters of the experiment notebook, one to one.

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
    n_seeds: int = 5  # networks, of seeds seed, seed + 1, …
    seed: int = 0  # the first seed
    learning_rate: float = 0.05  # of the optimiser
    batch_size: int = 32  # images per step

    notebook = "03_experiment"
    report = "04_comparison"
    by = "epoch"
    ends = {
        "test accuracy": lambda last: last["test_accuracy"].mean(),
        "test loss": lambda last: last["test_loss"].mean(),
    }
    run = staticmethod(run_epochs)

    def __post_init__(self):
        self.refuse(
            {
                "policy": policy_names(), "dataset": DATASETS, "growth": GROWTHS, "schedule": SCHEDULES,
                "optimizer": OPTIMIZERS,
            },
            {"width": 1, "splits": 0, "epochs": 1, "n_seeds": 1, "seed": 0, "batch_size": 1},
        )  # fmt: skip
        if self.policy in CONTROLS:
            return
        if not SCHEDULES[self.schedule].data_dependent and (planned := self._planned()) < self.splits:
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

    def _planned(self) -> int:
        """The number of splits that a schedule makes, if it does not depend on the data.

        Raises ValueError where it fails without losses, or returns anything but a whole number from 0.
        """
        done = 0
        for epoch in range(1, self.epochs + 1):
            left = self.splits - done
            try:
                due = SCHEDULES[self.schedule].due(epoch, [], left)
            except Exception as error:
                due = f"{type(error).__name__}: {error}"
            if not isinstance(due, Integral) or due < 0:
                raise ValueError(
                    f"schedule {self.schedule!r} gives {due!r} at epoch {epoch}: allowed are whole numbers from 0 "
                    f"({LOOKS_AT_LOSSES})"
                )
            done += min(due, left)
        return done

    @property
    def title(self) -> str:
        """What it is called, apart from its settings."""
        return self.policy

    @property
    def by_seed(self) -> bool:
        """Whether each seed has times of its own to split, so that seeds train one after the other."""
        return self.policy not in CONTROLS and SCHEDULES[self.schedule].data_dependent

    @property
    def alone(self) -> bool:
        """Whether it trains by itself: as a control, with times of its own, or with many networks per seed."""
        return self.policy in (*CONTROLS, GREEDY) or self.by_seed

    @property
    def networks(self) -> int:
        """The number of networks per seed that train at a time, at most."""
        return self.width + self.splits if self.policy == GREEDY else 1


def run_experiment(experiment: Experiment) -> pd.DataFrame:
    """Train all seeds of an experiment.

    Returns its tidy table, with a row per seed and epoch. The columns are TABLE_COLUMNS and more.
        split_neuron: the neuron that was split at the end of the epoch, or several in their order, such as "3 5". Its
            second twin is the new last neuron. "new" stands for a neuron that was added without a parent.
        train_loss, train_accuracy: means over the images of the epoch, each measured before the step that uses it.
        last_batch_loss, last_batch_accuracy: the same for the last mini-batch.
        val_loss, val_accuracy: measured before the split, for the policy.
        test_loss, test_accuracy: measured after the split.
    """
    return pd.concat((table for (table,) in experiment.run([experiment])), ignore_index=True)


def dataset_of(experiment: Plan) -> Dataset:
    """Return the data of an experiment.

    Raises ValueError where each seed has its own images, or a mini-batch needs more images than there are.
    """
    name, dataset = experiment.dataset, load_dataset(experiment.dataset)
    subsets = dataset.train, dataset.validation, dataset.test, *dataset.extra_test.values()
    if any(subset.images.dim() == 3 for subset in subsets):
        raise ValueError(f"dataset {name!r} has images per seed: allowed in a study are data that all seeds share")
    available = dataset.train.labels.shape[-1]
    if experiment.batch_size > available:
        raise ValueError(f"batch_size {experiment.batch_size}: allowed are 1 to {available} on {name}")
    return dataset
