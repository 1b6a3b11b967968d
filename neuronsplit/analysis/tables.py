"""Read tidy tables, and reshape them for statistics and figures.

Every `table` is that of a study, with a row per experiment, seed and epoch. Where there is a `metric`, the column
`policy` has to distinguish the experiments, as after `with_labels`.
"""

import gzip
import hashlib
import json
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd

from neuronsplit.names import CONTROLS, COUNT_COLUMNS, ID_COLUMNS, NO_PARENT

TEXT_COLUMNS = "policy growth schedule dataset optimizer branch_type".split()  # text, even if it looks like "NA" or 1
MISSING = ["", "NA", "N/A", "<NA>", "NaN", "nan", "NULL", "null", "None"]  # missing values in other columns
PUBLISHED_ACCURACY = {  # of scikit-learn's MLPClassifier on test images: Xiao et al. 2017, arXiv 1708.07747, table 3
    "fashion-mnist": {"Zalando's benchmark, width 10": 0.848, "Zalando's benchmark, width 100": 0.871}
}
_CHOICES = ("policy", "growth", "schedule")  # the ID_COLUMNS that a study compares; the others are its setting


def read_table(file: Path | str) -> tuple[pd.DataFrame, dict]:
    """Read a saved table, a .csv or .csv.gz, and its metadata.

    Returns the table and the content of its JSON file, or {} if it has none.
    Raises FileNotFoundError where there is no table.
    Raises ValueError where one of the two files is damaged, or the table is not the one that the JSON file describes.
    Raises ValueError for a table of version 0.1, whose columns have other names.
    """
    file = Path(file)
    if metadata_file(file).exists() or not file.exists():
        data, metadata = read_verified(file)
    else:
        data, metadata = _read_bytes(file), {}
    try:
        table = parse(data)
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error})") from error
    if {"rule", "still", "loss_a"} & set(table):
        raise ValueError(f"{file} is of version 0.1: figures/rename_tables.py shows how to rename its columns")
    return table, metadata


def metadata_file(file: Path | str) -> Path:
    """Return the path of the JSON file next to a table, which says what produced it."""
    file = Path(file)
    return file.with_name(file.name.removesuffix(".gz")).with_suffix(".json")


def read_verified(file: Path | str) -> tuple[bytes, dict]:
    """Read the unpacked bytes of a saved table and its metadata, and compare the checksum.

    Raises FileNotFoundError where there is no table.
    Raises ValueError where one of the two files is damaged, the metadata are missing, or the checksum differs.
    """
    file = Path(file)
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist: make run and make publish make such tables from a study")
    try:
        metadata = json.loads(metadata_file(file).read_text(encoding="utf-8"))
        digest = metadata["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{metadata_file(file)} is damaged ({error})") from error
    data = _read_bytes(file)
    if digest != hashlib.sha256(data).hexdigest():
        raise ValueError(f"{file} is damaged (wrong checksum)")
    return data, metadata


def parse(data: bytes) -> pd.DataFrame:
    """Return the table in the bytes `data` of a CSV file.

    TEXT_COLUMNS are always read as text, so a policy may be called "None". The column split_neuron is text with missing
    values.
    """
    columns = pd.read_csv(BytesIO(data), nrows=0).columns
    dtypes = {name: str for name in columns if name in TEXT_COLUMNS} | {"split_neuron": "string"}
    missing = {name: MISSING for name in columns if name not in TEXT_COLUMNS}
    return pd.read_csv(BytesIO(data), dtype=dtypes, keep_default_na=False, na_values=missing)


def _read_bytes(file: Path) -> bytes:
    try:
        return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file} is damaged ({error})") from error


