"""Find out how far a study is, and change nothing."""

from pathlib import Path

from neuronsplit.study import progress, store
from neuronsplit.study.base import BaseExperiment
from neuronsplit.study.batches import Batch
from neuronsplit.study.grid import Study

STATES = "done", "running", "failed", "missing"


def statuses(study: Study, folder: Path) -> dict[BaseExperiment, str]:
    """Return the status of each experiment, which begins with one of STATES."""
    (tables, _), noted, found = store.read_finished(folder), progress.read(folder / store.UNITS).values(), {}
    for e, seeds in study.plan.items():
        left = [seed for part in Batch((e,), seeds).missing(tables) for seed in part.seeds]
        at_work = [unit for unit in noted if unit.running and e.id in unit.experiments]
        running = [f"running, epoch {unit.epoch} of {unit.epochs}" for unit in at_work]
        failed = [f"failed: {unit.errors[e.id]}" for unit in noted if e.id in unit.errors]
        missing = "missing" if len(left) == len(seeds) else f"missing, {len(left)} of {len(seeds)} seeds"
        found[e] = [missing, *failed, *running][-1] if left else "done"
    return found
