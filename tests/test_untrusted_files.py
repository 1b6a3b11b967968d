"""Files and parameters from other people are data: nothing in them is executed.

The one exception is a Python file that a study file names as its `extensions`.
"""

import ast
import json
import pickle
from dataclasses import asdict

import pytest
import torch
import yaml

from neuronsplit.study import index, status, store
from neuronsplit.study import run as batch
from neuronsplit.study.experiment import Experiment
from neuronsplit.study.store import ROOT

TINY = Experiment(splits=1, epochs=2, n_seeds=1, width=3)
UNSAFE = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "pickle.load",
    "pickle.loads",
    "torch.load",
    "yaml.load",
}
UNSAFE |= {"yaml.unsafe_load", "yaml.full_load", "pd.read_pickle", "np.load", "joblib.load", "marshal.loads"}


@pytest.mark.parametrize("file", sorted((ROOT / "neuronsplit").rglob("*.py")), ids=lambda file: file.stem)
def test_the_package_calls_nothing_that_executes_what_it_reads(file):
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    safe = {"allow_pickle=False"}  # np.load then reads numbers alone
    names = {ast.unparse(call.func) for call in calls if not safe & {ast.unparse(k) for k in call.keywords}}
    assert not names & UNSAFE


class Bomb:
    """What someone could put into a pickle."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


def test_no_pickle_is_read_from_results(tmp_path, monkeypatch):
    store.obtain(TINY, tmp_path)
    for name in (f"{TINY.name}.pkl", f"{TINY.name}.pt", "table.pkl", f"{TINY.name}.csv.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("a pickle was read"))
    store.read_results(tmp_path)
    index.write_index("mine", status.states([TINY], tmp_path), tmp_path)
    (tmp_path / f"{TINY.name}.csv").write_bytes(pickle.dumps(Bomb.__reduce__))
    assert status.states([TINY], tmp_path)[TINY].startswith("damaged")


def test_the_package_finds_its_own_files_to_look_at():
    assert len(list((ROOT / "neuronsplit").rglob("*.py"))) > 30


@pytest.mark.parametrize(
    "text", ['"); import os; os.system("touch HACKED") #', "__import__('os').system('touch HACKED')"]
)
def test_a_parameter_is_never_code(text, tmp_path):
    """As it reaches a notebook through papermill, past the checks of the command line."""
    hacked = tmp_path / "hacked"
    arguments = asdict(TINY) | {"folder": str(tmp_path), "dataset": text.replace("HACKED", str(hacked))}
    trouble = batch.papermill(batch.NOTEBOOKS / "03_experiment.ipynb", tmp_path / "out.ipynb", arguments)
    assert "ValueError: dataset " in trouble and not hacked.exists()


def test_a_study_file_is_loaded_safely(tmp_path):
    hacked, file = tmp_path / "hacked", tmp_path / "mine.yaml"
    text = f"width: !!python/object/apply:os.system ['touch {hacked}']"
    yaml.unsafe_load(text)
    assert hacked.exists()  # so it would
    hacked.unlink()
    file.write_text(text)
    with pytest.raises(ValueError, match="is not YAML"):
        batch.plan(str(file), {})
    assert not hacked.exists()


def test_only_a_python_file_is_imported_as_extensions(tmp_path):
    (tmp_path / "own.pyc").write_bytes(b"")
    for file in ("own.pyc", "own.pkl", "https://example.org/own.py"):
        (tmp_path / "mine.yaml").write_text(f"extensions: {file}")
        with pytest.raises(ValueError, match="^extensions .*: allowed are Python files that exist$"):
            batch.plan(str(tmp_path / "mine.yaml"), {})


def test_a_zip_that_would_leave_its_folder_does_not(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.writestr("../outside-0000000a.json", json.dumps({"sha256": ""}))
    with pytest.raises(ValueError, match="holds no finished experiment|is damaged|does not exist"):
        store.read_results(tmp_path / "study.zip")
    assert not (tmp_path.parent / "outside-0000000a.json").exists()


def test_html_in_an_error_is_not_html_in_the_index(tmp_path):
    states = {TINY: "failed: ValueError: <script>alert(1)</script>"}
    index.write_index("<b>", states, tmp_path)
    assert "<script>" not in (tmp_path / "index.html").read_text()
