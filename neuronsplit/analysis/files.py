"""Tables as files: Parquet with what produced it inside, plain CSV, and the folders of studies.

A study's folder holds Parquet files of experiments, which `read_table` puts together.
"""

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pandas as pd
import pyarrow as pa

from neuronsplit.analysis.formats import from_csv, from_parquet, to_parquet
from neuronsplit.checks import does_not_exist
from neuronsplit.names import CONTROLS, EXPERIMENT, GROWTH_COLUMNS, ID_COLUMNS, NETWORK_KEYS, RESULTS_VERSION

Parsed = TypeVar("Parsed")
_FIELDS = dict.fromkeys([*ID_COLUMNS, *NETWORK_KEYS[:-2]])  # of experiments, apart from seed and horizon
_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile, pa.ArrowException)
_RENAMED = {  # columns of version 0.1
    "rule": "growth", "still": "epochs", "grown": "prior_splits", "age": "epochs_before", "kind": "branch_type",
    "loss_a": "loss_shuffle_0", "loss_b": "loss_shuffle_1", "loss_after_removal": "ablation_loss",
    "fan_in": "incoming_norm", "fan_out": "outgoing_norm", "nearest": "max_correlation",
    "incoming_gradient": "incoming_gradient_norm", "outgoing_gradient": "outgoing_gradient_norm",
    "since_split": "epochs_since_split", "differ": "firing_disagreement", "rank": "effective_rank",
}  # fmt: skip


def write_table(table: pd.DataFrame, file: Path | str, provenance: dict) -> None:
    """Write a table as Parquet with what produced it, under another name that is then changed to the right one.

    Every number keeps all its digits. The index is not written.
    Raises OSError where the file cannot be written. A file of that name then stays as it was.
    """
    write_bytes(to_parquet(table, provenance), Path(file))


def write_bytes(data: bytes, file: Path) -> None:
    """Write a file under another name that is then changed to the right one, so that nobody finds a part of it.

    Raises OSError where the file cannot be written. A file of that name then stays as it was.
    """
    # others may be writing the same file
    part = file.with_name(f".{file.name.lstrip('.')[:200]}.{uuid4().hex[:8]}.part")
    try:
        part.write_bytes(data)
        os.replace(part, file)
    except OSError as error:  # that of a full disk does not name the file
        raise OSError(error.errno, error.strerror, str(file)) from error
    finally:
        part.unlink(missing_ok=True)


def remove_parts(folder: Path, name: str = "") -> None:
    """Remove what processes left that were killed while they wrote files whose names begin with `name`."""
    for part in folder.glob(f".{name}*.part"):
        part.unlink()


def provenance(file: Path | str) -> dict:
    """Return what produced a table: parameters, versions, commit, machine and time.

    Returns {} for a file that another program wrote, such as a CSV.
    Raises FileNotFoundError where there is no file.
    Raises ValueError for a damaged file, and for anything but a .parquet, .csv or .csv.gz file.
    """
    file = Path(file)
    return _read(file, file.read_bytes, from_parquet)[1] if _is_parquet(file) else {}


def read_table(path: Path | str) -> pd.DataFrame:
    """Read a table: a .parquet, .csv or .csv.gz file, the folder of a study, or a .zip of such a folder.

    TEXT_COLUMNS are always text, so a policy may be called "None". The column split_neuron is text with missing values.
    Numbers of single precision become float64, with the digits that a CSV of them has: 0.7856, and not 0.78560001.
    Raises FileNotFoundError where there is nothing.
    Raises ValueError for anything else, a damaged file, and a table of version 0.1.
    Raises ValueError for a folder without results, or with files that cannot be used.
    """
    path = Path(path)
    if path.is_dir() or path.suffix.lower() == ".zip":
        table = _read_study(path)
    elif _is_parquet(path):
        table, _ = _read(path, path.read_bytes, from_parquet)
    else:
        table = _read(path, path.read_bytes, from_csv)
    if {"rule", "still", "loss_a"} & set(table):
        names = ", ".join(f"{old} → {new}" for old, new in _RENAMED.items() if old in table)
        raise ValueError(f"{path} is of version 0.1: columns have other names since 0.2 ({names})")
    for name in table.select_dtypes("float32"):
        digits = pa.array(table[name].to_numpy()).cast(pa.string())  # as few as identify the number
        table[name] = digits.cast(pa.float64()).to_numpy()
    return table


