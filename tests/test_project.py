"""What the project says of itself in several places agrees, and what the README shows is so."""

import contextlib
import io
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml

import neuronsplit as ns
from neuronsplit import batch, compare, oracle, study
from neuronsplit.branches import DRAWS, HORIZONS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_yml_installs_what_pyproject_names():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, through_pip = environment["dependencies"]
    assert python == f"python{PROJECT['requires-python']}" and pip == "pip"
    extras = ",".join(PROJECT["optional-dependencies"])
    assert through_pip == {"pip": [f"--editable .[{extras}]"]}
    assert f".[{extras}]" in (ROOT / "Makefile").read_text()


def test_the_version_is_one():
    assert ns.__version__ == PROJECT["version"]


def test_the_readme_prints_what_it_says_it_prints():
    examples = re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", README, re.S)
    assert len(examples) == 2
    scope = {}
    for code, expected in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, scope)
        assert printed.getvalue() == expected
    ns.POLICIES.pop("max-fan-out")  # added by the README's second example


def test_the_readme_shows_files_that_exist():
    shown = re.findall(r"\]\(((?!http)[^)#]+)\)", README)
    assert len(shown) > 5
    assert [path for path in shown if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("file", sorted((ROOT / "figures" / "data").glob("*.csv.gz")), ids=lambda file: file.stem)
def test_a_committed_table_is_whole_and_says_what_produced_it(file):
    table, about = study.read_table(file)
    parameters = about["parameters"]
    if parameters.get("kind") == "branches":
        rows = [e.repeats * (e.width + DRAWS + 1) * len(HORIZONS) for e in batch.experiments(parameters)]
        assert len(table) == sum(rows) and np.isfinite(table[oracle.LOSSES]).all(axis=None)
    elif "study" in about:
        assert list(table)[: len(study.COLUMNS)] == study.COLUMNS
        if not {"policy", "each"} & set(parameters):  # made before studies had lists
            parameters["policy"] = batch.read_study("full")["policy"]
        assert len(table) == sum(e.repeats * e.epochs for e in batch.experiments(parameters))
    assert about["commit"] and not about["commit"].endswith("dirty")


def test_the_readme_table_is_read_off_the_committed_one():
    table, _ = study.read_table(ROOT / "figures" / "data" / "fashion-mnist.csv.gz")
    accuracy, loss = (compare.summary(table, measure) for measure in ("test_accuracy", "test_loss"))
    gaps = compare.intervals(compare.paired(table, "test_accuracy", study.CONTROL))
    for policy, row in accuracy.iterrows():
        cells = [
            f"`{policy}`",
            f"{np.round(row['mean'], 4):.4f} ± {row.sd:.4f}",
            f"{loss['mean'][policy]:.3f} ± {loss.sd[policy]:.3f}",
        ]
        cells.append("" if policy == study.CONTROL else "{:+.4f} [{:+.4f}, {:+.4f}]".format(*gaps.loc[policy][1:]))
        assert f"| {' | '.join(cells)} |".replace("-0", "−0") in README


def test_the_readme_says_what_to_use_as_the_committed_table_does():
    table, _ = study.read_table(ROOT / "figures" / "data" / "which-how-when.csv.gz")
    table = compare.named(table)
    found = compare.overview(table, study.CONTROL)
    gaps = compare.intervals(compare.paired(table, "test_loss", study.CONTROL))
    rows = re.findall(r"^\| `([^`]+)` \| (\d+%) \| (.*) \| (.*) \| (.*) \|$", README, re.M)
    assert len(rows) == 9
    for policy, cost, *cells in rows:
        mean = found.loc[policy]
        expected = ["{:.3f} [{:.3f}, {:.3f}]".format(*mean[name]) for name in ("test accuracy", "test loss")]
        expected.append("{:+.3f} [{:+.3f}, {:+.3f}]".format(*gaps.loc[policy][1:]) if policy in gaps.index else "")
        assert cost == f"{mean['cost', 'mean']:.0%}" and [c.replace("−", "-") for c in cells] == expected


def test_the_readme_says_what_it_costs_as_the_benchmark_measured():
    table, _ = study.read_table(ROOT / "figures" / "data" / "speed.csv.gz")
    measured = {}
    for row in table.fillna({"beside": "", "goal": ""}).itertuples():
        other, ratio = ("" if np.isnan(value) else f"{value:.3g}" for value in (row.other, row.ratio))
        measured[f"| {row.figure} | {row.measured:.3g} | {row.beside} | {other} | {ratio} | {row.goal} |"] = row
    section = README.split("## What it costs")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert len(rows) > 10 and [row for row in rows if row not in measured] == []
