"""Run the notebooks of a study in this process, without kernels, for tests of what is run and not of how."""

import nbformat

from neuronsplit.study import executor
from neuronsplit.study.grid import TYPES
from neuronsplit.study.store import load_or_run


def train_in_process(monkeypatch) -> list[dict]:
    """Train in this process what notebooks would train, and let an empty notebook be the report.

    Returns a list, to which the parameters of each notebook that runs are added.
    """
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

    monkeypatch.setattr(executor, "execute_all", execute_all)
    monkeypatch.setattr(executor, "execute", execute)
    return parameters_of_all
