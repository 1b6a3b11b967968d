"""Notebooks executed by papermill, one after the other, in one kernel of this process."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from queue import Empty
from subprocess import DEVNULL

from jupyter_client import BlockingKernelClient, KernelManager
from papermill import PapermillExecutionError, execute_notebook

# What every notebook imports stays imported. It is frozen, because each %reset ends with a garbage collection.
WARM = """
import gc, neuronsplit.analysis.stats, neuronsplit.plots.curves, neuronsplit.study.store
gc.collect()
gc.freeze()
"""


def papermill(notebook: Path, out: Path, parameters: dict) -> str | None:
    """Execute a notebook into another with papermill.

    Returns what went wrong, or None. Where the kernel itself fails, another one tries once more.
    """
    part = out.with_suffix(f".{platform.node()}.{os.getpid()}.ipynb")  # renamed when whole
    for last in (False, True):
        try:
            with empty_kernel() as kernel:
                execute_notebook(
                    notebook, part, parameters, progress_bar=False, request_save_on_cell_execute=False, km=kernel
                )
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


class Client(BlockingKernelClient):
    """A client of a kernel that has already answered another one."""

    def wait_for_ready(self, timeout: float | None = None) -> None:
        """Wait until the kernel is heard, without the 0.2 seconds of silence that Jupyter's own client waits for.

        Messages that were sent before are recognised by their headers, and skipped.
        """
        while True:
            self.kernel_info(reply=True, timeout=timeout or 60)
            with suppress(Empty):
                self.get_iopub_msg(timeout=0.2)
                return


class Kernel(KernelManager):
    """A kernel that knows its clients, because papermill leaves those open that it makes."""

    client_class = "neuronsplit.study.kernel.Client"

    def client(self, **options):
        self.clients = [*getattr(self, "clients", []), super().client(**options)]
        return self.clients[-1]


@cache
def own_kernel() -> Kernel:
    """The kernel of this process, for all of its notebooks: most of them take less time than the start of a kernel."""
    kernel = Kernel(kernel_name="python3")
    kernel.start_kernel(stderr=DEVNULL)  # what cells print there is kept in the notebook all the same
    Finalize(kernel, kernel.shutdown_kernel, kwargs={"now": True}, exitpriority=1)
    try:
        say(kernel, WARM)
    except BaseException:
        kernel.shutdown_kernel(now=True)
        raise
    return kernel


def say(kernel: Kernel, code: str) -> None:
    """Run some code in a kernel, and wait for the answer."""
    client = kernel.client()
    client.start_channels()
    client.execute(code, silent=True, reply=True, timeout=60)


@contextmanager
def empty_kernel() -> Iterator[Kernel]:
    """The kernel of this process, without the names that the last notebook left in it."""
    kernel = own_kernel()
    try:
        say(kernel, "%reset -f")
        yield kernel
    finally:
        while kernel.clients:
            kernel.clients.pop().stop_channels()
