"""Tune every arm of a study by the same budget, and write a study of the settings that validation picks.

The arms are the experiments of a study. All of them try the same configurations, on seeds that the study does not have.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from neuronsplit.analysis.files import read_results, write_bytes
from neuronsplit.experiments.experiment import Experiment
from neuronsplit.experiments.random_search import N_CONFIGURATIONS, configurations
from neuronsplit.names import CONTROLS
from neuronsplit.study import batches
from neuronsplit.study.grid import Study

SEEDS = range(1_000_000, 1_000_002)


def tuned_arms(study: Study, share: bool) -> dict[Experiment, Experiment]:
    """Return for each arm of a study the one that is tuned for it: itself.

    share: of arms that split and differ in their policy alone, the first is tuned for all of them.
    """
    split = [arm for arm in study.plan if share and arm.policy not in CONTROLS]
    first = {replace(arm, policy=Experiment.policy): arm for arm in reversed(split)}
    return {arm: first[replace(arm, policy=Experiment.policy)] if arm in split else arm for arm in study.plan}


def tuning_study(study: Study, share: bool = False) -> Study:
    """Return the study that tunes the arms of another. Raises ValueError where they cannot be tuned.

    share: as in `tuned_arms`.
    """
    if not all(isinstance(arm, Experiment) for arm in study.plan):
        raise ValueError(f"study {study.name!r} of all splits: allowed are studies of experiments")
    if any(not set(SEEDS).isdisjoint(of_arm) for of_arm in study.plan.values()):
        raise ValueError(f"seeds of {study.name!r}: allowed are those below {SEEDS[0]}, which are not used to tune")
    plan = batches.make_plan((one, SEEDS) for arm in tuned_arms(study, share).values() for one in configurations(arm))
    return study._replace(name=f"{study.name}-tuning", plan=plan)


def score(table: pd.DataFrame) -> float:
    """Return the mean over seeds of the lowest validation loss; infinite where a seed has none."""
    return table.groupby("seed")["val_loss"].min().fillna(np.inf).mean()


def best_configurations(study: Study, tables: batches.Tables, share: bool = False) -> dict[Experiment, Experiment]:
    """Return for each arm of a study the configuration with the best score.

    tables: of the tuning study. share: as in `tuned_arms`.
    Raises ValueError where a configuration was not trained.
    """
    best = {}
    for arm, tuned in tuned_arms(study, share).items():
        tried = configurations(tuned)
        if lacking := [one for one in tried if one.id not in tables]:
            raise ValueError(f"{len(lacking)} configurations of {arm.policy!r} are missing: run the same command again")
        best[arm] = replace(min(tried, key=lambda one: score(tables[one.id])), policy=arm.policy)
    return best


def tuned_file(study: Study, folder: Path) -> Path:
    """Return the file of the settings that are chosen for a study, in the folder of the tuning study."""
    return folder / f"{study.name}-tuned.yaml"


def write_tuned(study: Study, folder: Path, share: bool = False) -> Path:
    """Write the study of the settings that were chosen into `tuned_file`; returns this.

    share: as in `tuned_arms`.
    """
    best, file = best_configurations(study, read_results(folder)[0], share), tuned_file(study, folder)
    grids = [asdict(one) | seeds for arm, one in best.items() for seeds in _ranges(study.plan[arm])]
    top = {"extensions": study.extensions} if study.extensions else {}
    said = f"# Of {N_CONFIGURATIONS} settings of each arm of {study.name}, these have the lowest validation loss.\n"
    text = said + yaml.safe_dump(top | {"grids": grids}, sort_keys=False, default_flow_style=None, width=1000)
    write_bytes(text.encode(), file)
    return file


def _ranges(seeds: Iterable[int]) -> Iterator[dict[str, int]]:
    """Yield what a study file says of seeds, for each part of them without a gap."""
    for _, part in groupby(enumerate(sorted(seeds)), lambda numbered: numbered[1] - numbered[0]):
        numbers = [seed for _, seed in part]
        yield {"n_seeds": len(numbers), "first_seed": numbers[0]}
