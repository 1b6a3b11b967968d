"""How far the units of a study are: what each notes beside its results, the lock that it holds, and a progress bar."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import NamedTuple

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from neuronsplit.study.batches import Batch

BAR = "{desc} {percentage:3.0f}% |{bar:20}| {elapsed}, {remaining} left"
DEADLY = "DeadKernelError", "KilledWorker"  # errors of notebooks that may have ended their own process
BAR_SECONDS, LOG_SECONDS = 0.5, 30  # between two states of the bar, and between two lines in a log file


class UnitProgress(NamedTuple):
    """What a unit of work has noted, and whether a process holds its lock."""

    experiments: list[str]  # their ids
    fraction: float = 0.0  # of the work that is done
    epoch: int = 0
    epochs: int = 0
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
    part = file_of(unit, folder).with_suffix(f".{os.getpid()}.part")
    with suppress(OSError):
        part.write_text(json.dumps(noted._asdict()), encoding="utf-8")
        os.replace(part, file_of(unit, folder))
    with suppress(OSError):
        part.unlink(missing_ok=True)


def note_failure(unit: Batch, folder: Path, failure: str) -> None:
    """Note that the notebook of a unit failed, unless the unit has noted which experiments did."""
    if not read(folder).get(unit.name, UnitProgress([])).errors:
        note(unit, folder, errors={e.id: failure for e in unit.experiments})


def read(folder: Path) -> dict[str, UnitProgress]:
    """Read the progress of the units in a folder by their names, the latest last. Other files are passed over."""
    found: dict[tuple[int, str], UnitProgress] = {}
    for file in folder.glob(".*.json"):
        with suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
            noted = UnitProgress(**json.loads(file.read_text(encoding="utf-8")))
            errors = {str(experiment): str(error) for experiment, error in noted.errors.items()}
            noted = noted._replace(experiments=list(noted.experiments), errors=errors, running=_is_locked(file))
            found[file.stat().st_mtime_ns, file.stem[1:]] = noted
    return {name: found[time, name] for time, name in sorted(found)}


def forget(unit: Batch, folder: Path) -> None:
    """Delete what a unit has noted, unless it runs."""
    if not _is_locked(file_of(unit, folder)):
        file_of(unit, folder).unlink(missing_ok=True)


def died(folder: Path) -> set[str]:
    """Return the ids of the experiments whose process died twice, in this run or an earlier one."""
    errors = [error for noted in read(folder).values() for error in noted.errors.items()]
    return {experiment for experiment, text in errors if any(f": {name}: " in text for name in DEADLY)}


def _is_locked(file: Path) -> bool:
    try:
        if file.with_suffix(".lock").exists():
            lock(file).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # in a folder that can only be read, or that has no locks
        pass
    return False


@contextmanager
def bar(units: list[Batch], folder: Path, describe: Callable[[], str]) -> Iterator[Callable[[Batch], None]]:
    """Show how far units are: a bar on a terminal, a widget in a notebook, or a line now and then in a log.

    describe: returns the text in front of the bar. Yields a function to be called with each unit that has ended.
    """
    in_log = not sys.stderr.isatty() and not any("notebook" in kind.__module__ for kind in tqdm.__mro__)
    seconds, ended, stop, begun = {unit.name: unit.seconds for unit in units}, set(), Event(), monotonic()
    with tqdm(total=sum(seconds.values()), bar_format=BAR, disable=in_log) as progress:

        def show() -> None:
            units_noted = {name: noted for name, noted in read(folder).items() if name in seconds}
            shares = {name: noted.fraction for name, noted in units_noted.items()} | dict.fromkeys(ended, 1.0)
            progress.n = min(progress.total, sum(seconds[name] * share for name, share in shares.items()))
            running = [noted for noted in units_noted.values() if noted.running and noted.epochs]
            epochs = [f", epoch {noted.epoch} of {noted.epochs}" for noted in running]
            text = describe() + "".join(epochs[:1])
            if in_log:
                numbers = progress.n, progress.total, monotonic() - begun
                print(tqdm.format_meter(*numbers, prefix=text, ascii=True, bar_format=BAR), file=sys.stderr, flush=True)
            else:
                progress.set_description_str(text)

        def keep_showing() -> None:
            while not stop.wait(LOG_SECONDS if in_log else BAR_SECONDS):
                show()

        (thread := Thread(target=keep_showing, daemon=True)).start()
        try:
            yield lambda unit: ended.add(unit.name)
        finally:
            stop.set()
            thread.join()
            progress.n = progress.total if len(ended) == len(units) else progress.n
