"""Execute notebooks with papermill, several at once with joblib: on threads of this machine, or on a Dask cluster.

Each notebook runs in a process of its own, its kernel, so that threads suffice here. A kernel that dies loses its
notebook only.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import joblib
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default

logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what goes wrong is returned

Job = tuple[Path, Path, dict]  # a notebook, where it goes when it has been executed, and its parameters


class RunningInterpreter(AsyncKernelManager):
    """A kernel of the interpreter that runs this, whatever kernels are on JUPYTER_PATH."""

    @default("kernel_spec_manager")
    def _only_the_native_kernel(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


# Quiet, and without the current folder on its path: a file there, such as torch.py, must not be what is imported. When
# it is shut down its files are written, and to free its memory would take seconds.
KERNEL = dict(kernel_name="python3", language="python", kernel_manager_class=RunningInterpreter, progress_bar=False)
KERNEL |= dict(shutdown_kernel="immediate", extra_arguments=["--log-level=CRITICAL", "--IPKernelApp.ignore_cwd=True"])


def execute(notebook: Path, out: Path, parameters: dict) -> str | None:
    """Execute a notebook into another; return what went wrong in one line, or None.

    A kernel that does not start or that dies is started once more. Kernels now and then want the same port, and one
    that was killed from outside leaves the same results so.
    """
    import papermill  # takes seconds, for which a finished study need not wait

    # papermill formats paths, so that {run} in a path would stand for a parameter.
    paths = [str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, out)]
    for may_start_again in (True, False):
        try:
            papermill.execute_notebook(*paths, parameters, **KERNEL)
            return None
        except Exception as error:
            if not (may_start_again and isinstance(error, RuntimeError)):
                return _describe(out, error)


def _describe(out: Path, error: Exception) -> str:
    """Return an error in one line, that of the notebook's own code if there is one."""
    name, text = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", error)
    return f"{out}: {name}: {text}".splitlines()[0]


def execute_all(jobs: list[Job], workers: int, scheduler: str = "") -> Iterator[tuple[int, str | None]]:
    """Execute notebooks, several at once; yield the number of each that has ended, and what went wrong.

    scheduler: the address of a Dask cluster that does it instead of this machine. Its workers share the folders, and
        may come later. A notebook of a lost worker is done again.
    Raises OSError where the scheduler cannot be reached. Raises ImportError where Dask is not installed.
    """
    with _connect(scheduler) if scheduler else nullcontext() as client:

        def execute_one(n: int) -> tuple[int, str | None]:
            try:
                return n, client.submit(execute, *jobs[n], pure=False).result() if client else execute(*jobs[n])
            except Exception as error:  # too many workers were lost with it, or the scheduler was
                return n, _describe(jobs[n][1], error)

        threads = len(jobs) if client else workers  # those of a cluster only wait
        # All is dispatched one by one: a unit takes a minute, and what has ended is to be seen at once.
        parallel = joblib.Parallel(threads, "threading", "generator_unordered", batch_size=1, pre_dispatch="all")
        yield from parallel(joblib.delayed(execute_one)(n) for n in range(len(jobs)))


def _connect(scheduler: str) -> AbstractContextManager:
    """Return a client of a Dask cluster."""
    from dask.distributed import Client

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # after the import, which sets it too
    try:
        return Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise OSError(f"scheduler {scheduler} cannot be reached ({type(error).__name__})") from error
