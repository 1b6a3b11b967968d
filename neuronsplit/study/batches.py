"""Cut a study into units of work: what trains in one run of a notebook."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

import pandas as pd

from neuronsplit.analysis.oracle import setting_labels
from neuronsplit.analysis.tables import with_labels
from neuronsplit.study.base import BaseExperiment, dataset_of

MAX_NETWORKS = 40  # that train as one tensor program; more do not fit into the cache, and are slower
FEW_PROGRAMS = 8  # with fewer programs than this, each is cut in two, so that there is work for two processes
UNIT_SECONDS = 60  # of training at least, because the start of a notebook's kernel takes about 5
# Seconds of a training step on a core with AVX-512: of the step, of each network, and of a multiply-add. They were
# fitted to 1 to 35 networks of 10 to 60 neurons.
STEP_SECONDS, NETWORK_SECONDS, MULTIPLY_ADD_SECONDS = 2e-4, 1e-5, 6e-12

Plan = Mapping[BaseExperiment, Sequence[int]]  # the seeds of each experiment
Tables = Mapping[str, pd.DataFrame]  # what has been trained, by the id of the experiment


class Batch(NamedTuple):
    """Experiments that all have the same seeds: a unit of work, or what trains as one tensor program."""

    experiments: tuple[BaseExperiment, ...]
    seeds: tuple[int, ...]

    @property
    def plan(self) -> Plan:
        """The seeds of each experiment."""
        return dict.fromkeys(self.experiments, self.seeds)

    @property
    def name(self) -> str:
        """A name for files, a hash of all that decides the result."""
        text = json.dumps([[e.id for e in self.experiments], self.seeds])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def seconds(self) -> float:
        """Roughly the seconds that it trains on one core."""
        return sum(map(_seconds, self.programs()))

    def alone(self) -> list["Batch"]:
        """Return a batch of each experiment."""
        return [Batch((experiment,), self.seeds) for experiment in self.experiments]

    def programs(self, at_least: int = 1) -> list["Batch"]:
        """Divide it into what trains as one: the experiments of a group, at some of the seeds.

        at_least: the number of parts into which the seeds of a group are cut, if there are so many seeds.
        """
        groups: dict[BaseExperiment, list[BaseExperiment]] = {}
        for experiment in self.experiments:
            groups.setdefault(experiment.group, []).append(experiment)
        programs = []
        for group in groups.values():
            n_seeds = max(1, MAX_NETWORKS // (len(group) * group[0].n_networks))
            n_parts = min(max(-(-len(self.seeds) // n_seeds), at_least), len(self.seeds))
            programs += [Batch(tuple(group), self.seeds[part::n_parts]) for part in range(n_parts)]
        return programs


def _seconds(program: Batch) -> float:
    first, dataset = program.experiments[0], dataset_of(program.experiments[0])
    n_networks, n_runs = len(program.experiments) * len(program.seeds), len(program.seeds) if first.by_seed else 1
    weights = (first.width + getattr(first, "splits", 0)) * (dataset.train.images.shape[-1] + len(dataset.classes))
    multiply_adds = 3 * first.batch_size * weights  # forward, and two products backward
    of_networks = n_networks * first.n_networks * (NETWORK_SECONDS + MULTIPLY_ADD_SECONDS * multiply_adds)
    n_steps = first.epochs * (dataset.train.labels.shape[-1] // first.batch_size)
    return n_steps * (STEP_SECONDS * n_runs + of_networks)


def make_plan(pairs: Iterable[tuple[BaseExperiment, Iterable[int]]]) -> Plan:
    """Put experiments with their seeds together; of those that train the same, the first is kept."""
    first: dict[BaseExperiment, BaseExperiment] = {}
    plan: dict[BaseExperiment, tuple[int, ...]] = {}
    for experiment, seeds in pairs:
        experiment = first.setdefault(experiment.canonical, experiment)
        plan[experiment] = tuple(dict.fromkeys([*plan.get(experiment, ()), *seeds]))
    return plan


def labels(plan: Plan) -> dict[BaseExperiment, str]:
    """Return a name for each experiment, as reports have them: the fields that differ, such as "random · even"."""
    fields = pd.DataFrame(list(plan))
    return dict(zip(plan, with_labels(fields)["policy"] if "policy" in fields else setting_labels(fields)))


def missing(plan: Plan, tables: Tables) -> dict[BaseExperiment, tuple[int, ...]]:
    """Return what is planned and not held by tables: the seeds of the experiments that are not finished."""
    held = {e: set(tables[e.id]["seed"]) if e.id in tables else set() for e in plan}
    left = {e: tuple(seed for seed in seeds if seed not in held[e]) for e, seeds in plan.items()}
    return {e: seeds for e, seeds in left.items() if seeds}


def group_by_seeds(plan: Plan) -> list[Batch]:
    """Put experiments with the same seeds together."""
    groups: dict[tuple[int, ...], list[BaseExperiment]] = {}
    for experiment, seeds in plan.items():
        groups.setdefault(tuple(seeds), []).append(experiment)
    return [Batch(tuple(experiments), seeds) for seeds, experiments in groups.items()]


def cut_into_units(plan: Plan) -> list[Batch]:
    """Cut a study into units, the longest first.

    The rounding of results depends on what trains as one. So units depend on the plan alone, and not on what is
    finished. Each takes UNIT_SECONDS or more, unless there is too little work for two of them.
    """
    batches = group_by_seeds(plan)
    programs = [program for batch in batches for program in batch.programs()]
    if len(programs) < FEW_PROGRAMS:
        programs = [program for batch in batches for program in batch.programs(at_least=2)]
    seconds = {program: _seconds(program) for program in programs}
    enough = min(UNIT_SECONDS, 0.499 * sum(seconds.values()))
    units: list[list[Batch]] = []
    filling: dict[tuple[int, ...], list[Batch]] = {}  # of each choice of seeds: the unit that is not long enough yet
    for program in sorted(programs, key=seconds.get, reverse=True):
        unit = filling.setdefault(program.seeds, [])
        unit.append(program)
        if sum(map(seconds.get, unit)) >= enough:
            units.append(filling.pop(program.seeds))
    units = sorted([*units, *filling.values()], key=lambda unit: -sum(map(seconds.get, unit)))
    return [Batch(tuple(e for program in unit for e in program.experiments), unit[0].seeds) for unit in units]


def missing_units(plan: Plan, tables: Tables, died: Set[BaseExperiment] = frozenset()) -> list[Batch]:
    """Return the units of a plan, without what tables hold.

    died: experiments whose process died before. Experiments beside them train alone, because one of them may have
        ended it. After other failures units stay what they are, because rounding depends on them.
    """
    parts = [part for unit in cut_into_units(plan) for part in group_by_seeds(missing(unit.plan, tables))]
    return [unit for part in parts for unit in ([part] if died.isdisjoint(part.experiments) else part.alone())]
