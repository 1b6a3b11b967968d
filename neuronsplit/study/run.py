"""Run a study: papermill executes a notebook per experiment, and then the comparison as a report."""

import gzip
import json
import os
import platform
import shutil
from collections import deque
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path

import pandas as pd
import torch
from nbconvert import HTMLExporter
from tqdm import tqdm

from neuronsplit.analysis.tables import metadata_file, read_verified
from neuronsplit.study.engines import Job, as_they_end
from neuronsplit.study.experiment import Plan, dataset_of
from neuronsplit.study.extensions import load_extensions
from neuronsplit.study.folders import Place, at_hand
from neuronsplit.study.grid import experiments, extensions_file, read_study
from neuronsplit.study.index import write_index
from neuronsplit.study.kernel import papermill
from neuronsplit.study.status import cut, epochs_done, left_behind, states, unfinished
from neuronsplit.study.store import PIECES, ROOT, join, load, pieces, save, train

NOTEBOOKS = ROOT / "notebooks"
RUNS = ROOT / "runs"
PUBLISHED = ROOT / "figures" / "data"


def plan(study: str, changes: dict) -> tuple[dict, list[Plan], str]:
    """The parameters of a study, with some changed, its experiments and the notebook that reports on them.

    The study's extension file is imported on the way.
    Raises ValueError or OSError where the study cannot run.
    """
    parameters = read_study(study) | changes
    load_extensions(extensions_file(study, parameters))
    report = parameters.pop("report", None)
    planned = experiments(parameters)
    report = report or planned[0].report
    for name in changes:
        if any(name in block for block in [*parameters.get("each", []), parameters.get("zip", {})]):
            raise ValueError(f"parameter {name!r} is set in the study's own `each` or `zip`: change it in the file")
    reports = sorted(file.stem for file in NOTEBOOKS.glob("*.ipynb"))
    if len(planned) > 1 and report not in reports:
        raise ValueError(f"report {report!r}: allowed are {', '.join(reports)}")
    return parameters, planned, report if len(planned) > 1 else planned[0].name


def results(study: str, changes: dict) -> Path:
    """The folder of a study's results, unless another one is given."""
    changed = [f"{name}={value}".replace("/", "_") for name, value in changes.items()]
    return RUNS / "-".join([Path(study).stem, *changed])


def run(study: str, changes: dict, place: Place, executor: Executor, at_once: int, force: bool = False) -> None:
    """Run what is not finished of a study, with some parameters changed, and report on it in its folder.

    Raises ValueError or OSError before anything is started where the study cannot run.
    Raises RuntimeError at the end, with the notebooks of the experiments that failed.
    """
    parameters, planned, report = plan(study, changes)
    with at_hand(place, lambda name: False) as folder:
        writable(folder)
        for file in left_behind(folder):
            file.unlink(missing_ok=True)
        (folder / "study.json").write_text(json.dumps({"study": study, "parameters": parameters}, indent=1))
    for experiment in planned:
        dataset_of(experiment)  # obtained once, before several processes want it
    failures = work_through(planned, place, executor, at_once, force, extensions_file(study, parameters))
    with at_hand(place) as folder:
        if not failures:
            collect(planned, folder, {"study": study, "parameters": parameters})
            notebook = folder / f"{report}.ipynb"
            (folder / "figures").mkdir(exist_ok=True)
            if len(planned) > 1:
                where = {"table": f"{folder}/table.csv", "figures": f"{folder}/figures/"}
                failures += filter(None, [papermill(NOTEBOOKS / notebook.name, notebook, where)])
            html, _ = HTMLExporter(exclude_input=True).from_filename(str(notebook))
            (folder / "report.html").write_text(html)
        write_index(Path(study).stem, states(planned, folder), folder)
    if failures:
        raise RuntimeError("\n".join(failures).replace(str(folder), str(place)))


