"""Train what a folder of results lacks, and save it: one Parquet file per unit of work."""

import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

import pandas as pd

from neuronsplit.analysis.circumstances import circumstances
from neuronsplit.analysis.files import read_results, remove_parts, write_table
from neuronsplit.checks import checked_seeds, describe_error
from neuronsplit.experiments.base import BaseExperiment
from neuronsplit.names import EXPERIMENT
from neuronsplit.study import progress
from neuronsplit.study.batches import Batch, Plan, Tables, group_by_seeds, labels, make_plan, missing

NOTE_SECONDS = 0.2  # between two notes of a unit's progress
UNITS = "units"  # the folder in a study's folder that holds the units' files


def load_or_run(experiments: Iterable[BaseExperiment], seeds: Iterable[int], folder: Path | str) -> pd.DataFrame:
    """Return the table of experiments with some seeds; what the files in a folder lack is trained and saved there.

    An experiment that fails does not keep the others from being trained and saved.
    Raises ValueError for no experiments, and for seeds that are not different whole numbers.
    Raises RuntimeError at the end if an experiment failed, with what failed first.
    """
    seeds = tuple(checked_seeds(seeds))
    plan, units = make_plan((experiment, seeds) for experiment in experiments), Path(folder) / UNITS
    if not plan:
        raise ValueError("experiments []: allowed are one or more")
    unit = Batch(tuple(plan), seeds)
    units.mkdir(parents=True, exist_ok=True)
    with progress.lock(file := progress.file_of(unit, units)):
        remove_parts(units, unit.name)
        errors = _train_and_save(unit, missing(plan, read_results(folder)[0]), units)
        if errors:
            progress.note(unit, units, errors=errors)
            names = [f"{name}: {errors[e.id]}" for e, name in labels(plan).items() if e.id in errors]
            raise RuntimeError(f"{len(names)} of {len(plan)} experiments failed, first {names[0]}")
        file.unlink(missing_ok=True)
        return collect(plan, read_results(folder)[0])


def collect(plan: Plan, tables: Tables) -> pd.DataFrame:
    """Put the table of a plan together, in its order; what is missing is left out."""
    parts = []
    for experiment, seeds in plan.items():
        if (rows := tables.get(experiment.id)) is not None:
            rows = rows[rows["seed"].isin(seeds)].assign(**asdict(experiment))  # names without effect as in this plan
            parts.append(rows.sort_values(["epoch" if "epoch" in rows else "horizon", "seed"], kind="stable"))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _train_and_save(unit: Batch, left: Plan, units: Path) -> dict[str, str]:
    """Train what is left of a unit and save one file; return the errors by the ids of the experiments that failed.

    If what trains as one fails, each of its experiments trains alone.
    """
    begun, noted, trained, errors = time.perf_counter(), 0.0, [], {}
    programs = [program for batch in group_by_seeds(left) for program in batch.programs()]
    for n_trained, program in enumerate(programs):
        first, rows = program.experiments[0], []
        epochs = first.epochs * (len(program.seeds) if first.by_seed else 1)
        try:
            for epoch, of_epoch in enumerate(first.train(program.experiments, program.seeds), start=1):
                rows.append(of_epoch)
                if time.perf_counter() > noted + NOTE_SECONDS:
                    noted, at = time.perf_counter(), f"epoch {epoch} of {epochs}"
                    fraction = (n_trained + min(epoch / epochs, 1)) / len(programs)
                    progress.note(unit, units, fraction=fraction, at=at, errors=errors)
            trained += rows
        except (Exception, SystemExit) as error:
            if len(program.experiments) == 1:
                errors[first.id] = describe_error(error)
            else:
                programs += program.alone()
    if trained:
        table = pd.concat(trained, ignore_index=True)
        held = set(table[EXPERIMENT])
        made_by = {"experiments": [asdict(e) for e in left if e.id in held], "seeds": table["seed"].unique().tolist()}
        made_by |= {"seconds": round(time.perf_counter() - begun, 1)} | circumstances()
        file = units / f"{unit.name}.parquet"
        if file.exists():  # what is damaged or foreign stays as it is
            file = file.with_stem(f"{unit.name}-{uuid4().hex[:8]}")
        write_table(table, file, made_by)
    return errors
