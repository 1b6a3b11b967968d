"""Run a study: notebooks train what is missing, and another one reports on the table."""

import os
import sys
from collections.abc import Container
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import nbformat
import pandas as pd
from jinja2 import DictLoader
from nbconvert import HTMLExporter
from tqdm.auto import tqdm

from neuronsplit.analysis.circumstances import circumstances
from neuronsplit.analysis.files import provenance, read_results, write_table
from neuronsplit.locations import NOTEBOOKS, ROOT
from neuronsplit.study import progress, store
from neuronsplit.study.base import BaseExperiment, dataset_of
from neuronsplit.study.batches import Batch, Plan, cut_into_units, labels
from neuronsplit.study.executor import execute, execute_all
from neuronsplit.study.grid import Study

PAGE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block data_png %}{{ super() | replace('<img ',
'<img alt="' ~ (output | get_metadata('alt', 'image/png') or 'figure') | escape_html ~ '" ') }}{% endblock %}"""
SHARED = "allowed are workers that share this folder and have this version of the package"
Tables = dict[str, pd.DataFrame]  # by the id of the experiment


def results_folder(study: Study) -> Path:
    """Return the folder of a study's results, unless another one is given."""
    return ROOT / "runs" / study.name


def missing_units(plan: Plan, tables: Tables, died: Container[str] = ()) -> list[Batch]:
    """Return the units of work of a plan, without what the tables hold.

    died: ids of experiments whose process died before. Each is a unit of its own, because it may have ended the
        process of the others. After other failures units stay what they are, because rounding depends on them.
    """
    units = []
    for part in [part for unit in cut_into_units(plan) for part in unit.missing(tables)]:
        healthy = tuple(e for e in part.experiments if e.id not in died)
        alone = [(e,) for e in part.experiments if e.id in died]
        units += [Batch(experiments, part.seeds) for experiments in [healthy, *alone] if experiments]
    return units


def run_study(study: Study, folder: Path, workers: int = 1, scheduler: str = "") -> list[str]:
    """Train what a study's folder lacks, save the table of the whole study, and report on it.

    workers: notebooks at once on this machine. scheduler: the address of a Dask cluster that runs them instead.
    Returns a line for each notebook that failed.
    Raises OSError where the folder cannot be written.
    """
    folder = folder.absolute()
    os.environ.pop("MPLBACKEND", None)  # notebooks inherit it, and would show no figures with agg
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's switch for Linux's huge pages
    _make_writable(folder / store.UNITS)
    for e in {e.dataset: e for e in study.plan}.values():
        print(f"data: {e.dataset}, {dataset_of(e).train.labels.shape[-1]:,} training images", flush=True)
    tables, problems = store.read_finished(folder)
    for problem in problems:
        print(f"left alone: {problem}", file=sys.stderr)
    units = missing_units(study.plan, tables, progress.died(folder / store.UNITS))
    n_finished = len(study.plan) - len({e for unit in units for e in unit.experiments})
    print(f"experiments: {n_finished} of {len(study.plan)} are finished", flush=True)
    failures = _run_units(units, study, folder, tables, workers, scheduler) if units else []
    try:
        with progress.lock(folder / ".report.json"):  # two runs of a study may get here at once
            return failures + _report(study, folder)
    except OSError as error:
        return [*failures, f"report in {folder}: {error}"]


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (probe := folder / f".probe-{os.getpid()}").touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"{folder} cannot be written ({error.strerror}): allowed are folders of your own") from error


