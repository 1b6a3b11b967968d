import re
import shutil
import subprocess

import nbformat
import pytest

from neuronsplit.analysis.tables import last_epoch
from neuronsplit.study import status
from neuronsplit.study.cli import main
from neuronsplit.study.experiment import Experiment
from neuronsplit.study.index import THUMBNAIL, outputs, write_index
from neuronsplit.study.store import load

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIZES = "<script>document.title = [...document.images].map(i => i.naturalWidth + ' ' + i.naturalHeight)</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a study that has run."""
    folder = tmp_path_factory.mktemp("study")
    tiny = {"policy": "[no-split, random]", "dataset": "digits", "splits": 1, "epochs": 2, "n_seeds": 2}
    (folder / "mine.yaml").write_text("\n".join(f"{name}: {value}" for name, value in tiny.items()))
    assert main(["run", str(folder / "mine.yaml"), "--folder", str(folder)]) == 0
    return folder


def planned():
    return [Experiment(p, "digits", splits=1, epochs=2, n_seeds=2) for p in ("no-split", "random")]


def test_the_page_has_every_experiment_with_its_numbers_and_links_that_lead_somewhere(folder):
    page = (folder / "index.html").read_text()
    for experiment in planned():
        last = last_epoch(load(experiment, folder))
        assert f'<td>{experiment.policy}</td><td class="done">done</td>' in page
        assert f"{last.test_accuracy.mean():.4f}</td>" in page and f"{last.test_loss.mean():.4f}</td>" in page
    links = re.findall('href="([^"]+)"', page)
    assert len(links) == 1 + 3 * 2 and all((folder / link).exists() for link in links)


def test_a_failure_is_shown_and_nothing_in_it_is_taken_for_html(folder, tmp_path):
    (experiment,) = planned()[:1]
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("error", ename="E", evalue="<b>bad</b>")])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{experiment.name}.ipynb")
    write_index("mine", status.states([experiment], tmp_path), tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert '<td class="failed">failed: E: &lt;b&gt;bad&lt;/b&gt;</td>' in page


def test_a_damaged_notebook_has_no_outputs(tmp_path):
    (tmp_path / "cut.ipynb").write_text('{"cells": [')
    assert outputs(tmp_path / "cut.ipynb") == outputs(tmp_path / "none.ipynb") == []


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_shows_the_page_with_its_pictures(folder, tmp_path):
    """Also where the folder has been moved."""
    moved = shutil.copytree(folder, tmp_path / "moved")
    page = moved / "index.html"
    page.write_text(page.read_text() + SIZES)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    dom = subprocess.run([*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=60).stdout
    sizes = re.search("<title>(.*)</title>", dom)[1].split(",")
    assert len(sizes) == 2
    for size in sizes:
        width, height = map(int, size.split())
        assert width == THUMBNAIL[0] or height == THUMBNAIL[1]
