"""The form of the notebooks, and that they were executed; nbval checks their outputs."""

from dataclasses import asdict
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest

from neuronsplit.study.exhaustive_splits import ExhaustiveSplits
from neuronsplit.study.experiment import Experiment

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
each = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


def test_the_notebooks_are_found():
    assert [file.stem for file in NOTEBOOKS] == [
        "00_start_here", "01_split_a_neuron", "02_grow_while_training", "03_experiment", "04_comparison",
        "05_split_your_own_network", "06_the_2021_study", "07_do_twins_part", "08_which_how_when",
        "11_how_good_could_a_choice_be", "12_a_network_that_decides", "14_what_it_costs",
    ]  # fmt: skip


@each
def test_a_notebook_has_the_cells_of_its_paired_text(file):
    text, notebook = jupytext.read(file.with_suffix(".py")), nbformat.read(file, as_version=4)
    assert [(c.cell_type, c.source) for c in notebook.cells] == [(c.cell_type, c.source) for c in text.cells]
    tags = [c.metadata.get("tags", []) for c in text.cells]
    assert [c.metadata.get("tags", []) for c in notebook.cells] == tags
    assert notebook.metadata.kernelspec.name == "python3"


@each
def test_every_cell_was_executed_in_order_and_without_error(file):
    """nbval does not look at a cell that was never executed."""
    cells = [c for c in nbformat.read(file, as_version=4).cells if c.cell_type == "code"]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert not [o for c in cells for o in c.outputs if o.output_type == "error" or o.get("name") == "stderr"]


@each
def test_a_notebook_keeps_the_form(file):
    notebook = nbformat.read(file, as_version=4)
    assert file.stat().st_size < 1_000_000
    assert notebook.cells[0].source.startswith("# ")
    assert 15 <= len(notebook.cells) <= 45
    assert all(len(c.source.splitlines()) <= 25 for c in notebook.cells if c.cell_type == "code")
    parameters = papermill.inspect_notebook(str(file))
    assert parameters and all(p["help"] for p in parameters.values())


@pytest.mark.parametrize(
    "kind, others", [(Experiment, ["extensions"]), (ExhaustiveSplits, ["extensions", "table", "figures"])]
)
def test_the_parameters_of_an_experiment_notebook_are_the_fields_of_its_kind(kind, others):
    found = papermill.inspect_notebook(str(FOLDER / f"{kind.notebook}.ipynb"))
    for name in others:
        del found[name]
    types = {"str": str, "int": int, "float": float}
    defaults = {name: types[p["inferred_type_name"]](p["default"].strip('"')) for name, p in found.items()}
    assert defaults.pop("folder") == "runs/notebook"
    assert defaults == asdict(kind())
