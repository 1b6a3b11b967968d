"""The form of the notebooks, and that they were executed; nbval checks their outputs."""

import ast
from dataclasses import asdict
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest

from neuronsplit.experiments.exhaustive_splits import ExhaustiveSplits
from neuronsplit.experiments.experiment import Experiment

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
each = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


def test_the_notebooks_are_found():
    assert [file.stem for file in NOTEBOOKS] == [
        "00_start_here", "01_split_a_neuron", "02_grow_while_training", "03_experiment", "04_comparison",
        "05_split_your_own_network", "06_the_2021_study", "07_do_twins_part", "08_which_neuron",
        "09_how_to_split", "10_when_to_split", "11_how_good_could_a_choice_be", "12_a_network_that_decides",
        "13_grow_a_language_model", "14_what_it_costs", "15_beyond_one_hidden_layer", "16_can_growth_win", "all_splits",
        "design", "report",
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


OF_UNITS = {"seeds": [0, 1, 2, 3, 4], "experiments": [], "folder": "runs/notebook", "extensions": ""}
OF_REPORTS = {"table": "", "figures": "", "title": ""}


@pytest.mark.parametrize("kind, others", [(Experiment, OF_UNITS), (ExhaustiveSplits, OF_UNITS | OF_REPORTS)])
def test_the_parameters_of_a_notebook_that_trains_are_the_fields_of_its_kind_and_more(kind, others):
    found = papermill.inspect_notebook(str(FOLDER / f"{kind.notebook}.ipynb"))
    defaults = {name: ast.literal_eval(parameter["default"]) for name, parameter in found.items()}
    assert defaults == asdict(kind()) | others
    types = {name: parameter["inferred_type_name"] for name, parameter in found.items()}
    assert types == {name: type(value).__name__ for name, value in defaults.items()}


@pytest.mark.parametrize("kind", [Experiment, ExhaustiveSplits])
def test_a_notebook_that_reports_takes_what_a_study_gives(kind):
    found = papermill.inspect_notebook(str(FOLDER / f"{kind.report}.ipynb"))
    assert OF_REPORTS.keys() <= found.keys()
