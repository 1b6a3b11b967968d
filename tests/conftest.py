"""Fixtures, and hypothesis profiles: HYPOTHESIS_PROFILE=deep tries tens of thousands of cases instead of hundreds."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests run in parallel, one per core

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("default", deadline=None, max_examples=200)
settings.register_profile("deep", deadline=None, max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

SWEEP = """
policy: [no-split, random, max-loss, min-fire, half-fire, max-variance, max-gradient]
dataset: digits
width: 3
splits: 6
epochs: 36
n_seeds: 3
"""


@pytest.fixture
def sweep(tmp_path):
    """The file of a small study."""
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP)
    return file


@pytest.fixture
def train_here(monkeypatch):
    """Notebooks of a study train in this process instead of in kernels, and its report is an empty notebook.

    The fixture is a list of the parameters of all notebooks that have run, which are trained as the notebooks do it.
    """
    import nbformat

    from neuronsplit.study import run
    from neuronsplit.study.grid import TYPES
    from neuronsplit.study.store import load_or_run

    kinds, parameters_of_all = {kind.notebook: kind for kind in TYPES.values()}, []

    def execute_all(jobs, workers, scheduler=""):
        for n, (notebook, out, parameters) in enumerate(jobs):
            parameters_of_all.append(parameters)
            experiments = [kinds[notebook.stem](**fields) for fields in parameters["experiments"]]
            try:
                load_or_run(experiments, parameters["seeds"], parameters["folder"])
                yield n, None
            except RuntimeError as error:
                yield n, f"{out}: RuntimeError: {error}"

    def execute(notebook, out, parameters):
        parameters_of_all.append(parameters)
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A report")]), out)

    monkeypatch.setattr(run, "execute_all", execute_all)
    monkeypatch.setattr(run, "execute", execute)
    return parameters_of_all
