"""Train what a folder of results lacks, and save it: one Parquet file per unit of work."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path

import pandas as pd

from neuronsplit.analysis.circumstances import circumstances
from neuronsplit.analysis.files import read_results, write_table
from neuronsplit.names import EXPERIMENT
from neuronsplit.study import progress
from neuronsplit.study.base import BaseExperiment, checked_seeds
from neuronsplit.study.batches import Batch, Plan, labels

NOTE_SECONDS = 0.2  # between two notes of a unit's progress
UNITS = "units"  # the folder in a study's folder that holds the units' files


def load_or_run(experiments: Iterable[BaseExperiment], seeds: Iterable[int], folder: Path | str) -> pd.DataFrame:
    """Return the table of experiments with some seeds; what the files in a folder lack is trained and saved there.

    An experiment that fails does not keep the others from being trained and saved.
    Raises ValueError for no experiments, and for seeds that are not different whole numbers.
    Raises RuntimeError at the end if an experiment failed, with what failed first.
    """
    first: dict[BaseExperiment, BaseExperiment] = {}  # of those that train the same
    for experiment in experiments:
        first.setdefault(experiment.canonical, experiment)
    if not first:
        raise ValueError("experiments []: allowed are one or more")
    unit = Batch(tuple(first.values()), tuple(checked_seeds(seeds)))
    plan, units = dict.fromkeys(unit.experiments, unit.seeds), Path(folder) / UNITS
    units.mkdir(parents=True, exist_ok=True)
    with progress.lock(progress.file_of(unit, units)):
        for part in units.glob(f".{unit.name}*.part"):  # of a process that was killed while it wrote
            part.unlink()
        tables, _ = read_results(folder)
        errors: dict[str, str] = {}
        for part in unit.missing(tables):
            errors |= _train_and_save(part, unit, units)
        if errors:
            progress.note(unit, units, errors=errors)
            names = [(name, errors[e.id]) for e, name in labels(plan).items() if e.id in errors]
            raise RuntimeError(f"{len(names)} of {len(plan)} experiments failed, first {': '.join(names[0])}")
        progress.note(unit, units, fraction=1.0)
        return collect(plan, read_results(folder)[0])


def read_finished(folder: Path | str) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return what `read_results` does, and nothing where the folder does not exist yet."""
    return read_results(folder) if Path(folder).is_dir() else ({}, [])


def collect(plan: Plan, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Put the table of a plan together, in its order, from tables by experiments' ids; what is missing is left out."""
    parts = []
    for experiment, seeds in plan.items():
        if experiment.id in tables:
            rows = tables[experiment.id]
            rows = rows[rows["seed"].isin(seeds)]
            order = [name for name in ("epoch", "horizon") if name in rows]
            rows = rows.sort_values([*order, "seed"], kind="stable")
            parts.append(rows.assign(**asdict(experiment))[list(rows)])  # names without effect as in this plan
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _train_and_save(part: Batch, unit: Batch, folder: Path) -> dict[str, str]:
    """Train a part of a unit and save one file; return the errors by the ids of the experiments that failed."""
    begun, programs, tables, errors = time.perf_counter(), part.programs(), [], {}
    for n, program in enumerate(programs):
        note = partial(_note, unit, folder, errors, (n, len(programs)))
        trained, failed = _train(program, note)
        tables += trained
        errors |= failed
    if tables:
        trained = [asdict(e) for e in part.experiments if e.id not in errors]
        seconds = round(time.perf_counter() - begun, 1)
        made_by = {"experiments": trained, "seeds": list(part.seeds), "seconds": seconds}
        free = (folder / f"{part.name}{f'-{n}' if n else ''}.parquet" for n in count())
        file = next(file for file in free if not file.exists())  # a damaged or foreign file stays as it is
        write_table(pd.concat(tables, ignore_index=True), file, made_by | circumstances())
    return errors


def _note(unit: Batch, folder: Path, errors: dict[str, str], program: tuple[int, int], epoch: int, epochs: int) -> None:
    n, n_programs = program
    fraction = (n + min(epoch / epochs, 1)) / n_programs
    progress.note(unit, folder, fraction=fraction, epoch=epoch, epochs=epochs, errors=errors)


def _train(program: Batch, note: Callable[[int, int], None]) -> tuple[list[pd.DataFrame], dict[str, str]]:
    """Train what trains as one; if that fails, each experiment by itself. Returns tables, and errors by id."""
    (first, *_), chunks, noted = program.experiments, [], -NOTE_SECONDS
    try:
        for epoch, tables in enumerate(first.run(program.experiments, program.seeds), start=1):
            chunks += [table.assign(**{EXPERIMENT: e.id}) for e, table in zip(program.experiments, tables)]
            if time.monotonic() > noted + NOTE_SECONDS:
                note(epoch, first.epochs)
                noted = time.monotonic()
        return chunks, {}
    except (Exception, SystemExit) as error:
        if len(program.experiments) == 1:
            return [], {first.id: " ".join(f"{type(error).__name__}: {error}".split())}
    alone = [_train(Batch((experiment,), program.seeds), note) for experiment in program.experiments]
    return [t for tables, _ in alone for t in tables], {k: v for _, failed in alone for k, v in failed.items()}
