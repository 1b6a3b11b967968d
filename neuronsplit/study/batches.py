"""Cut a study into units of work: what trains in one run of a notebook."""

import hashlib
import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from operator import attrgetter
from typing import NamedTuple

import pandas as pd

from neuronsplit.analysis.oracle import experiment_labels
from neuronsplit.experiments.base import BaseExperiment, training_seconds

MAX_NETWORKS = 40  # that train as one tensor program; more do not fit into the cache, and are slower
FEW_PROGRAMS = 8  # with fewer programs than this, each is cut in two, so that there is work for two processes
UNIT_SECONDS = 60  # of training at least, if there is so much, because a notebook's start takes time
START_SECONDS, REPORT_SECONDS = 5, 20  # of a notebook's start, and of a report with its figures

Plan = Mapping[BaseExperiment, tuple[int, ...]]  # the seeds of each experiment
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
        return hashlib.sha256(json.dumps([[e.id for e in self.experiments], self.seeds]).encode()).hexdigest()[:16]

    @property
    def seconds(self) -> float:
        """Roughly the seconds that it trains on one core."""
        return sum(training_seconds(program.experiments, len(program.seeds)) for program in self.programs())

    def alone(self) -> list["Batch"]:
        """Return a batch of each experiment."""
        return [Batch((experiment,), self.seeds) for experiment in self.experiments]

    def programs(self, at_least: int = 1) -> list["Batch"]:
        """Divide it into what trains as one: experiments of a group, at some of the seeds.

        at_least: the number of parts into which the seeds of a group are cut, if there are so many seeds.
        """
        programs = []
        for group in _grouped(self.experiments, attrgetter("group")).values():
            n_experiments = max(1, MAX_NETWORKS // group[0].n_networks)
            for own in _cut(group, -(-len(group) // n_experiments)):
                n_seeds = max(1, n_experiments // len(own))
                seeds = _cut(self.seeds, max(-(-len(self.seeds) // n_seeds), at_least))
                programs += [Batch(tuple(own), of_program) for of_program in seeds]
        return programs


def _cut(items: Sequence, n_parts: int) -> list[Sequence]:
    """Cut items into parts of similar size, which are not more than the items."""
    return [part for n in range(n_parts) if (part := items[n::n_parts])]


def _grouped(items: Iterable, key: Callable) -> dict[Hashable, list]:
    """Put items of the same key together, in the order of the first of each."""
    groups: dict[Hashable, list] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def make_plan(pairs: Iterable[tuple[BaseExperiment, Iterable[int]]]) -> Plan:
    """Put experiments with their seeds together; of those that train the same, the first is kept."""
    first, plan = {}, {}
    for experiment, seeds in pairs:
        experiment = first.setdefault(experiment.canonical, experiment)
        plan[experiment] = tuple(dict.fromkeys([*plan.get(experiment, ()), *seeds]))
    return plan


def labels(plan: Plan) -> dict[BaseExperiment, str]:
    """Return a name for each experiment, as reports have them: the fields that differ, such as "random · even"."""
    return dict(zip(plan, experiment_labels(pd.DataFrame(list(plan)))))


def missing(plan: Plan, tables: Tables) -> dict[BaseExperiment, tuple[int, ...]]:
    """Return what is planned and not held by tables: the seeds of the experiments that are not finished."""
    held = {e: set(tables[name]["seed"]) if (name := e.id) in tables else set() for e in plan}
    left = {e: tuple(seed for seed in seeds if seed not in held[e]) for e, seeds in plan.items()}
    return {e: seeds for e, seeds in left.items() if seeds}


def group_by_seeds(plan: Plan) -> list[Batch]:
    """Put experiments with the same seeds together."""
    return [Batch(tuple(experiments), seeds) for seeds, experiments in _grouped(plan, plan.get).items()]


def cut_into_units(plan: Plan) -> list[Batch]:
    """Cut a study into units, the longest first.

    The rounding of results depends on what trains as one. So units depend on the plan alone, and not on what is
    finished. A program of UNIT_SECONDS or more is a unit, and shorter ones of the same seeds are put together. The
    number of such units is a power of two, so that two, four or eight processes end together.
    """
    batches = group_by_seeds(plan)
    programs = [program for batch in batches for program in batch.programs()]
    if len(programs) < FEW_PROGRAMS:
        programs = [program for batch in batches for program in batch.programs(at_least=2)]
    programs.sort(key=attrgetter("seconds"), reverse=True)
    units = [program for program in programs if program.seconds >= UNIT_SECONDS]
    for seeds, short in _grouped(programs[len(units) :], attrgetter("seeds")).items():
        n_units = min(2, len(short)) if len(short) == len(programs) else 1  # two processes have work
        while sum(program.seconds for program in short[2 * n_units - 1 :: 2 * n_units]) >= UNIT_SECONDS:
            n_units *= 2
        for n in range(n_units):
            units.append(Batch(tuple(e for program in short[n::n_units] for e in program.experiments), seeds))
    return sorted(units, key=lambda unit: -unit.seconds)


def missing_units(plan: Plan, tables: Tables, died: Set[BaseExperiment] = frozenset()) -> list[Batch]:
    """Return the units of a plan, without what tables hold.

    died: experiments whose process died before. The others of their unit train alone, because one of them may have
        ended it. After other failures units stay what they are, because rounding depends on them.
    """
    parts = [part for unit in cut_into_units(plan) for part in group_by_seeds(missing(unit.plan, tables))]
    return [unit for part in parts for unit in ([part] if died.isdisjoint(part.experiments) else part.alone())]
