"""A study as a batch: every experiment through papermill, then the comparison, as notebooks and as a report."""

import os
import platform
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from multiprocessing.util import Finalize
from pathlib import Path
from subprocess import DEVNULL
from threading import Thread

import pandas as pd
import psutil
import torch
from jupyter_client import KernelManager
from nbconvert import HTMLExporter
from papermill import PapermillExecutionError, execute_notebook
from tqdm import tqdm

from neuronsplit.index import outputs, write_index
from neuronsplit.studies import MOST, experiments, read_study
from neuronsplit.study import (
    ROOT,
    Experiment,
    about_file,
    dataset_of,
    load,
    part_file,
    read,
    read_table,
    save,
    together,
    train,
    version,
)  # fmt: skip

NOTEBOOKS = ROOT / "notebooks"
RUNS = ROOT / "runs"
PUBLISHED = ROOT / "figures" / "data"
TOGETHER = 4  # experiments at most that train as one: more leave the cache, and are slower


def plan(study: str, changes: dict) -> tuple[dict, list[Experiment], str]:
    """A study's parameters, with some changed, its experiments and the notebook that reports on them.

    Raises ValueError or OSError where it cannot run.
    """
    parameters = read_study(study) | changes
    report = parameters.pop("report", "04_comparison")
    planned = experiments(parameters)
    for name in changes:
        if any(name in block for block in [*parameters.get("each", []), parameters.get("zip", {})]):
            raise ValueError(f"parameter {name!r} is set in the study's own `each` or `zip`: change it in the file")
    reports = sorted(file.stem for file in NOTEBOOKS.glob("*.ipynb"))
    if len(planned) > 1 and report not in reports:
        raise ValueError(f"report {report!r}: allowed are {', '.join(reports)}")
    return parameters, planned, report if len(planned) > 1 else planned[0].name


def results(study: str, changes: dict) -> Path:
    """The folder of a study's results, unless told otherwise."""
    return RUNS / "-".join([Path(study).stem, *(f"{name}={value}" for name, value in changes.items())])


def state(experiment: Experiment, folder: Path) -> str:
    """How far an experiment is: done, damaged or failed and why, missing, or running and how far; changes nothing."""
    try:
        if read(experiment, folder) is not None:
            return "done"
    except (ValueError, FileNotFoundError) as error:
        return f"damaged: {error}"
    parts = [part for part in folder.glob(part_file(experiment, folder, "*").name) if alive(part)]
    if parts:
        epochs = parts[0].read_text().count("\n") // experiment.repeats
        return f"running, epoch {epochs} of {experiment.epochs}"
    failure = reason(folder / f"{experiment.name}.ipynb")
    return f"failed: {failure}" if failure else "missing"


def alive(part: Path) -> bool:
    """Whether the process of this machine that writes this file, NAME.MACHINE.PROCESS.part or .ipynb, still runs."""
    return psutil.pid_exists(int(part.name.split(".")[-2]))


def reason(notebook: Path) -> str | None:
    """The first line of the first error in an executed notebook, or None."""
    errors = (o for o in outputs(notebook) if o.output_type == "error")
    return next((f"{o.ename}: {o.evalue}".splitlines()[0] for o in errors), None)


def run(study: str, changes: dict, folder: Path, executor: Executor, at_once: int, force: bool = False) -> None:
    """Run what is not finished of a study, with parameters changed, and report on it in its folder.

    Raises ValueError or OSError before anything is started where the study cannot run, and RuntimeError, with the
    notebooks of the experiments that failed, at the end.
    """
    parameters, planned, report = plan(study, changes)
    writable(folder)
    for left in folder.glob(f"*.{platform.node()}.[0-9]*.*"):
        if not alive(left):
            left.unlink(missing_ok=True)  # by a process that was killed
    for experiment in planned:
        dataset_of(experiment)  # obtained once, before several processes want it
    failures = work_through(planned, folder, executor, at_once, force)
    if not failures:
        collect(planned, folder, {"study": study, "parameters": parameters})
        notebook = folder / f"{report}.ipynb"
        if len(planned) > 1:
            where = {"table": f"{folder}/table.csv", "figures": f"{folder}/figures/"}
            failures += filter(None, [papermill(NOTEBOOKS / notebook.name, notebook, where)])
        html, _ = HTMLExporter(exclude_input=True).from_filename(str(notebook))
        (folder / "report.html").write_text(html)
    write_index(Path(study).stem, {e: state(e, folder) for e in planned}, folder)
    if failures:
        raise RuntimeError("\n".join(failures))


def writable(folder: Path) -> None:
    """Make a folder for a run where there is none; raises OSError where nothing can be written into it."""
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        probe = folder / f"probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"{folder} cannot be written ({error.strerror}): allowed are folders of your own") from error


