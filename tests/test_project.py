"""Facts agree wherever the project states them, and the committed tables are complete."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml

import neuronsplit as ns
from neuronsplit.analysis.tables import read_table
from neuronsplit.growing.all_splits import HORIZONS, N_COEFFICIENT_DRAWS
from neuronsplit.names import SHUFFLE_LOSSES, TABLE_COLUMNS
from neuronsplit.study.grid import experiments, read_study

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_yml_installs_what_pyproject_names():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, through_pip = environment["dependencies"]
    assert python == f"python{PROJECT['requires-python']}" and pip == "pip"
    extras = ",".join(PROJECT["optional-dependencies"])
    assert through_pip == {"pip": [f"--editable .[{extras}]"]}
    assert f".[{extras}]" in (ROOT / "Makefile").read_text()


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)[0]
    assert ns.__version__ == PROJECT["version"] == citation["version"] == newest
    assert citation["cff-version"] == "1.2.0"


@pytest.mark.parametrize("file", sorted((ROOT / "figures" / "data").glob("*.csv.gz")), ids=lambda file: file.stem)
def test_a_committed_table_is_complete_and_says_what_produced_it(file):
    table, metadata = read_table(file)
    parameters = metadata["parameters"]
    if parameters.get("kind") == "all-splits":
        rows = [e.n_seeds * (e.width + N_COEFFICIENT_DRAWS + 1) * len(HORIZONS) for e in experiments(parameters)]
        assert len(table) == sum(rows) and np.isfinite(table[SHUFFLE_LOSSES]).all(axis=None)
    elif "study" in metadata:
        assert list(table)[: len(TABLE_COLUMNS)] == TABLE_COLUMNS
        if not {"policy", "each"} & set(parameters):  # published before study files had lists
            parameters["policy"] = read_study("full")["policy"]
        assert len(table) == sum(e.n_seeds * e.epochs for e in experiments(parameters))
    assert metadata["commit"] and not metadata["commit"].endswith("dirty")
