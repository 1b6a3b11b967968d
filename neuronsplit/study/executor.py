"""Execute notebooks with papermill, several at once with joblib: on threads of this machine, or on a Dask cluster.

Each notebook runs in a process of its own, its kernel, so that threads suffice here. A kernel that dies loses its
notebook only.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import joblib
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from papermill import PapermillExecutionError, execute_notebook
from traitlets import default

logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what goes wrong is returned

Job = tuple[Path, Path, dict]  # a notebook, where it goes when it has been executed, and its parameters


# Quiet, and without the current folder on its path: a file there, such as torch.py, must not be what is imported.
ARGUMENTS = ["--log-level=CRITICAL", "--IPKernelApp.ignore_cwd=True"]


class RunningInterpreter(AsyncKernelManager):
    """A kernel of the interpreter that runs this, whatever kernels are on JUPYTER_PATH."""

    @default("kernel_spec_manager")
    def _only_the_native_kernel(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


def execute(notebook: Path, out: Path, parameters: dict) -> str | None:
    """Execute a notebook into another; return what went wrong in one line, or None.

    A kernel that does not start or that dies is started once more. Kernels now and then want the same port, and one
    that was killed from outside leaves the same results so.
    """
    for last_time in (False, True):
        try:
            # papermill formats paths, so that {run} in a path would stand for a parameter.
            paths = [str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, out)]
            execute_notebook(
                *paths, parameters, kernel_name="python3", language="python", kernel_manager_class=RunningInterpreter,
                extra_arguments=ARGUMENTS, progress_bar=False,
            )  # fmt: skip
            return None
        except PapermillExecutionError as error:
            return f"{out}: {error.ename}: {error.evalue}".splitlines()[0]
        except Exception as error:
            if last_time or not isinstance(error, RuntimeError):
                return f"{out}: {type(error).__name__}: {error}".splitlines()[0]


def execute_all(jobs: list[Job], workers: int, scheduler: str = "") -> Iterator[tuple[int, str | None]]:
    """Execute notebooks, several at once; yield the number of each that has ended, and what went wrong.

    scheduler: the address of a Dask cluster that does it instead of this machine. Its workers share the folders.
    Raises OSError where the scheduler cannot be reached. Raises ValueError where Dask is not installed.
    """
    if scheduler:
        yield from _execute_on_cluster(jobs, scheduler)
    else:
        # All is dispatched one by one: a unit takes a minute, and what has ended is to be seen at once.
        parallel = joblib.Parallel(workers, "threading", "generator_unordered", batch_size=1, pre_dispatch="all")
        yield from parallel(joblib.delayed(_numbered)(n, job) for n, job in enumerate(jobs))


def _numbered(n: int, job: Job) -> tuple[int, str | None]:
    return n, execute(*job)


def _execute_on_cluster(jobs: list[Job], scheduler: str) -> Iterator[tuple[int, str | None]]:
    """Execute notebooks on the workers that a cluster has, or will have. A notebook of a lost worker is done again."""
    try:
        from dask.distributed import Client, as_completed
    except ImportError as error:
        raise ValueError("scheduler: allowed where Dask is installed (pip install 'neuronsplit[cluster]')") from error
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what goes wrong is returned
    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise OSError(f"scheduler {scheduler} cannot be reached ({type(error).__name__})") from error
    with client:
        numbers = {client.submit(execute, *job, pure=False): n for n, job in enumerate(jobs)}
        for future in as_completed(numbers):
            n = numbers[future]
            try:
                yield n, future.result()
            except Exception as error:  # too many workers were lost with it, or the scheduler was
                yield n, f"{jobs[n][1]}: {type(error).__name__}: {error}".splitlines()[0]
