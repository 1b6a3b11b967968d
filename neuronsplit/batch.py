"""A study as a batch: every experiment through papermill, then the comparison, as notebooks and as a report."""

import math
import os
import shutil
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, fields
from functools import cache
from itertools import product
from multiprocessing import get_context
from multiprocessing.util import Finalize
from pathlib import Path
from subprocess import DEVNULL

import pandas as pd
import torch
import yaml
from jupyter_client import KernelManager
from nbconvert import HTMLExporter
from papermill import PapermillExecutionError, execute_notebook
from tqdm import tqdm

from neuronsplit.study import ROOT, Experiment, about_file, dataset_of, load, read_table, save, together, train

NOTEBOOKS = ROOT / "notebooks"
STUDIES = NOTEBOOKS / "studies"
RUNS = ROOT / "runs"
PUBLISHED = ROOT / "figures" / "data"


def read_study(name: str) -> dict:
    """The parameters of a study: notebooks/studies/NAME.yaml. Raises ValueError where it is none.

    They are those of `Experiment`, each a value or a list, `each` (see experiments) and `report`, the notebook that
    reports on the study's table (04_comparison unless told otherwise).
    """
    file = STUDIES / f"{name}.yaml"
    if not file.is_file():
        raise ValueError(f"study {name!r}: allowed are {', '.join(sorted(f.stem for f in STUDIES.glob('*.yaml')))}")
    try:
        parameters = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(parameters, dict):
        raise ValueError(f"{file} holds {type(parameters).__name__}: allowed are lines of 'parameter: value'")
    return number_or_text(parameters)


def number_or_text(value: object) -> object:
    """What a written value means, as papermill takes it on its command line: 1e-3 is a number (YAML says a text)."""
    if isinstance(value, dict):
        return {name: number_or_text(one) for name, one in value.items()}
    if isinstance(value, list):
        return [number_or_text(one) for one in value]
    for kind in (int, float):
        try:
            return kind(value) if isinstance(value, str) else value
        except ValueError:
            continue
    return value


def experiments(parameters: dict) -> list[Experiment]:
    """The experiments of a study, each once: every combination of the parameters that are lists.

    `each`, a list of further parameters, stands for as many studies in one: the rest with each of them.
    Raises ValueError for a parameter that is none, or an empty list.
    """
    blocks = parameters.get("each", [{}])
    common = {name: value for name, value in parameters.items() if name != "each"}
    if not (isinstance(blocks, list) and blocks and all(isinstance(block, dict) for block in blocks)):
        raise ValueError(f"each {blocks!r}: allowed are lists of parameters")
    return list(dict.fromkeys(e for block in blocks for e in _combinations(common | block)))


def _combinations(parameters: dict) -> list[Experiment]:
    allowed = [field.name for field in fields(Experiment)]
    for name, value in parameters.items():
        if name not in allowed:
            raise ValueError(f"parameter {name!r}: allowed are {', '.join(allowed)}")
        if value == []:
            raise ValueError(f"{name} []: allowed are one value or more")
    lists = [value if isinstance(value, list) else [value] for value in parameters.values()]
    return [Experiment(**dict(zip(parameters, values))) for values in product(*lists)]


