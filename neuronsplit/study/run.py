"""Run a study: notebooks train what is missing, and another one reports on the table."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import pandas as pd
from filelock import FileLock
from jinja2 import FileSystemLoader
from tqdm.auto import tqdm

from neuronsplit.analysis import files, sentences, wording
from neuronsplit.analysis.circumstances import circumstances
from neuronsplit.experiments import base
from neuronsplit.locations import NOTEBOOKS
from neuronsplit.study import batches, executor, progress, store
from neuronsplit.study.grid import Study

PAGE = Path(__file__).with_name("page.html.j2")
DEADLY = "DeadKernelError", "KilledWorker"  # errors of notebooks that may have ended their own process


def states_and_units(study: Study, folder: Path, tables: batches.Tables) -> tuple[dict, list[batches.Batch]]:
    """Return the state of each experiment, and the units that are to be run; tables are those in the folder."""
    states = progress.states(study.plan, tables, folder / store.UNITS)
    died = {e for e, state in states.items() if any(f": {name}: " in state for name in DEADLY)}
    return states, batches.missing_units(study.plan, tables, died)


def train_missing(study: Study, folder: Path, workers: int = 1, scheduler: str = "") -> list[str]:
    """Train what a study's folder lacks.

    workers: notebooks at once on this machine. scheduler: the address of a Dask cluster that runs them instead.
    Returns a line for each error, with the experiments that it ended.
    Raises OSError where the folder cannot be written.
    """
    os.environ.pop("MPLBACKEND", None)  # notebooks inherit it, and would show no figures with agg
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's switch for Linux's huge pages
    place = folder / store.UNITS
    try:
        place.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise OSError(f"{place} cannot be written ({error.strerror}): allowed are folders of your own") from error
    for e in {e.dataset: e for e in study.plan}.values():
        print(f"data: {e.dataset}, {base.dataset_of(e).train.labels.shape[-1]:,} training images", flush=True)
    tables, problems = files.read_results(folder)
    for problem in problems:
        print(f"left alone: {problem}", file=sys.stderr)
    states, units = states_and_units(study, folder, tables)
    print(f"experiments: {[*states.values()].count('done')} of {len(states)} are finished", flush=True)
    ends = executor.execute_all([_job(unit, study, folder) for unit in units], workers, scheduler)
    return _follow(units, ends, study, folder, tables) if units else []


def _job(unit: batches.Batch, study: Study, folder: Path) -> executor.Job:
    """Return the notebook that trains a unit, where it goes when it has been executed, and its parameters."""
    parameters = {"experiments": [asdict(e) for e in unit.experiments], "seeds": list(unit.seeds)}
    parameters |= {"folder": str(folder), "extensions": study.extensions}
    notebook = f"{unit.experiments[0].notebook}.ipynb"
    return NOTEBOOKS / notebook, folder / store.UNITS / f"{unit.name}.ipynb", parameters


def _follow(units: list[batches.Batch], ends: Iterator, study: Study, folder: Path, tables: dict) -> list[str]:
    """Show progress, and the result of each experiment when its last seed has been trained. Returns errors in lines.

    ends: yields the number of each unit that has ended, and what went wrong. tables: what was trained before.
    """
    place, names, failed = folder / store.UNITS, batches.labels(study.plan), {}
    left, by_id = batches.missing(study.plan, tables), {e.id: name for e, name in names.items()}
    with progress.bar(units, place, lambda: f"{len(names) - len(left)} of {len(names)} experiments") as end:
        for n, failure in ends:
            end((unit := units[n]).name)
            for experiment, table in files.read_results(place, unit.name)[0].items():
                tables[experiment] = pd.concat([tables.get(experiment), table])
            if not failure and batches.missing(unit.plan, tables):
                failure = f"{place}/{unit.name} left no results: allowed are workers with this folder and version"
            if failure:
                for name, error in progress.note_failure(unit, place, failure).items():
                    failed.setdefault(error, {})[by_id[name]] = None  # each once, and in order
            for e in unit.experiments:
                if not batches.missing({e: study.plan[e]}, tables):
                    left.pop(e, None)
                    tqdm.write(f"{names[e]}: {sentences.result(tables[e.id])}")
    return [f"{wording.join(ended)}: {error}" for error, ended in failed.items()]


def report(study: Study, folder: Path) -> list[str]:
    """Save the table of a study and make its report, unless both are there. Returns what failed, or nothing."""
    try:
        with FileLock(folder / ".report.lock"):  # two runs of a study may get here at once
            return _report(study, folder)
    except OSError as error:
        return [f"report in {folder}: {error}"]


def _report(study: Study, folder: Path) -> list[str]:
    tables, _ = files.read_results(folder)
    table, file, html = store.collect(study.plan, tables), folder / "table.parquet", folder / "report.html"
    if table.empty:
        print("report: nothing has been trained")
        return []
    made_by, before = _made_by(study, table, states_and_units(study, folder, tables)[0]), {}
    with suppress(FileNotFoundError, ValueError):
        before = files.provenance(file)
    if html.exists() and before.get("digest") == made_by["digest"]:
        print("report: it is there, and the table is the same")
        return []
    html.unlink(missing_ok=True)  # a report that is there is that of the table
    files.remove_parts(folder)
    files.write_table(table, file, made_by | circumstances())
    print(f"report: drawing the figures takes about {batches.REPORT_SECONDS} seconds", flush=True)
    (folder / "figures").mkdir(exist_ok=True)
    parameters = {"table": str(file), "figures": f"{folder}/figures/", "title": study.name}
    failure = executor.execute(study.report, folder / "report.ipynb", parameters)
    if not failure:
        files.write_bytes(page_of(folder / "report.ipynb", study.name).encode(), html)
    return [failure] if failure else []


def _made_by(study: Study, table: pd.DataFrame, states: dict) -> dict:
    """What decides a report, with a digest of all of it: the table and the notebook count too."""
    names = batches.labels(study.plan)
    unfinished = [f"{names[e]}: {state}" for e, state in states.items() if state != "done"]
    fields = pd.DataFrame(list(study.plan)).assign(seeds=[*study.plan.values()]).explode("seeds")
    parameters = {name: sorted(set(values)) for name, values in fields.to_dict("list").items()}
    made_by = {"study": study.name, "parameters": parameters, "unfinished": unfinished}
    digest = sha256(repr(made_by).encode() + study.report.read_bytes() + PAGE.read_bytes())
    digest.update(pd.util.hash_pandas_object(table).to_numpy())
    return made_by | {"extensions": study.extensions, "digest": digest.hexdigest()}


def page_of(notebook: Path, title: str) -> str:
    """Return an executed notebook as HTML without its code, which needs nothing from the net."""
    from nbconvert import HTMLExporter  # takes seconds, for which a finished study need not wait

    template = {"template_file": PAGE.name, "extra_loaders": [FileSystemLoader(PAGE.parent)]}
    exporter = HTMLExporter(exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True, **template)
    return exporter.from_file(str(notebook), {"metadata": {"name": title}})[0]
