"""The files of experiments: tables, each with its metadata in a JSON file."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

import neuronsplit
from neuronsplit.analysis.tables import metadata_file, parse, read_table, read_verified
from neuronsplit.growing.how import GROWTHS
from neuronsplit.names import CONTROLS, ID_COLUMNS
from neuronsplit.study.experiment import RESULTS, Experiment, Plan, policy_names

FITTING, FEW_GROUPS = 40, 8  # the most networks that train as one; what counts as few groups: see pieces
PIECES = "pieces"  # a folder beside the tables of whole experiments
ROOT = Path(__file__).parents[2]


def obtain(experiment: Plan, folder: Path) -> pd.DataFrame:
    """Return the table of an experiment, which is read if the folder has it, and otherwise trained and saved there."""
    table = load(experiment, folder)
    if table is None:
        train([experiment], folder)
        table = load(experiment, folder)
    return table


def train(group: list[Plan], folder: Path) -> None:
    """Train experiments of one group of `together`, and save their tables in a folder.

    A table is written under another name while it trains, and renamed when it is complete. So a file with the right
    name is complete.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    parts = [part_file(e, folder, os.getpid()) for e in group]
    for part in parts:
        part.touch()
    for epoch, tables in enumerate(group[0].run(group)):
        for part, rows in zip(parts, tables):
            rows.to_csv(part, mode="a" if epoch else "w", header=not epoch, index=False, float_format="%.6g")
    seconds = round((time.perf_counter() - start) / len(group), 1)  # of the time that they took together
    for experiment, part in zip(group, parts):
        save(part, Path(folder) / f"{experiment.name}.csv", {"experiment": asdict(experiment), "seconds": seconds})


def together(experiments: list[Plan]) -> list[list[Plan]]:
    """Put experiments into groups that train as one: those that differ in the policy only, and others one by one."""
    groups: dict[Plan, list[Plan]] = {}
    for e in experiments:
        groups.setdefault(e if e.alone else replace(e, policy=Experiment.policy), []).append(e)
    return list(groups.values())


