"""Where jobs run: in processes on this machine, or on a Dask cluster."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from threading import Thread
from typing import NamedTuple

from neuronsplit.study.experiment import Plan
from neuronsplit.study.grid import MOST
from neuronsplit.study.store import version


class Job(NamedTuple):
    """A function call for an executor, and the experiments that it concerns."""

    concerned: list[Plan]
    function: Callable[..., str | None]
    arguments: tuple


def as_they_end(
    jobs: deque[Job], executor: Executor, at_once: int, meanwhile: Callable[[], None]
) -> Iterator[tuple[Job, str | None]]:
    """Run jobs, at most `at_once` at a time; yield each that has ended, with what it returned.

    Jobs can be added while others run. The function `meanwhile` is called now and then.
    """
    running: dict[Future, Job] = {}
    ended = cost = 0.0  # of the last call of meanwhile, which may take a twentieth of the time at most
    while jobs or running:
        while jobs and len(running) < at_once:
            job = jobs.popleft()
            running[executor.submit(job.function, *job.arguments)] = job
        begun = time.monotonic()
        if begun > ended + 20 * cost:
            meanwhile()
            ended = time.monotonic()
            cost = ended - begun
        done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
        for future in done:
            if isinstance(future.exception(), BrokenProcessPool):
                names = sorted({e.name for job in running.values() for e in job.concerned})
                raise RuntimeError(f"a process was killed while these ran: {', '.join(names)}; run again") from None
            yield running.pop(future), future.result()
    meanwhile()


@contextmanager
def local(workers: int) -> Iterator[tuple[Executor, int]]:
    """Processes on this machine, and the number of jobs to give them at a time."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's switch for Linux's huge pages
    with ProcessPoolExecutor(workers, get_context("spawn"), end_with_parent) as pool:
        yield pool, workers  # no more: such a pool starts what it has queued even after a Ctrl-C


@contextmanager
def cluster(scheduler: str) -> Iterator[tuple[Executor, int]]:
    """The workers of a Dask cluster, and the number of jobs to give them at a time.

    Workers share the folders of this machine, unless results are at an address. An extension file is read by each
    worker from the same path.
    Raises OSError where the scheduler cannot be reached.
    Raises ValueError where Dask is not installed, or a worker has another version or several threads.
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
        for worker, threads in client.nthreads().items():
            if threads > 1:
                raise ValueError(
                    f"worker {worker} has {threads} threads: allowed is 1 (--nthreads 1), and more workers"
                )
        yield client.get_executor(pure=False, retries=3), MOST


def end_with_parent() -> None:
    """End this process when the one that started it has ended for any reason."""

    def watch():
        wait_for([parent_process().sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()