def read_results(folder: Path | str, prefix: str = "") -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Read all experiments whose files are in a folder or beneath it, or in a .zip of such a folder.

    prefix: how the names of the files begin.
    Returns the tables by the experiment's id, those that were trained last first. Numbers are as they were written.
    Seeds are in ascending order, and one found twice counts once.
    Returns also a line for each file that is damaged, of other origin or of another version, and is therefore left out.
    Raises FileNotFoundError where there is nothing.
    Raises ValueError for a damaged .zip file.
    """
    files, problems = [], []
    for name, read in _find_parquet(Path(folder)):
        if not Path(name).name.startswith(prefix):
            continue
        try:
            table, made_by = _read(name, read, from_parquet)
            if "study" not in made_by:  # else the table of a whole study, put together from the others
                _require_results(name, table, made_by)
                files.append((str(made_by.get("finished")), table))
        except ValueError as error:
            problems.append(str(error))
        except FileNotFoundError:
            continue  # moved away meanwhile
    tables: dict[str, list[pd.DataFrame]] = {}
    for _, table in sorted(files, key=lambda one: one[0], reverse=True):
        for experiment, rows in table.groupby(EXPERIMENT, sort=False):
            parts = tables.setdefault(experiment, [])
            for later in parts:
                rows = rows[~rows["seed"].isin(later["seed"])]
            parts.append(rows.drop(columns=EXPERIMENT))
    whole = {experiment: pd.concat(parts) for experiment, parts in tables.items()}
    by_seed = {"by": "seed", "kind": "stable", "ignore_index": True}
    return {experiment: table.sort_values(**by_seed) for experiment, table in whole.items()}, problems


def _require_results(name: str, table: pd.DataFrame, made_by: dict) -> None:
    if not made_by:
        raise ValueError(f"{name} is left out (of another program): allowed are files of experiments")
    if (version := made_by.get("results")) != RESULTS_VERSION:
        raise ValueError(f"{name} is left out (results version {version}): allowed is version {RESULTS_VERSION}")
    if EXPERIMENT not in table or not pd.api.types.is_integer_dtype(table.get("seed")):
        raise ValueError(f"{name} is left out (no experiment or seed): allowed are files of experiments")


def _read_study(path: Path) -> pd.DataFrame:
    tables, problems = read_results(path)
    if problems or not tables:
        raise ValueError("; ".join(problems) or f"{path} holds no results: allowed are folders of a study that has run")
    found: dict[tuple, pd.DataFrame] = {}  # by the fields: what was trained anew after a change of the user's code wins
    for table in tables.values():
        fields = table[[name for name in _FIELDS if name in table]].iloc[0].to_dict()
        ignored = GROWTH_COLUMNS if fields.get("policy") in CONTROLS else ()
        key = tuple(value for name, value in fields.items() if name not in ignored)
        by = [name for name in ("epoch", "horizon", "seed") if name in table]
        table = table.assign(**fields).sort_values(by, kind="stable")  # its files can differ in names without effect
        found.setdefault(key, table)
    order = sorted(found, key=lambda key: (*(name not in key for name in CONTROLS), *map(str, key)))
    return pd.concat([found[key] for key in order], ignore_index=True)


def _find_parquet(place: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the Parquet files of a folder or .zip file: their names, and functions that read them."""
    if place.is_dir():
        for file in sorted(place.rglob("*")):
            if not _is_litter(str(file.relative_to(place))) and file.is_file():
                yield str(file), file.read_bytes
    elif not place.exists():
        raise FileNotFoundError(does_not_exist(place, "folders of a study, and .zip files of them"))
    else:
        with _read(place, lambda: place, zipfile.ZipFile) as archive:  # no file is unpacked, so no path leads elsewhere
            for name in sorted(archive.namelist()):
                if not _is_litter(name):
                    yield f"{place}/{name}", partial(archive.read, name)


def _is_litter(name: str) -> bool:
    """Whether a relative path is not that of a table: of another kind, hidden, or put next to files by Mac OS."""
    parts = name.replace("\\", "/").split("/")
    return not name.lower().endswith(".parquet") or any(part.startswith((".", "__MACOSX")) for part in parts)


def _is_parquet(file: Path) -> bool:
    """Whether a file is Parquet and not CSV; refuses everything else."""
    if not file.exists():
        raise FileNotFoundError(does_not_exist(file, "files of tables"))
    if file.is_dir() or not file.name.lower().endswith((".parquet", ".csv", ".csv.gz")):
        kind = "is a folder" if file.is_dir() else "is no table"
        raise ValueError(f"{file} {kind}: allowed are .parquet, .csv and .csv.gz files")
    return file.suffix.lower() == ".parquet"


def _read(name: Path | str, read: Callable[[], bytes], parse: Callable[[bytes], Parsed]) -> Parsed:
    """Return what `parse` makes of the bytes of a file; `name` is for the error where that fails."""
    try:
        return parse(read())
    except FileNotFoundError:
        raise FileNotFoundError(f"{name} does not exist: allowed are files of tables") from None
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{name} is damaged ({reason})") from error
