"""Files and parameters from other people are data: nothing in them is executed.

The one exception is a Python file that a study file names as its `extensions`. What Parquet files can hold is tested in
test_files.py.
"""

import ast
import json
import pickle
import zipfile

import nbformat
import pytest
import torch
import yaml

import neuronsplit as ns
from neuronsplit.analysis.files import read_results
from neuronsplit.experiments.experiment import Experiment
from neuronsplit.locations import NOTEBOOKS, ROOT
from neuronsplit.study import executor, grid, progress, store
from neuronsplit.study.cli import main

TINY = Experiment(splits=1, epochs=2, width=3)
UNSAFE = {
    "eval", "exec", "compile", "__import__", "os.system", "pickle.load", "pickle.loads", "torch.load", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "pd.read_pickle", "np.load", "joblib.load", "marshal.loads",
}  # fmt: skip


@pytest.mark.parametrize("file", sorted((ROOT / "neuronsplit").rglob("*.py")), ids=lambda file: file.stem)
def test_the_package_calls_nothing_that_executes_what_it_reads(file):
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    safe = {"allow_pickle=False"}  # np.load then reads numbers alone
    names = {ast.unparse(call.func) for call in calls if not safe & {ast.unparse(k) for k in call.keywords}}
    assert not names & UNSAFE
    if file.stem != "extensions":
        assert not {name for name in names if name.startswith(("runpy.", "importlib.util"))}


def test_the_package_finds_its_own_files_to_look_at():
    assert len(list((ROOT / "neuronsplit").rglob("*.py"))) > 30


class Bomb:
    """What someone could put into a pickle."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


def test_no_pickle_is_read_from_results(tmp_path, monkeypatch, capsys):
    store.load_or_run([TINY], [0], tmp_path)
    (file,) = tmp_path.rglob("*.parquet")
    for name in ("X.pkl", "X.pt", "table.pkl", "X.parquet.pkl", ".X.json", ".X.lock"):
        (file.parent / name.replace("X", file.stem)).write_bytes(pickle.dumps(Bomb()))
    (file.parent / "bomb.parquet").write_bytes(pickle.dumps(Bomb()))
    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("a pickle was read"))
    held, (problem,) = read_results(tmp_path)
    assert list(held) == [TINY.id] and "bomb.parquet is damaged" in problem
    assert progress.read(file.parent) == {}
    (tmp_path / "mine.yaml").write_text("splits: 1\nepochs: 2\nwidth: 3\nn_seeds: 1")
    assert main(["status", str(tmp_path / "mine.yaml"), "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("random: done\nleft alone: ")


TEXTS = [
    '"); import os; os.system("touch HACKED") #', "__import__('os').system('touch HACKED')", "'''\n1 / 0\n'''", '"""',
    "\\", "{run}", "{{", "größe – 大", "a\nb", "%run x", "!touch HACKED", "# %%", "None", "\u2028",
]  # fmt: skip


def test_a_parameter_is_never_code_and_arrives_as_it_was_given(tmp_path):
    """As it reaches a notebook through papermill: texts, and lists of dictionaries of them."""
    hacked, source = tmp_path / "hacked", tmp_path / "in.ipynb"
    texts = [text.replace("HACKED", str(hacked)) for text in TEXTS]
    cells = [nbformat.v4.new_code_cell("", metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell("import json; print(json.dumps([one, many, rate, texts]))")]
    metadata = {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), source)
    given = {"one": texts[0], "many": [{"policy": text, "width": 3} for text in texts], "rate": 0.05000001}
    given["texts"] = texts
    assert executor.execute(source, tmp_path / "out.ipynb", given) is None
    outputs = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs
    assert json.loads(outputs[0].text) == list(given.values()) and not hacked.exists()


def test_a_bad_value_in_the_experiment_notebook_is_an_error_and_not_code(tmp_path):
    hacked = tmp_path / "hacked"
    text = TEXTS[0].replace("HACKED", str(hacked))
    parameters = {"experiments": [{"dataset": text}], "seeds": [0], "folder": str(tmp_path)}
    trouble = executor.execute(NOTEBOOKS / "03_experiment.ipynb", tmp_path / "out.ipynb", parameters)
    assert f"ValueError: dataset {text!r}: allowed are " in trouble and not hacked.exists()


def test_nothing_is_made_of_a_study_file_but_names_and_numbers(tmp_path):
    hacked, file = tmp_path / "hacked", tmp_path / "mine.yaml"
    text = f"width: !!python/object/apply:os.system ['touch {hacked}']"
    yaml.unsafe_load(text)
    assert hacked.exists()  # so it would
    hacked.unlink()
    for bad in (
        text,
        f"policy: !!python/object/apply:os.system ['touch {hacked}']",
        "width: !!python/name:os.system ''",
        f"!!python/object/apply:os.system ['touch {hacked}']",
        f"? !!python/object/apply:os.system [x]\n: {text}",
    ):
        file.write_text(bad)  # fmt: skip
        with pytest.raises(ValueError, match="^/.*mine.yaml"):
            grid.read_study(str(file))
    assert not hacked.exists()


def test_a_zip_that_would_leave_its_folder_does_not(tmp_path):
    place = tmp_path / "deep"
    place.mkdir()
    with zipfile.ZipFile(place / "study.zip", "w") as archive:
        archive.writestr("../outside.parquet", b"PAR1")
    with pytest.raises(ValueError, match="holds no results"):
        ns.read_table(place / "study.zip")
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["deep", "study.zip"]