def run(study: str, changes: dict, workers: int | None = None) -> Path:
    """Run what is not finished of a study, with parameters changed, and report on it; returns its folder.

    Raises ValueError or OSError before anything is started where the study cannot run, and RuntimeError, with the
    notebooks of the experiments that failed, at the end.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers {workers}: allowed are whole numbers from 1")
    parameters = read_study(study) | changes
    for name in changes:
        if any(name in block for block in parameters.get("each", [])):
            raise ValueError(f"parameter {name!r} is set in the study's own `each`: change it in the file")
    report = parameters.pop("report", "04_comparison")
    planned = experiments(parameters)
    reports = sorted(file.stem for file in NOTEBOOKS.glob("*.ipynb"))
    if len(planned) > 1 and report not in reports:
        raise ValueError(f"report {report!r}: allowed are {', '.join(reports)}")
    folder = writable(RUNS / "-".join([study, *(f"{name}={value}" for name, value in changes.items())]))
    missing = [experiment for experiment in planned if load(experiment, folder) is None]
    dataset_of(planned[0])  # obtained once, before several kernels want it
    work_through(missing, folder, workers or os.cpu_count())
    collect(planned, folder, {"study": study, "parameters": parameters})
    notebook = folder / f"{planned[0].name}.ipynb"
    if len(planned) > 1:
        notebook = folder / f"{report}.ipynb"
        where = {"table": f"{folder}/table.csv", "figures": f"{folder}/figures/"}
        if failure := papermill(NOTEBOOKS / notebook.name, notebook, where):
            raise RuntimeError(failure)
    html, _ = HTMLExporter(exclude_input=True).from_filename(str(notebook))
    (folder / "report.html").write_text(html)
    return folder


def writable(folder: Path) -> Path:
    """A folder for a run, made where there is none; raises OSError where nothing can be written into it."""
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        (folder / "probe").touch()
        (folder / "probe").unlink()
    except OSError as error:
        raise OSError(f"{folder} cannot be written ({error.strerror}): allowed are folders of your own") from error
    return folder


def work_through(missing: list[Experiment], folder: Path, workers: int) -> None:
    """Every missing experiment, then its notebook, so many processes at once, with a progress bar over the epochs."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's switch for huge pages (Linux): trains 4 % faster
    bar = tqdm(total=sum(e.epochs for e in missing), unit=" epochs", disable=not missing)
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool, bar:
        training = {pool.submit(train, group, folder): group for group in shared_out(missing, workers)}
        notebooks: dict[Future, Experiment] = {}
        failures = []
        try:
            while training or notebooks:
                done, _ = wait([*training, *notebooks], timeout=0.5, return_when=FIRST_COMPLETED)
                for job in done & set(training):
                    for e in training.pop(job):  # its notebook tries again where training failed, and shows how
                        arguments = (NOTEBOOKS / "03_experiment.ipynb", folder / f"{e.name}.ipynb")
                        notebooks[pool.submit(papermill, *arguments, asdict(e) | {"folder": str(folder)})] = e
                for job in done & set(notebooks):
                    failures += [job.result()] if job.result() else []
                    bar.write(f"{notebooks.pop(job).name}: {'failed' if job.result() else 'done'}")
                bar.n = sum(epochs_done(experiment, folder) for experiment in missing)
                bar.refresh()
        finally:
            pool.shutdown(cancel_futures=True)  # on Ctrl-C start no more
    if failures:
        raise RuntimeError("\n".join(failures))


def shared_out(missing: list[Experiment], workers: int) -> list[list[Experiment]]:
    """Experiments as jobs: those that train as one, in equal parts that give every worker some, the largest first."""
    most = math.ceil(len(missing) / workers)
    parts = [group[i : i + most] for group in together(missing) for i in range(0, len(group), most)]
    return sorted(parts, key=len, reverse=True)


def epochs_done(experiment: Experiment, folder: Path) -> int:
    """How far an experiment is, read off the table that it writes as it trains."""
    if about_file(folder / f"{experiment.name}.csv").exists():
        return experiment.epochs
    parts = folder.glob(f"{experiment.name}.*.part")
    newest = max(parts, key=lambda part: part.stat().st_mtime, default=None)
    return 0 if newest is None else newest.read_text().count("\n") // experiment.repeats


def papermill(notebook: Path, out: Path, parameters: dict) -> str | None:
    """Execute a notebook into another with papermill; returns what went wrong, or None.

    Where the kernel itself fails, another one tries once more.
    """
    for last in (False, True):
        try:
            execute_notebook(notebook, out, parameters, progress_bar=False, km=empty_kernel())
            return None
        except PapermillExecutionError as error:
            return f"{out}: {error.ename}: {error.evalue}".splitlines()[0]
        except Exception as error:
            kernel.cache_clear()
            if last:
                return f"{out}: {error}"


@cache
def kernel() -> KernelManager:
    """This process's kernel, which executes its notebooks one after the other: a start takes longer than most do."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(stderr=DEVNULL)  # what cells print there is kept in the notebook all the same
    Finalize(manager, manager.shutdown_kernel, kwargs={"now": True}, exitpriority=1)
    return manager


def empty_kernel() -> KernelManager:
    """The kernel of this process, without the names that the notebook before has left in it."""
    client = kernel().blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    client.execute("%reset -f", silent=True, reply=True, timeout=60)
    client.stop_channels()
    return kernel()


def collect(finished: list[Experiment], folder: Path, about: dict) -> None:
    """One table of all experiments, table.csv, with what produced it in table.json."""
    part = folder / "table.part"
    pd.concat(load(e, folder) for e in finished).to_csv(part, index=False, float_format="%.6g")
    seconds = {e.name: read_table(folder / f"{e.name}.csv")[1]["seconds"] for e in finished}
    save(part, folder / "table.csv", about | {"seconds": seconds})


def publish(study: str, name: str) -> Path:
    """Copy the table of a study that has run, with what produced it, to figures/data/NAME.csv; returns that file."""
    source, target = RUNS / study / "table.csv", PUBLISHED / f"{name}.csv"
    if not source.exists():
        raise ValueError(f"study {study!r} has not been run to its end: make run STUDY={study}")
    read_table(source)
    shutil.copy(source, target)
    shutil.copy(about_file(source), about_file(target))
    return target