def with_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a label of each experiment in the column `policy`, such as "random · even".

    A label names the ID_COLUMNS that vary. A control has neither growth nor schedule.
    """
    control = table["policy"].isin(CONTROLS)
    choices = [name for name in _CHOICES if name in table and table.loc[~control, name].nunique() > 1]
    varying = [name for name in _setting_columns(table) if table[name].nunique() > 1]
    labels = table["policy"].copy()
    for rows, names in ((~control, [*(choices or ["policy"]), *varying]), (control, ["policy", *varying])):
        texts = {name: table.loc[rows, name].astype(str) for name in names}
        texts |= {name: name.replace("_", " ") + " " + texts[name] for name in names if name in COUNT_COLUMNS}
        labels[rows] = [" · ".join(parts) for parts in zip(*texts.values())]
    return table.assign(policy=labels)


def by_setting(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Divide a table into parts in which experiments differ only in policy, growth and schedule.

    Returns setting → part. The name of a setting has the columns that differ between parts, such as "learning rate
    0.01, width 10". Compare a policy only with the control of its own part.
    """
    varying = [name for name in _setting_columns(table) if table[name].nunique() > 1]
    if not varying:
        return {"": table}
    names = [name.replace("_", " ") for name in varying]
    parts = table.groupby(varying, sort=False)
    return {", ".join(f"{name} {value}" for name, value in zip(names, key)): part for key, part in parts}


def _setting_columns(table: pd.DataFrame) -> list[str]:
    return [name for name in ID_COLUMNS if name in table and name not in _CHOICES]


def last_epoch(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each policy's last epoch, in the order of the table."""
    return table[table["epoch"] == table.groupby("policy")["epoch"].transform("max")]


def n_diverged(table: pd.DataFrame) -> pd.Series:
    """Count the seeds of each policy whose final test loss is not a finite number."""
    last = last_epoch(table)
    return (~np.isfinite(last["test_loss"])).groupby(last["policy"], sort=False).sum()


def summary(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Summarise the final values of a metric over the seeds that did not diverge.

    Returns a row per policy, with the columns n, mean, sd, min, max, diverged.
    """
    last = last_epoch(table)
    groups = last[np.isfinite(last["test_loss"])].groupby("policy", sort=False)[metric]
    rows = groups.agg(n="count", mean="mean", sd="std", min="min", max="max")
    return rows.reindex(last["policy"].unique()).assign(diverged=n_diverged(table))


def final_values(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the final values of a metric: a row per seed and a column per policy, NaN for a seed that diverged."""
    last = last_epoch(table)
    values = last.assign(value=last[metric].where(np.isfinite(last["test_loss"])))
    return values.pivot(index="seed", columns="policy", values="value")[table["policy"].unique()]


def paired_differences(table: pd.DataFrame, metric: str, baseline: str) -> pd.DataFrame:
    """Subtract the baseline's final value at the same seed from that of every other policy.

    Returns a row per seed and a column per policy.
    """
    values = final_values(table, metric)
    return values.drop(columns=baseline).sub(values[baseline], axis=0)


def lineage(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the family tree of the neurons of one network.

    rows: the rows of one seed and policy.
    Returns a row per neuron. A parent keeps its number, and its twin becomes the new last neuron. The columns are
    founder: the first neuron that it descends from.
    parent: the neuron that it was split from; for a founder, itself.
    born: the epoch of that split; 0 for a neuron that was there from the start.
    """
    rows = rows.sort_values("epoch")
    parents_by_epoch = rows.set_index("epoch")["split_neuron"].dropna().astype(str)
    splits = [(epoch, parent) for epoch, parents in parents_by_epoch.items() for parent in parents.split()]
    n_founders = int(rows["hidden"].iloc[-1]) - len(splits)
    tree = [{"founder": neuron, "parent": neuron, "born": 0} for neuron in range(n_founders)]
    for epoch, parent in splits:
        parent = len(tree) if parent == NO_PARENT else int(parent)
        founder = tree[parent]["founder"] if parent < len(tree) else parent
        tree.append({"founder": founder, "parent": parent, "born": int(epoch)})
    return pd.DataFrame(tree).rename_axis("neuron")