def writable(folder: Path) -> None:
    """Make a folder for a run if there is none; raises OSError where nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f"probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"{folder} cannot be written ({error.strerror}): allowed are folders of your own") from error


def work_through(
    planned: list[Plan], place: Place, executor: Executor, at_once: int, force: bool, own_file: str = ""
) -> list[str]:
    """Train what is not finished and execute its notebooks, with a progress bar over epochs.

    own_file: the study's extension file, for the processes that train.
    Returns what failed.
    """
    with at_hand(place, is_table) as folder:
        if force:
            forget(cut(planned), folder)
        missing, untrained = unfinished(planned, folder)
    groups = [group for group in pieces(planned) if untrained & set(group.values())]
    groups.sort(key=lambda group: -sum(piece.networks * piece.n_seeds for piece in group.values()))  # the longest first
    jobs = deque(Job(list(group), learn, (list(group.values()), place, own_file)) for group in groups)
    awaited = {e: sum(e in group for group in groups) for e in missing}
    failures = []

    def finish_those_that_can():
        for e in [e for e, n in awaited.items() if n == 0]:
            jobs.appendleft(Job([e], finish, (e, missing[e], place, NOTEBOOKS / f"{e.notebook}.ipynb", own_file)))
            del awaited[e]

    with tqdm(total=sum(e.epochs for e in missing), unit=" epochs", disable=not missing) as bar:

        def show_progress():
            if isinstance(place, Path):  # elsewhere only what has ended can be seen
                bar.n = sum(epochs_done(missing, place).values())
            bar.refresh()

        finish_those_that_can()
        for job, trouble in as_they_end(jobs, executor, at_once, show_progress):
            if job.function is finish:
                failures += filter(None, [trouble])
                bar.write(f"{job.concerned[0].name}: {'failed' if trouble else 'done'}")
                bar.n += 0 if isinstance(place, Path) else job.concerned[0].epochs
                continue
            if trouble:
                bar.write(f"each is trained by itself, because together they could not be: {trouble}")
            for e in job.concerned:
                if e in awaited:
                    awaited[e] -= 1
            finish_those_that_can()
    return failures


def forget(its_pieces: dict[Plan, list[Plan]], folder: Path) -> None:
    """Make experiments and their pieces count as not finished: delete their JSON files."""
    for experiment, cuts in its_pieces.items():
        for file in [folder / experiment.name, *(folder / PIECES / piece.name for piece in cuts)]:
            file.with_suffix(".json").unlink(missing_ok=True)


def is_table(name: str) -> bool:
    """Whether a file among results belongs to a table."""
    return name.endswith((".csv", ".json"))


def learn(group: list[Plan], place: Place, own_file: str = "") -> str | None:
    """Train pieces of experiments as one, on one thread; returns why they could not be trained, or None.

    Raises ValueError where the study's extension file cannot be imported here.
    """
    torch.set_num_threads(1)
    load_extensions(own_file)
    try:
        with at_hand(place, lambda name: False) as folder:
            train(group, folder / PIECES)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def finish(experiment: Plan, its_pieces: list[Plan], place: Place, notebook: Path, own_file: str = "") -> str | None:
    """Join the pieces of an experiment and execute its notebook; returns what went wrong with that, or None.

    Where a piece could not be trained, the notebook trains the experiment by itself, and shows how it fails.
    Raises ValueError where the study's extension file cannot be imported here.
    """
    load_extensions(own_file)
    names = tuple(f"{PIECES}/{piece.name}." for piece in its_pieces)
    try:
        with at_hand(place, lambda name: name.startswith(names)) as folder:
            with suppress(OSError, ValueError):
                join(experiment, its_pieces, folder)
            parameters = experiment.arguments(folder) | {"extensions": own_file}
            trouble = papermill(notebook, folder / f"{experiment.name}.ipynb", parameters)
        return trouble and trouble.replace(str(folder), str(place))
    except Exception as error:
        return f"{place}/{experiment.name}.ipynb: {type(error).__name__}: {error}"


def collect(finished: list[Plan], folder: Path, metadata: dict) -> None:
    """Save one table of all experiments, table.csv, with what produced it in table.json."""
    part = folder / f"table.{platform.node()}.{os.getpid()}.part"
    pd.concat(load(e, folder) for e in finished).to_csv(part, index=False, float_format="%.6g")
    of_each = {e.name: json.loads(metadata_file(folder / f"{e.name}.csv").read_text()) for e in finished}
    seconds = {name: one["seconds"] for name, one in of_each.items()}
    save(part, folder / "table.csv", metadata | {"seconds": seconds})


def publish(study: str, name: str) -> Path:
    """Pack the table of a study that has run, with what produced it, as figures/data/NAME.csv.gz.

    Returns that file. Raises ValueError where the study has not been run to its end, or its table is damaged.
    """
    source, target = RUNS / study / "table.csv", PUBLISHED / f"{name}.csv.gz"
    if not source.exists():
        raise ValueError(f"study {study!r} has not been run to its end: make run STUDY={study}")
    read_verified(source)
    target.write_bytes(gzip.compress(source.read_bytes(), mtime=0))  # the same bytes whenever it is packed
    shutil.copy(metadata_file(source), metadata_file(target))
    return target
