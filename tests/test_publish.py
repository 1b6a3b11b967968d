"""What a public repository needs: workflows, links to Colab and Binder, and first cells that install the package."""

import importlib.util
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import jupytext
import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ADDRESS = PROJECT["urls"]["Repository"]
WORKFLOWS = {file.stem: file.read_text() for file in (ROOT / ".github" / "workflows").glob("*.yml")}
LINKED = (
    "00_start_here 01_split_a_neuron 02_grow_while_training 05_split_your_own_network 13_grow_a_language_model".split()
)


def cells(name):
    return jupytext.read(ROOT / "notebooks" / f"{name}.py").cells


def test_every_version_of_python_that_is_named_is_tested():
    named = [one.split()[-1] for one in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", one)]
    matrix = yaml.safe_load(WORKFLOWS["test"])["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == named and PROJECT["requires-python"] == f">={named[0]}"
    assert {one["target"] for one in matrix["include"]} == {"test", "test-long", "lowest", "newest", "wheel"}
    assert "macos-latest" in [one["os"] for one in matrix["include"]]


def test_the_workflows_make_what_the_makefile_makes():
    targets = set(re.findall(r"^([a-z./-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"run: make ([a-z./-]+)$", "\n".join(WORKFLOWS.values()), re.M)) <= targets
    matrix = yaml.safe_load(WORKFLOWS["test"])["jobs"]["test"]["strategy"]["matrix"]
    assert {*matrix["target"], *(one["target"] for one in matrix["include"])} <= targets


def test_an_action_has_one_version_in_all_workflows():
    used = set(re.findall(r"uses: (\S+)@(\S+)", "\n".join(WORKFLOWS.values())))
    assert len(WORKFLOWS) == 4 and len(used) == len({name for name, _ in used}) > 1


def test_the_notebooks_are_listed_from_the_folder():
    job = yaml.safe_load(WORKFLOWS["notebooks"])["jobs"]["list"]
    command = job["steps"][-1]["run"].split('"', 1)[1].rsplit('"', 1)[0].split(" >> ")[0].rstrip('"')
    listed = subprocess.run(["bash", "-c", f'echo "{command}"'], cwd=ROOT / "notebooks", capture_output=True, text=True)
    names = yaml.safe_load(listed.stdout.removeprefix("names="))
    assert names == sorted(file.name for file in (ROOT / "notebooks").glob("*.ipynb"))


def test_the_address_is_the_same_everywhere():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == ADDRESS
    texts = [*(ROOT / "notebooks").glob("*.py"), *(ROOT / "notebooks").glob("*.ipynb"), ROOT / "README.md"]
    found = {one for file in texts for one in re.findall(r"github(?:\.com)?/([\w-]+/neuronsplit)", file.read_text())}
    assert found == {ADDRESS.removeprefix("https://github.com/")}


@pytest.mark.parametrize("name", LINKED)
def test_a_notebook_links_to_itself_on_colab_and_binder(name):
    repository, text = ADDRESS.removeprefix("https://github.com/"), cells(name)[0].source
    assert f"](https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}.ipynb)" in text
    assert f"](https://mybinder.org/v2/gh/{repository}/main?labpath=notebooks%2F{name}.ipynb)" in text


def test_the_first_cells_are_the_same_and_no_other_notebook_has_one():
    first = {file.stem: next(c.source for c in cells(file.stem) if c.cell_type == "code")
             for file in (ROOT / "notebooks").glob("*.py")}  # fmt: skip
    install = {name: source for name, source in first.items() if "find_spec" in source}
    assert sorted(install) == LINKED and len(set(install.values())) == 1


@pytest.mark.parametrize("is_there", [True, False])
def test_the_first_cell_fetches_the_project_only_where_the_package_is_missing(is_there, tmp_path, monkeypatch):
    calls = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if is_there else None)

    def run(words, check):
        calls.append(words)
        if words[0] == "git":
            os.mkdir(words[-1].rsplit("/", 1)[1])

    monkeypatch.setattr(subprocess, "run", run)
    exec(next(c.source for c in cells(LINKED[0]) if c.cell_type == "code"), {})
    assert (len(calls), Path.cwd().name) == ((0, tmp_path.name) if is_there else (2, "neuronsplit"))
    assert is_there or (calls[0][-1] == ADDRESS and calls[1][1:] == ["-m", "pip", "install", "--quiet", "."])


def test_make_address_changes_it_everywhere(tmp_path):
    for name in ("Makefile", "pyproject.toml", "CITATION.cff", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    subprocess.run(["make", "address", "ADDRESS=someone/neuronsplit"], cwd=tmp_path, check=True, capture_output=True)
    old = ADDRESS.removeprefix("https://github.com/")
    texts = {file: file.read_text() for file in tmp_path.rglob("*") if file.is_file()}
    assert not [file for file, text in texts.items() if old in text or file.suffix == ".old"]
    assert sum("someone/neuronsplit" in text for text in texts.values()) == 3 + 2 * len(LINKED)
