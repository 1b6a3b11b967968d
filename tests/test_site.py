"""The site has every notebook and every public name, and its pages need nothing from the net."""

import ast
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

import pytest
from prose import markdown_of, sentences, too_long

from neuronsplit.locations import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
NOTEBOOKS = {file.stem for file in (ROOT / "notebooks").glob("*.ipynb")}
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}


class Page(HTMLParser):
    """What a page loads and links to, and the places in it that links can lead to."""

    def __init__(self, file: Path):
        super().__init__()
        self.loaded, self.links, self.places = set(), set(), {""}
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if (tag, name) in LOADED:
                self.loaded.add(value)
            elif (tag, name) == ("a", "href"):
                self.links.add(value)
            elif name == "id":
                self.places.add(value)


def listed() -> set[str]:
    """The names that an editor reads from the stub."""
    stub = ast.parse((ROOT / "neuronsplit" / "__init__.pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom) and node.level]
    return {alias.name for node in imports for alias in node.names}


def test_every_notebook_has_one_place_in_the_menu():
    entries = re.findall(r"^notebooks/(\w+)$", (ROOT / "docs" / "index.md").read_text(), re.M)
    assert len(NOTEBOOKS) > 15 and sorted(entries) == sorted(NOTEBOOKS)


def test_every_public_name_has_one_place():
    page = (ROOT / "docs" / "api.md").read_text()
    documented = re.findall(r"^(?:\.\. auto\w+::|  ) *neuronsplit\.(\w+)$", page, re.M)
    assert listed() <= set(documented) and len(set(documented)) == len(documented)


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.stem)
def test_sentences_of_the_pages_are_short(file):
    text = re.sub(r"^:.*$", "", markdown_of(file), flags=re.M)
    assert too_long(sentences(text)) == []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, as `make site` builds it with warnings as errors, and its pages."""
    if not (ROOT / ".venv" / "bin" / "sphinx-build").exists():
        pytest.skip("no Sphinx in .venv: make site installs it")
    folder = tmp_path_factory.mktemp("site")
    command = ["make", "-o", ".venv/site", "site", f"SITE={folder}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html", {file: Page(file) for file in (folder / "html").rglob("*.html")}


@pytest.mark.long
def test_the_site_is_complete(site):
    folder, pages = site
    assert {f"notebooks/{name}.html" for name in NOTEBOOKS} <= {str(file.relative_to(folder)) for file in pages}
    described = [file for file in pages if file.parent == folder / "api" or file == folder / "api.html"]
    places = {place.removeprefix("module-") for file in described for place in pages[file].places}
    assert {f"neuronsplit.{name}" for name in listed()} <= places


@pytest.mark.long
def test_pages_load_nothing_from_the_net(site):
    loaded = {name for page in site[1].values() for name in page.loaded}
    assert loaded and {name for name in loaded if re.match(r"(\w+:)?//", name)} == set()


@pytest.mark.long
def test_links_within_the_site_lead_somewhere(site):
    _, pages = site
    links = [(file, urlsplit(link)) for file, page in pages.items() for link in page.links]
    within = [(file, url) for file, url in links if not url.scheme and not url.netloc]
    assert len(within) > 1000
    assert [(file.name, url.geturl()) for file, url in within if not leads_somewhere(file, url, pages)] == []


def leads_somewhere(file: Path, url: SplitResult, pages: dict[Path, Page]) -> bool:
    """Whether there is such a file, and in it such a place."""
    target = (file.parent / unquote(url.path)).resolve() if url.path else file
    return target.exists() and (not url.fragment or unquote(url.fragment) in pages[target].places)