def pieces(planned: list[Plan]) -> list[dict[Plan, Plan]]:
    """Cut experiments into what trains as one: dicts from an experiment to a piece of it, which has some of its seeds.

    A piece has at most FITTING networks, or one seed: more do not fit into the cache and are slower. Where there are
    few groups of `together`, each is cut at least in two, so that there is work for two processes. The rounding of the
    results depends on the pieces. So pieces depend on the plan alone, and not on what is finished.
    """
    groups, found = together(planned), []
    for group in groups:
        fitting = -(-sum(e.networks * e.n_seeds for e in group) // FITTING)
        cuts = max(fitting, 2 if len(groups) < FEW_GROUPS else 1)
        for seeds in np.array_split(group[0].seeds, min(cuts, group[0].n_seeds)):
            found.append({e: replace(e, seed=int(seeds[0]), n_seeds=len(seeds)) for e in group})
    return found


def join(experiment: Plan, its_pieces: list[Plan], folder: Path) -> None:
    """Put the table of an experiment together from those of its pieces in folder/pieces, and save it in the folder."""
    files = [Path(folder) / PIECES / f"{piece.name}.csv" for piece in its_pieces]
    part = part_file(experiment, folder, os.getpid())
    texts, metadata = zip(*map(read_verified, files))
    if its_pieces == [experiment]:
        part.write_bytes(texts[0])
    else:
        table = pd.concat(map(parse, texts)).sort_values(experiment.by, kind="stable")
        table.to_csv(part, index=False, float_format="%.6g")
    seconds = round(sum(one["seconds"] for one in metadata), 1)
    save(part, Path(folder) / f"{experiment.name}.csv", {"experiment": asdict(experiment), "seconds": seconds})


def part_file(experiment: Plan, folder: Path, process: int | str) -> Path:
    """Where a process of this machine writes the table of an experiment while it trains."""
    return Path(folder) / f"{experiment.name}.{platform.node()}.{process}.part"


def load(experiment: Plan, folder: Path) -> pd.DataFrame | None:
    """The table of an experiment from a folder, or None; what is damaged or of another experiment is set aside."""
    try:
        text = whole(experiment, folder)
    except (ValueError, FileNotFoundError) as error:
        set_aside(Path(folder) / f"{experiment.name}.csv", error)
        return None
    return None if text is None else parse(text)


def whole(experiment: Plan, folder: Path) -> bytes | None:
    """The text of an experiment's table in a folder, or None where it is not finished.

    Raises ValueError or FileNotFoundError where it is damaged or of another experiment.
    """
    file = Path(folder) / f"{experiment.name}.csv"
    if not metadata_file(file).exists():
        return None
    text, metadata = read_verified(file)
    if metadata.get("experiment") != asdict(experiment):
        raise ValueError(f"{metadata_file(file)} is of another experiment")
    return text


def set_aside(file: Path, why: Exception) -> None:
    """Rename a table and its JSON file, so that they are neither read nor lost."""
    places = (file.with_name(f"{file.stem}.aside{n}") for n in count(1))
    place = next(place for place in places if not list(file.parent.glob(f"{place.name}.*")))
    for one in (file, metadata_file(file)):
        if one.exists():
            os.replace(one, place.with_name(place.name + one.suffix))
    warnings.warn(f"{why}; set aside as {place}.*", stacklevel=2)


def save(part: Path, file: Path, metadata: dict) -> None:
    """Give a complete table its name, and then write its metadata into a JSON file."""
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    os.replace(part, file)
    part.write_text(json.dumps(metadata | {"sha256": digest} | circumstances(), indent=1))
    os.replace(part, metadata_file(file))


def read_results(place: Path) -> tuple[pd.DataFrame, dict]:
    """Read saved results and their metadata: a table, or all experiments in a study's folder or in a .zip of it.

    The folder can have been moved, or merged from several.
    Raises ValueError where there is no experiment, or where one is damaged.
    """
    place = Path(place)
    if place.suffix == ".zip":
        with TemporaryDirectory() as folder:
            shutil.unpack_archive(place, folder)
            return read_results(Path(folder))
    if not place.is_dir():
        return read_table(place)
    files = (file for file in sorted(place.rglob("*-????????.json")) if PIECES not in file.relative_to(place).parts)
    found = {file.name: file for file in files}.values()  # each once, though in several folders
    if not found:
        raise ValueError(f"{place} holds no finished experiment: allowed are folders of a study that has run")
    tables, metadata = zip(*(read_table(file.with_suffix(".csv")) for file in found))
    _require_this_version(found, metadata)
    given = {field.name: {one["experiment"][field.name] for one in metadata} for field in fields(Experiment)}
    parameters = {name: values.pop() if len(values) == 1 else sorted(values) for name, values in given.items()}
    known = {name: n for n, name in enumerate(policy_names())}
    order = sorted(range(len(found)), key=lambda n: known.get(metadata[n]["experiment"]["policy"], len(known)))
    table = pd.concat([tables[n] for n in order], ignore_index=True)
    table = table[~_without_effect_cleared(table)[[*ID_COLUMNS, "seed", "epoch"]].duplicated()]  # fewer seeds, say
    return table.reset_index(drop=True), metadata[0] | {"parameters": parameters}


def _without_effect_cleared(table: pd.DataFrame) -> pd.DataFrame:
    """Clear the names that had no effect: growth and schedule of a control, and a policy that was not used."""
    control = table["policy"].isin(CONTROLS)
    no_parent = table["growth"].isin([name for name, growth in GROWTHS.items() if not growth.needs_parent])
    cleared = table[["growth", "schedule"]].mask(control, "")
    return table.assign(**cleared, policy=table["policy"].mask(no_parent & ~control, ""))


def _require_this_version(files: Iterable[Path], metadata: Iterable[dict]) -> None:
    names = {field.name for field in fields(Experiment)}
    for file, one in zip(files, metadata):
        if one.get("results") != RESULTS or set(one.get("experiment", {})) != names:
            raise ValueError(
                f"{file} is among files of another version or kind: move them away; allowed are experiments of "
                f"{version()}"
            )


def version() -> str:
    """What has to be the same for results to be the same: the versions of the package and of its results."""
    return f"{neuronsplit.__version__} (results {RESULTS})"


def circumstances() -> dict:
    """When, where and with which versions something ran; commit None without git or outside a checkout."""
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "results": RESULTS,
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version()} | {m.__name__: m.__version__ for m in (torch, np, pd)},
    }


@cache
def _commit() -> str | None:
    """Return the commit of this checkout at the first call in this process, with -dirty if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    if not shutil.which("git"):
        return None
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip() or None
