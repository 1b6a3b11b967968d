"""How far the units of a study are: what each notes next to its results, the lock that it holds, and a progress bar."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from neuronsplit.analysis.files import write_bytes
from neuronsplit.experiments.base import BaseExperiment
from neuronsplit.study.batches import START_SECONDS, Batch, Plan, Tables, missing

BAR = "{desc} {percentage:3.0f}% |{bar:20}| {elapsed}, {remaining} left"
BAR_SECONDS, LOG_SECONDS = 0.5, 30  # between two states of the bar, and between two lines in a log file
STATES = "done", "running", "failed", "missing"  # of an experiment


class UnitProgress(NamedTuple):
    """What a unit of work has noted, and whether a process holds its lock."""

    experiments: list[str]  # their ids
    fraction: float = 0.0  # of the work that is done
    at: str = "start"  # such as "epoch 3 of 20"
    errors: dict[str, str] = {}  # by the ids of the experiments that failed
    running: bool = False


def file_of(unit: Batch, folder: Path) -> Path:
    """Return the file in which a unit notes its progress."""
    return folder / f".{unit.name}.json"


def lock(file: Path) -> FileLock:
    """Return the lock of a unit, by its progress file. The system releases it when the process that holds it ends."""
    return FileLock(file.with_suffix(".lock"))


def note(unit: Batch, folder: Path, **progress: object) -> None:
    """Note the progress of a unit. A full disk, say, does not end its training."""
    noted = UnitProgress([e.id for e in unit.experiments], **progress)
    with suppress(OSError):
        write_bytes(json.dumps(noted._asdict()).encode(), file_of(unit, folder))


def note_failure(unit: Batch, folder: Path, failure: str) -> dict[str, str]:
    """Note that the notebook of a unit failed. Returns the errors of its experiments: those that it noted, if any."""
    errors = read(folder).get(unit.name, UnitProgress([])).errors or {e.id: failure for e in unit.experiments}
    note(unit, folder, errors=errors)
    return errors


def read(folder: Path) -> dict[str, UnitProgress]:
    """Read the progress of the units in a folder by their names, the latest last. Other files are passed over."""
    found: dict[tuple[int, str], UnitProgress] = {}
    for file in folder.glob(".*.json"):
        with suppress(OSError, ValueError, TypeError, RecursionError):
            noted = UnitProgress(**json.loads(file.read_text(encoding="utf-8")))
            checked = {"experiments": list(noted.experiments), "errors": dict(noted.errors)}
            found[file.stat().st_mtime_ns, file.stem[1:]] = noted._replace(**checked, running=_is_locked(file))
    return {name: found[time, name] for time, name in sorted(found)}


def _is_locked(file: Path) -> bool:
    try:
        if file.with_suffix(".lock").exists():
            lock(file).acquire(timeout=0).lock.release()
    except (OSError, NotImplementedError) as error:  # a folder may be one that can only be read, or that has no locks
        return isinstance(error, Timeout)
    return False


def states(plan: Plan, tables: Tables, folder: Path) -> dict[BaseExperiment, str]:
    """Return the state of each experiment, which begins with one of STATES, from tables and notes in a folder."""
    found, noted = dict.fromkeys(plan, "done"), read(folder).values()
    for e, seeds in missing(plan, tables).items():
        some = f", {len(seeds)} of {len(plan[e])} seeds" if len(seeds) < len(plan[e]) else ""
        failed = [f"failed: {unit.errors[e.id]}" for unit in noted if e.id in unit.errors]
        running = [f"running, {unit.at}" for unit in noted if unit.running and e.id in unit.experiments]
        found[e] = [f"missing{some}", *failed, *running][-1]
    return found


@contextmanager
def bar(units: list[Batch], folder: Path, describe: Callable[[], str]) -> Iterator[Callable[[str], None]]:
    """Show how far units are: a bar on a terminal, a widget in a notebook, or a line now and then in a log.

    describe: returns the text in front of the bar. Yields a function to be called with the name of each unit that ends.
    """
    in_log = not sys.stderr.isatty() and not any("notebook" in kind.__module__ for kind in tqdm.__mro__)
    hidden = {"file": io.StringIO(), "ascii": True} if in_log else {}
    seconds, ended, stop = {unit.name: START_SECONDS + unit.seconds for unit in units}, set(), Event()
    with tqdm(total=sum(seconds.values()), bar_format=BAR, **hidden) as progress:

        def keep_showing() -> None:
            while not stop.wait(LOG_SECONDS if in_log and progress.n else BAR_SECONDS):  # the first line comes early
                running = {name: noted for name, noted in read(folder).items() if noted.running and name in seconds}
                left = {name: (1 - noted.fraction) * (seconds[name] - START_SECONDS) for name, noted in running.items()}
                now = sum(seconds[name] - of_unit for name, of_unit in (left | dict.fromkeys(ended, 0)).items())
                progress.n = min(max(progress.n, now), progress.total)  # a unit has no note while it draws its figures
                progress.set_description_str(", ".join([describe(), *(noted.at for noted in running.values())][:2]))
                if in_log and progress.n:
                    print(progress, file=sys.stderr, flush=True)

        (thread := Thread(target=keep_showing, daemon=True)).start()
        try:
            yield ended.add
        finally:
            stop.set()
            thread.join()
            progress.n = min(sum(seconds[name] for name in ended), progress.total)  # the sums are rounded
