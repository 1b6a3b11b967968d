"""When, where and with which versions something ran, for the provenance of a table."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache

from neuronsplit import __version__
from neuronsplit.locations import ROOT
from neuronsplit.names import RESULTS_VERSION


def circumstances() -> dict:
    """When, where and with which versions something ran; the commit is None without git or outside a checkout."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "pandas", "pyarrow")}
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "results": RESULTS_VERSION,
        "machine": f"{platform.machine()}{_cpu_capability()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "neuronsplit": __version__} | versions,
    }


@cache
def _commit() -> str | None:
    """Return the commit of this checkout at the first call in this process, with -dirty if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    if not shutil.which("git") or not (ROOT / ".git").exists():
        return None
    with suppress(OSError):
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip() or None


def _cpu_capability() -> str:
    """Return what torch says of the processor, such as " AVX512", if it has been imported."""
    torch = sys.modules.get("torch")
    return f" {torch.backends.cpu.get_cpu_capability()}" if torch else ""
