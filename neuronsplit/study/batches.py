"""Cut a study into units of work: what trains in one run of a notebook."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from neuronsplit.names import NO_SPLIT, STAY_NARROW
from neuronsplit.study.base import BaseExperiment, dataset_of
from neuronsplit.study.experiment import Experiment

MAX_NETWORKS = 40  # that train as one tensor program; more do not fit into the cache, and are slower
FEW_GROUPS = 8  # with fewer groups than this, each is cut in two, so that there is work for two processes
UNIT_SECONDS = 60  # of training at least, because the start of a notebook's kernel takes about 5
# Seconds of a training step on a core with AVX-512: of the step, of each network, and of a multiply-add. They were
# fitted to 1 to 35 networks of 10 to 60 neurons.
STEP_SECONDS, NETWORK_SECONDS, MULTIPLY_ADD_SECONDS = 2e-4, 1e-5, 6e-12
EPOCH_SECONDS = 3e-3  # for the table's rows

Plan = Mapping[BaseExperiment, tuple[int, ...]]  # the seeds of each experiment


def labels(plan: Plan) -> dict[BaseExperiment, str]:
    """Return a name for each experiment: the values of the fields that differ between them, such as "random · even"."""
    fields = {e: asdict(e) for e in plan}
    differ = [name for name in asdict(next(iter(plan))) if len({one[name] for one in fields.values()}) > 1]

    def words(name: str, value: object) -> str:
        return value if isinstance(value, str) else f"{name.replace('_', ' ')} {value}"

    return {e: " · ".join(words(name, of_e[name]) for name in differ or [*of_e][:1]) for e, of_e in fields.items()}


class Batch(NamedTuple):
    """Experiments that all have the same seeds."""

    experiments: tuple[BaseExperiment, ...]
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """A file name: the first experiment, the number of others, and a hash of all that decides the result."""
        first, n_others = self.experiments[0], len(self.experiments) - 1
        label = re.sub(r"[^A-Za-z0-9-]", "_", getattr(first, "policy", "all-splits"))[:40]
        text = json.dumps([[e.id for e in self.experiments], self.seeds])
        others = f"-and-{n_others}-more" if n_others else ""
        return f"{label}{others}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def seconds(self) -> float:
        """Roughly the seconds that it trains on one core."""
        return sum(_seconds(*program) for program in self.programs())

    def programs(self) -> list["Batch"]:
        """Divide it into what trains as one tensor program: policies that are batchable, and others one by one."""
        groups: dict[BaseExperiment, list[BaseExperiment]] = {}
        for e in self.experiments:
            groups.setdefault(replace(e, policy=Experiment.policy) if e.batchable else e, []).append(e)
        fitting = max(1, MAX_NETWORKS // len(self.seeds))
        return [
            Batch(tuple(group[first : first + fitting]), seeds)
            for group in groups.values()
            for seeds in ([(seed,) for seed in self.seeds] if group[0].by_seed else [self.seeds])
            for first in range(0, len(group), fitting)
        ]

    def missing(self, tables: Mapping[str, pd.DataFrame]) -> list["Batch"]:
        """Return what is not held by tables, which are given by the id of their experiment."""
        left: dict[tuple[int, ...], list[BaseExperiment]] = {}
        for e in self.experiments:
            held = set(tables[e.id]["seed"]) if e.id in tables else set()
            if seeds := tuple(seed for seed in self.seeds if seed not in held):
                left.setdefault(seeds, []).append(e)
        return [Batch(tuple(experiments), seeds) for seeds, experiments in left.items()]


def _seconds(experiments: tuple[BaseExperiment, ...], seeds: tuple[int, ...]) -> float:
    e, dataset = experiments[0], dataset_of(experiments[0])
    growth = {NO_SPLIT: 1.0, STAY_NARROW: 0.0}.get(getattr(e, "policy", ""), 0.6)  # the mean share of splits made
    weights = (e.width + growth * getattr(e, "splits", 0)) * (dataset.train.images.shape[-1] + len(dataset.classes))
    n_networks = len(experiments) * len(seeds) * e.n_networks
    multiply_adds = 3 * n_networks * e.batch_size * weights  # forward, and two products backward
    step = STEP_SECONDS + NETWORK_SECONDS * n_networks + MULTIPLY_ADD_SECONDS * multiply_adds
    return e.epochs * (EPOCH_SECONDS + step * (dataset.train.labels.shape[-1] // e.batch_size))


def cut_into_units(plan: Plan) -> list[Batch]:
    """Cut a study into units, the longest first.

    The rounding of results depends on what trains as one. So units depend on the plan alone, and not on what is
    finished. There is an even number of similar units of UNIT_SECONDS or more, unless there is too little work.
    """
    by_seeds: dict[tuple[int, ...], list[BaseExperiment]] = {}
    for experiment, seeds in plan.items():
        by_seeds.setdefault(tuple(seeds), []).append(experiment)
    groups: list[Batch] = []
    for seeds, experiments in by_seeds.items():
        one_seed = Batch(tuple(experiments), seeds[:1]).programs()
        groups += [Batch(program.experiments, seeds) for program in one_seed]
    programs = [part for group in groups for part in _fitting(group, 2 if len(groups) < FEW_GROUPS else 1)]
    seconds = {program: program.seconds for program in programs}
    n_units = 2 * max(1, round(sum(seconds.values()) / UNIT_SECONDS / 2))
    enough = 0.999 * sum(seconds.values()) / n_units
    units: list[list[Batch]] = []
    filling: dict[tuple[int, ...], list[Batch]] = {}  # of each choice of seeds: the unit that is not long enough yet
    for program in sorted(programs, key=lambda program: -seconds[program]):
        unit = filling.setdefault(program.seeds, [])
        unit.append(program)
        if sum(seconds[one] for one in unit) >= enough:
            units.append(filling.pop(program.seeds))
    units += filling.values()
    units.sort(key=lambda unit: -sum(seconds[program] for program in unit))
    return [Batch(tuple(e for program in unit for e in program.experiments), unit[0].seeds) for unit in units]


def _fitting(group: Batch, at_least: int) -> list[Batch]:
    """Cut the seeds of a group that trains as one into parts of at most MAX_NETWORKS, or of one seed."""
    n_seeds = max(1, MAX_NETWORKS // (len(group.experiments) * group.experiments[0].n_networks))
    n_parts = min(max(-(-len(group.seeds) // n_seeds), at_least), len(group.seeds))
    return [Batch(group.experiments, tuple(map(int, part))) for part in np.array_split(group.seeds, n_parts)]