def _run_units(
    units: list[Batch], study: Study, folder: Path, tables: Tables, workers: int, scheduler: str
) -> list[str]:
    """Train units, and print the result of each experiment when its last seed has been trained. Returns failures."""
    place, names, failures = folder / store.UNITS, labels(study.plan), []
    left = {e: {unit.name for unit in units if e in unit.experiments} for e in study.plan}
    jobs = []
    for unit in units:
        progress.forget(unit, place)  # what an earlier run noted
        parameters = {"experiments": [asdict(e) for e in unit.experiments], "seeds": list(unit.seeds)}
        parameters |= {"folder": str(folder), "extensions": study.extensions}
        notebook = NOTEBOOKS / f"{unit.experiments[0].notebook}.ipynb"
        jobs.append((notebook, place / f"{unit.name}.ipynb", parameters))
    with progress.bar(units, place, lambda: f"{list(left.values()).count(set())} of {len(left)} experiments") as mark:
        for n, failure in execute_all(jobs, workers, scheduler):
            mark(unit := units[n])
            for e in unit.experiments:
                left[e].discard(unit.name)
            for experiment, table in read_results(place, unit.name)[0].items():
                tables[experiment] = pd.concat([tables.get(experiment), table])
            if not failure and unit.missing(tables):
                failure = f"{jobs[n][1]} ended without results in {place}: {SHARED}"
            if failure:
                failures.append(failure)
                progress.note_failure(unit, place, failure)
            else:
                progress.forget(unit, place)
            for e in unit.experiments:
                if not left[e] and not Batch((e,), study.plan[e]).missing(tables):
                    tqdm.write(f"{names[e]}: {_result(e, tables[e.id])}")
    return failures


def _result(experiment: BaseExperiment, table: pd.DataFrame) -> str:
    last = table[table[experiment.time] == table[experiment.time].max()]
    means = [f"{name.replace('_', ' ')} {last[name].mean():.4f}" for name in experiment.metrics]
    n_seeds = table["seed"].nunique()
    return f"{', '.join(means)}, mean of {n_seeds} {'seed' if n_seeds == 1 else 'seeds'}"


def _report(study: Study, folder: Path) -> list[str]:
    """Save the table of a study and make its report, unless both are there. Returns what failed, or nothing."""
    tables, _ = store.read_finished(folder)
    table, file, html = store.collect(study.plan, tables), folder / "table.parquet", folder / "report.html"
    if table.empty:
        print("report: nothing has been trained")
        return []
    made_by = _made_by(study, folder, tables)
    before = _provenance_of(file)
    if html.exists() and made_by == {name: before.get(name) for name in made_by}:
        print("report: it is there, and the table is the same")
        return []
    if before.get("study", study.name) != study.name:
        print(f"replaced: table and report of the study {before['study']!r} in {folder}", file=sys.stderr)
    html.unlink(missing_ok=True)  # a report that is there is that of the table
    for part in folder.glob(".*.part"):  # of a process that was killed while it wrote
        part.unlink()
    write_table(table, file, made_by | circumstances())
    print("report: drawing the figures takes about 20 seconds", flush=True)
    (folder / "figures").mkdir(exist_ok=True)
    parameters = {"table": str(file), "figures": f"{folder}/figures/", "title": study.name}
    failure = execute(study.report, folder / "report.ipynb", parameters)
    if failure:
        return [failure]
    part = folder / ".report.html.part"
    part.write_text(_page(folder / "report.ipynb", study.name), encoding="utf-8")
    os.replace(part, html)
    return []


def _page(notebook: Path, title: str) -> str:
    """Return an executed notebook as HTML without its code, which needs nothing from the net."""
    exporter = HTMLExporter(
        exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True, template_file="page.html.j2",
        extra_loaders=[DictLoader({"page.html.j2": PAGE})], mathjax_url="",
    )  # fmt: skip
    return exporter.from_notebook_node(nbformat.read(notebook, as_version=4), {"metadata": {"name": title}})[0]


def _made_by(study: Study, folder: Path, tables: Tables) -> dict:
    """What decides the table of a study and its report, and what is missing."""
    parameters = {name: sorted({asdict(e)[name] for e in study.plan}) for name in asdict(next(iter(study.plan)))}
    parameters["seeds"] = sorted({seed for seeds in study.plan.values() for seed in seeds})
    held = {e.id: sorted(map(int, tables[e.id]["seed"].unique())) for e in study.plan if e.id in tables}
    unfinished = {e.id: name for e, name in labels(study.plan).items() if Batch((e,), study.plan[e]).missing(tables)}
    noted = [error for unit in progress.read(folder / store.UNITS).values() for error in unit.errors.items()]
    return {
        "study": study.name, "parameters": parameters, "held": held, "unfinished": list(unfinished.values()),
        "errors": [f"{unfinished[experiment]}: {text}" for experiment, text in noted if experiment in unfinished],
        "report": sha256(study.report.read_bytes()).hexdigest(),
    }  # fmt: skip


def _provenance_of(file: Path) -> dict:
    try:
        return provenance(file)
    except (FileNotFoundError, ValueError):
        return {}
