"""Give the tables of version 0.1 the names of version 0.2. It ran once, and is here as a record of what it did.

It renames columns, words in text cells, the keys of the JSON file of each table, and the arrays of learned.npz.
Every number keeps its digits, as all cells are read and written as text. Only `still` changes its meaning: it counted
the epochs after the last growth epoch, and `epochs` counts all of them. A file that was renamed is left as it is.

    python figures/rename_tables.py figures/data neuronsplit/growing/learned.npz
"""

import gzip
import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

COLUMNS = {
    "rule": "growth", "still": "epochs",  # tables of experiments
    "grown": "prior_splits", "age": "epochs_before", "kind": "branch_type",  # tables of all splits of a network
    "loss_a": "loss_shuffle_0", "loss_b": "loss_shuffle_1", "loss_after_removal": "ablation_loss",
    "fan_in": "incoming_norm", "fan_out": "outgoing_norm", "nearest": "max_correlation",
    "incoming_gradient": "incoming_gradient_norm", "outgoing_gradient": "outgoing_gradient_norm",
    "since_split": "epochs_since_split",
    "differ": "firing_disagreement", "rank": "effective_rank",  # the table of twins
    "branches a second": "branches per second", "beside": "compared_with",  # tables of speeds
}  # fmt: skip
GROWTHS = {
    "opposed": "antisymmetric", "noisy": "net2net", "steepest": "steepest-descent", "fresh": "zero-outgoing",
}  # fmt: skip
SCHEDULES = {
    "5-every-5": "5-per-5-epochs", "at-once": "all-at-half", "at-first": "all-at-1", "at-tenth": "all-at-10",
}  # fmt: skip
WORDS = {"growth": GROWTHS, "schedule": SCHEDULES, "axis": {"repeats": "seeds"}}  # of cells, by their column's new name
PHRASES = {"loss after removal of each neuron": "ablation loss of every neuron"}  # within cells of the tables of speeds
PARAMETERS = COLUMNS | {"kind": "kind", "repeats": "n_seeds", "before": "epochs_before", "after": "epochs_after"}
PARAMETERS |= {"rates": "learning_rates"}
KINDS = {"branches": "all-splits"}
ARRAYS = {"fan_in": "w_in", "fan_out": "w_out", "worth": "value", "choice": "advantage"}
NOTE = "columns, words and parameters by figures/rename_tables.py; no measured number was changed"


def renamed_table(text: bytes) -> bytes:
    """The text of a CSV table with the new names of its columns and words."""
    table = pd.read_csv(io.BytesIO(text), dtype=str, keep_default_na=False)
    if "still" in table:
        table["still"] = [str(int(splits) + int(still)) for splits, still in zip(table["splits"], table["still"])]
    table = table.rename(columns=COLUMNS)
    for column in WORDS.keys() & set(table):
        table[column] = table[column].replace(WORDS[column])
    for old, new in PHRASES.items():
        table = table.apply(lambda cells, old=old, new=new: cells.str.replace(old, new, regex=False))
    return table.to_csv(index=False, lineterminator="\n").encode()


def renamed_parameters(parameters: dict) -> dict:
    """The parameters of a study, or of one of its grids, with their new names and words."""
    found = {}
    for old, value in parameters.items():
        new = PARAMETERS.get(old, old)
        if old in ("each", "zip"):
            value = [renamed_parameters(one) for one in value] if old == "each" else renamed_parameters(value)
        elif old == "still":
            value += parameters["splits"]
        words = WORDS.get(new, KINDS if old == "kind" else {})
        if words:
            value = [words.get(one, one) for one in value] if isinstance(value, list) else words.get(value, value)
        found[new] = value
    return found


def rename_table(file: Path) -> None:
    """Rename what a packed table and its JSON file say, in place."""
    sidecar = file.with_name(file.name.removesuffix(".csv.gz") + ".json")
    metadata = json.loads(sidecar.read_text())
    if "renamed" in metadata:
        return
    text = renamed_table(gzip.decompress(file.read_bytes()))
    metadata["parameters"] = renamed_parameters(metadata["parameters"])
    metadata |= {"sha256": hashlib.sha256(text).hexdigest(), "renamed": NOTE}
    file.write_bytes(gzip.compress(text, mtime=0))
    sidecar.write_text(json.dumps(metadata, indent=1))


def rename_arrays(file: Path) -> None:
    """Rename the arrays of an .npz file, in place."""
    with np.load(file, allow_pickle=False) as content:
        arrays = dict(content)
    if ARRAYS.keys() & arrays.keys():
        np.savez(file, **{ARRAYS.get(name, name): values for name, values in arrays.items()})


if __name__ == "__main__":
    folder, weights = map(Path, sys.argv[1:])
    for file in sorted(folder.glob("*.csv.gz")):
        rename_table(file)
    rename_arrays(weights)
