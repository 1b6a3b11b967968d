"""Sentences about what a study ran, and about what made its table, in Markdown.

Names and errors are set as code, so that nothing in a table is taken for Markdown or HTML.
"""

from pathlib import Path

import pandas as pd

from neuronsplit.analysis import files, tables, wording
from neuronsplit.names import CONTROLS, GROWTH_COLUMNS, ID_COLUMNS


def overview(table: pd.DataFrame) -> str:
    """Say how much a study trained, and in what its experiments differ, from its table as it was read."""
    varying = [name for name, values in _fields(table).items() if values.nunique() > 1]
    experiments = tables.with_labels(table).groupby("policy", sort=False)
    n_seeds = experiments["seed"].nunique()
    each = " each" if len(n_seeds) > 1 else ""
    data = f" on {wording.code(table['dataset'].iloc[0])}" if "dataset" in table and "dataset" not in varying else ""
    counts = [wording.count([len(n_seeds)], "experiment") + data, wording.count(n_seeds, "seed") + each]
    said = ", ".join([*counts, wording.count(experiments["epoch"].max(), "epoch")]) + "."
    if varying:
        said += f" Experiments differ in {wording.join(name.replace('_', ' ') for name in varying)}."
    return said


def same_in_all(table: pd.DataFrame) -> str:
    """Say what all experiments of a study had in common; empty if the table does not say."""
    values = {name: column.iloc[0] for name, column in _fields(table).items() if column.nunique() == 1}
    same = [f"{name.replace('_', ' ')} {wording.code(value)}" for name, value in values.items()]
    return f"The same in all experiments: {', '.join(same)}." if same else ""


def _fields(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the fields of experiments that a table has. A control has no GROWTH_COLUMNS."""
    choices = table[~table["policy"].isin(CONTROLS)]
    return {name: (choices if name in GROWTH_COLUMNS else table)[name] for name in ID_COLUMNS if name in table}


def unfinished(path: Path) -> str:
    """List the experiments of a study that have not finished, with their errors; empty if there are none."""
    names = _made_by(path).get("unfinished") or []
    lines = [f"**Not finished**: {wording.count([len(names)], 'experiment')}. The table has what they trained.", ""]
    lines += [f"- {wording.code(name)}" for name in names]
    return "\n".join(lines) if names else ""


def origin(path: Path) -> str:
    """Say what produced the table of a file, or of a study's folder."""
    made_by = _made_by(path)
    if not made_by and (path.is_dir() or path.suffix.lower() == ".zip"):
        return f"{wording.code(path.name)} holds several files. `neuronsplit.provenance` says of each what produced it."
    if not made_by:
        return f"{wording.code(path.name)} has no provenance: nothing in it says what produced it."
    versions = (made_by.get("versions") or {}).items()
    facts = {name: made_by.get(name) for name in ("study", "extensions", "commit", "finished", "machine")}
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in versions)
    lines = [f"- {name}: {wording.code(fact)}" for name, fact in facts.items() if fact]
    return "\n".join([f"What produced {wording.code(path.name)}:", "", *lines])


def _made_by(path: Path) -> dict:
    file = path / "table.parquet" if path.is_dir() else path
    return files.provenance(file) if file.is_file() and file.suffix.lower() != ".zip" else {}