@contextmanager
def local(workers: int) -> Iterator[tuple[Executor, int]]:
    """So many processes of this machine, and how many jobs to give them at a time."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's switch for Linux's huge pages
    with ProcessPoolExecutor(workers, get_context("spawn"), end_with_parent) as pool:
        yield pool, workers  # no more: what such a pool has queued it starts also after a Ctrl-C


@contextmanager
def cluster(scheduler: str) -> Iterator[tuple[Executor, int]]:
    """The workers of a Dask cluster, which share this machine's folders, and how many jobs to give them at a time.

    Raises OSError where it cannot be reached, ValueError where Dask is not installed or a worker has another version.
    """
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise ValueError("scheduler: allowed where Dask is installed (pip install 'neuronsplit[cluster]')") from error
    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise OSError(f"scheduler {scheduler} cannot be reached ({type(error).__name__})") from error
    with client:
        client.wait_for_workers(1, timeout=60)
        for worker, theirs in client.run(version).items():
            if theirs != version():
                raise ValueError(f"worker {worker} has neuronsplit {theirs}: allowed is {version()}, as here")
        yield client.get_executor(pure=False, retries=3), MOST


def end_with_parent() -> None:
    """End this process when the one that started it has ended, however that did."""

    def watch():
        wait_for([parent_process().sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def work_through(planned: list[Experiment], folder: Path, executor: Executor, at_once: int, force: bool) -> list[str]:
    """Train what is not finished and execute its notebooks, with a progress bar over epochs; returns what failed.

    What trains as one is decided by the plan alone, so that a result does not depend on what was there before.
    """
    missing = [e for e in planned if force or load(e, folder) is None]
    parts = [group[i : i + TOGETHER] for group in together(planned) for i in range(0, len(group), TOGETHER)]
    waiting = deque(part for part in sorted(parts, key=len, reverse=True) if set(part) & set(missing))
    running: dict[Future, list[Experiment]] = {}
    failures = []
    with tqdm(total=sum(e.epochs for e in missing), unit=" epochs", disable=not missing) as bar:
        while waiting or running:
            while waiting and len(running) < at_once:
                wanted = [e for e in waiting[0] if e in missing]
                arguments = (waiting.popleft(), wanted, folder, NOTEBOOKS / "03_experiment.ipynb")
                running[executor.submit(job, *arguments)] = wanted
            done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                if isinstance(future.exception(), BrokenProcessPool):
                    names = ", ".join(e.name for part in running.values() for e in part)
                    raise RuntimeError(f"a process was killed while these ran: {names}; run again") from None
                trouble, failed = future.result()
                failures += filter(None, failed.values())
                if trouble:
                    bar.write(f"each trained by itself, for together they could not: {trouble}")
                for e in running.pop(future):
                    bar.write(f"{e.name}: {'failed' if failed[e.name] else 'done'}")
            bar.n = sum(epochs_done(experiment, folder) for experiment in missing)
            bar.refresh()
    return failures


def job(part: list[Experiment], wanted: list[Experiment], folder: Path, notebook: Path) -> tuple[str, dict]:
    """Train experiments as one, save those that are wanted and execute their notebooks, on one thread.

    Returns why they could not be trained, or "", and what went wrong with each one's notebook, or None, by name: where
    training fails, each notebook tries by itself, and shows how it fails.
    """
    torch.set_num_threads(1)
    trouble = ""
    try:
        train(part, folder, wanted)
    except Exception as error:
        trouble = f"{type(error).__name__}: {error}"
    arguments = {e.name: asdict(e) | {"folder": str(folder)} for e in wanted}
    return trouble, {name: papermill(notebook, folder / f"{name}.ipynb", values) for name, values in arguments.items()}


def epochs_done(experiment: Experiment, folder: Path) -> int:
    """How far an experiment is, read off the table that it writes as it trains."""
    if about_file(folder / f"{experiment.name}.csv").exists():
        return experiment.epochs
    parts = folder.glob(part_file(experiment, folder, "*").name)
    newest = max(parts, key=lambda part: part.stat().st_mtime, default=None)
    return 0 if newest is None else newest.read_text().count("\n") // experiment.repeats


def papermill(notebook: Path, out: Path, parameters: dict) -> str | None:
    """Execute a notebook into another with papermill; returns what went wrong, or None.

    Where the kernel itself fails, another one tries once more.
    """
    part = out.with_suffix(f".{platform.node()}.{os.getpid()}.ipynb")  # renamed when whole
    for last in (False, True):
        try:
            with empty_kernel() as kernel:
                execute_notebook(notebook, part, parameters, progress_bar=False, km=kernel)
            os.replace(part, out)
            return None
        except PapermillExecutionError as error:
            os.replace(part, out)
            return f"{out}: {error.ename}: {error.evalue}".splitlines()[0]
        except Exception as error:
            own_kernel.cache_clear()
            part.unlink(missing_ok=True)
            if last:
                return f"{out}: {error}"


class Kernel(KernelManager):
    """A kernel that knows its clients, for those that papermill makes are left open."""

    def client(self, **options):
        self.clients = [*getattr(self, "clients", []), super().client(**options)]
        return self.clients[-1]


@cache
def own_kernel() -> Kernel:
    """This process's kernel, which executes its notebooks one after the other: a start takes longer than most do."""
    kernel = Kernel(kernel_name="python3")
    kernel.start_kernel(stderr=DEVNULL)  # what cells print there is kept in the notebook all the same
    Finalize(kernel, kernel.shutdown_kernel, kwargs={"now": True}, exitpriority=1)
    return kernel


@contextmanager
def empty_kernel() -> Iterator[Kernel]:
    """The kernel of this process, without the names that the notebook before has left in it."""
    kernel = own_kernel()
    client = kernel.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        client.execute("%reset -f", silent=True, reply=True, timeout=60)
        yield kernel
    finally:
        while kernel.clients:
            kernel.clients.pop().stop_channels()


def collect(finished: list[Experiment], folder: Path, about: dict) -> None:
    """One table of all experiments, table.csv, with what produced it in table.json."""
    part = folder / f"table.{platform.node()}.{os.getpid()}.part"
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
