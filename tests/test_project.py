"""Facts agree wherever the project states them, and the committed tables are complete."""

import re
import shutil
import subprocess
import tomllib
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import neuronsplit as ns
from neuronsplit.analysis.files import read_results
from neuronsplit.measuring.all_splits import HORIZONS, N_COEFFICIENT_DRAWS
from neuronsplit.names import COUNT_COLUMNS, ID_COLUMNS, NETWORK_KEYS, SHUFFLE_LOSSES, TABLE_COLUMNS, TEXT_COLUMNS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_yml_installs_what_pyproject_names():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, through_pip = environment["dependencies"]
    assert python == f"python{PROJECT['requires-python']}" and pip == "pip"
    optional = ("zoo", "site")  # large, for one benchmark; and only for `make site`
    extras = ",".join(name for name in PROJECT["optional-dependencies"] if name not in optional)
    cpu = "--extra-index-url https://download.pytorch.org/whl/cpu"  # of torch without CUDA, for Binder
    assert through_pip == {"pip": [cpu, f"--editable .[{extras}]"]}
    assert f".[{extras}]" in (ROOT / "Makefile").read_text()


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)[0]
    assert ns.__version__ == PROJECT["version"] == citation["version"] == newest
    assert citation["cff-version"] == "1.2.0"


TABLES = sorted((ROOT / "figures" / "data").glob("*.parquet"))
IN_DOUBLE_PRECISION = {  # and accuracies
    "learning_rate", "weight_decay", "dropout", "rate_after_split", "angle", "effective_rank", "firing_disagreement",
}  # fmt: skip


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.stem)
def test_a_committed_table_is_complete_and_says_what_produced_it(file):
    table, made_by = ns.read_table(file), ns.provenance(file)
    assert made_by["commit"] and not made_by["commit"].endswith("dirty")
    assert made_by["machine"] and datetime.fromisoformat(made_by["finished"]).tzinfo
    assert {"python", "torch", "numpy", "pandas"} <= set(made_by["versions"])
    parameters, n_experiments = made_by["parameters"], len(made_by.get("seconds", []))
    if "horizon" in table:
        networks = table.groupby(NETWORK_KEYS[:-1]).size()
        n_branches = networks.index.get_level_values("width") + N_COEFFICIENT_DRAWS + 1
        assert (networks == n_branches * len(HORIZONS)).all() and np.isfinite(table[SHUFFLE_LOSSES]).all(axis=None)
        if "seeds" in parameters:
            named = parameters | {"seed": parameters["seeds"]}
            assert all(set(table[key]) == set(named[key]) for key in NETWORK_KEYS[:-1])
        else:  # an older table
            assert len(networks) == n_experiments * parameters["n_seeds"]
    elif n_experiments:
        assert list(table)[: len(TABLE_COLUMNS)] == TABLE_COLUMNS
        networks = table.groupby([name for name in (*ID_COLUMNS, "seed") if name in table])["epoch"]
        assert (networks.apply(list).map(lambda epochs: epochs == [*range(1, parameters["epochs"] + 1)])).all()
        assert len(networks) == n_experiments * parameters["n_seeds"]


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.stem)
def test_a_committed_table_is_as_precise_as_what_was_computed(file):
    schema = pq.read_schema(file)
    for name in set(schema.names) & {"seed", "epoch", *COUNT_COLUMNS, "hidden", "parameters", "neuron", "pair"}:
        assert schema.field(name).type == pa.int64()
    for name in set(schema.names) & {*TEXT_COLUMNS, "split_neuron"}:
        assert schema.field(name).type in (pa.string(), pa.large_string())
    if not file.stem.startswith(("speed", "step-times")):  # these hold times
        double = {name for name in schema.names if schema.field(name).type == pa.float64()}
        accuracies = {name for name in schema.names if name.endswith("_accuracy")}
        assert double == (IN_DOUBLE_PRECISION | accuracies) & set(schema.names)


def test_the_committed_tables_are_small_and_alone():
    assert len(TABLES) > 10 and sorted((ROOT / "figures" / "data").iterdir()) == TABLES
    assert sum(file.stat().st_size for file in TABLES) < 20e6
    replayed = ns.read_table(ROOT / "figures" / "data" / "replay.parquet")
    names = "hidden parameters train_loss train_accuracy val_loss val_accuracy test_loss test_accuracy".split()
    assert {"policy", "seed", "epoch", *names, "faulty_test_accuracy"} <= set(replayed)


@pytest.mark.parametrize("name", [file.stem for file in TABLES])
def test_every_committed_table_has_a_recipe(name):
    subprocess.run(["make", "-n", "-f", "figures/Makefile", name], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("name", ["twins", "search-digits", "beyond-one-layer", "policies", "figures"])
def test_a_recipe_works_in_a_fresh_clone(name, tmp_path):
    """Folders are there for what a notebook is executed into, which papermill does not make."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    shutil.copytree(ROOT / "figures", tmp_path / "figures", ignore=shutil.ignore_patterns("*.p*", "*.gif"))
    seen = tmp_path / "seen"
    programs.joinpath("papermill").write_text(f'#!/bin/sh\necho "$3" >> {seen}\ntest -d "$(dirname "$3")"\n')
    programs.joinpath("neuronsplit").write_text("#!/bin/sh\n")
    programs.joinpath("python").write_text("#!/bin/sh\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    done = subprocess.run(["make", "-f", "figures/Makefile", name], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, seen.exists()) == (0, True), done.stderr
    assert "ignored" not in done.stderr and all(line.startswith("runs/") for line in seen.read_text().splitlines())


def test_no_committed_table_is_taken_for_that_of_an_experiment():
    assert read_results(ROOT / "figures" / "data") == ({}, [])
