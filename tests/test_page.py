"""The page of a report: one file in a fixed order, which needs nothing from the net, with tables that sort."""

import json
import re
import shutil
import subprocess
from html import escape

import papermill
import pytest
from bs4 import BeautifulSoup  # which nbconvert needs too
from synthetic import study_table

from neuronsplit.analysis.files import write_table
from neuronsplit.locations import NOTEBOOKS
from neuronsplit.study.run import page_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FAILED = "bad: failed: ZeroDivisionError: <on purpose>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a study, of which one experiment failed."""
    folder = tmp_path_factory.mktemp("page")
    table = study_table(["no-split", "random", "max-loss"], n_seeds=6)
    write_table(table, folder / "table.parquet", {"study": "mine", "unfinished": [FAILED]})
    out, parameters = folder / "report.ipynb", {"table": str(folder / "table.parquet"), "title": "mine"}
    papermill.execute_notebook(NOTEBOOKS / "report.ipynb", out, parameters, progress_bar=False)
    return page_of(out, "mine")


def parsed(page):
    return BeautifulSoup(page, "html.parser")


def test_the_answer_comes_first_and_provenance_last(page):
    parts = ["the control with the final", "Not all experiments have finished", "At the same seed", "<img", "<table"]
    parts += [escape(FAILED), "What produced"]
    body = page[page.index("<body") :]
    found = [body.index(part) for part in parts]
    assert found == sorted(found) and body.rindex("<img") < body.index("<table")
    ids = [body.index(f'id="{name}"') for name in ("All-numbers", "What-ran", "Provenance")]
    assert ids[0] < body.index("<table") and body.rindex("<table") < ids[1] < ids[2]


def test_nothing_on_the_page_comes_from_elsewhere(page):
    tree = parsed(page)
    sources = [tag.get(name) for name in ("src", "srcset", "data", "poster") for tag in tree.find_all(**{name: True})]
    assert len(sources) > 5 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert tree.find_all(["link", "iframe", "object", "embed", "base"]) == []
    (script,) = tree.find_all("script")
    assert not script.attrs and not re.search(r"import|fetch|http|//\w", script.string)
    styles = re.sub(r"/\*.*?\*/", "", "\n".join(style.string for style in tree.find_all("style")), flags=re.S)
    assert "@import" not in styles and not re.search(r"url\((?!['\"]?data:)", styles)


def test_the_page_is_described_and_made_for_any_width(page):
    tree = parsed(page)
    assert tree.html["lang"] == "en" and tree.title.string == "mine" and "@media print" in page
    assert tree.find("meta", attrs={"name": "viewport"})["content"].startswith("width=device-width")
    alts = [image["alt"] for image in tree.find_all("img")]
    assert len(alts) > 5 and all("seed" in alt for alt in alts)
    links = {link["href"] for link in tree.main.find_all("a", href=True) if link.string != "¶"}
    assert links == {"#All-numbers", "#What-ran", "#Provenance"}
    assert {link.removeprefix("#") for link in links} <= {tag["id"] for tag in tree.find_all(id=True)}


def test_every_table_has_a_row_of_names_to_sort_by(page):
    tables = parsed(page).find_all("table")
    assert len(tables) == 8  # two, and three differences each to the control and to `random`
    for table, n_rows in zip(tables, [3, 3, 2, 2, 2, 1, 1, 1]):
        names, rows = table.thead.find_all("tr")[-1].find_all("th"), table.tbody.find_all("tr")
        assert len(rows) == n_rows and all(len(row.find_all(["th", "td"])) == len(names) for row in rows)


PROBE = """<script>
const first = document.querySelector("table"), seen = [];
const names = () => [...first.tBodies[0].rows].map((row) => row.cells[0].textContent.trim());
const click = (n) => { first.querySelectorAll("th button")[n].click(); seen.push(names()); };
seen.push(names()); click(1); click(1); click(0); click(2); click(2);
const sorted = [...first.querySelectorAll("th[aria-sort]")].map((head) => head.getAttribute("aria-sort"));
const requests = performance.getEntriesByType("resource").map((entry) => entry.name);
const wide = document.documentElement.scrollWidth > innerWidth;
document.title = JSON.stringify({seen, sorted, wide, requests: requests.filter((name) => !name.startsWith("data:"))});
</script>"""


def numbers_in(page, column):
    """The number with which each cell of a column of the first table begins, by the name of its row."""
    rows = [row.find_all(["th", "td"]) for row in parsed(page).table.tbody.find_all("tr")]
    texts = {cells[0].text.strip(): cells[column].text.replace("−", "-").split() for cells in rows}
    return {name: float(words[0]) for name, words in texts.items() if words}


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("size", ["1280,900", "390,844"])
def test_tables_sort_in_a_browser_without_errors_or_requests(page, size, tmp_path):
    """A script that clicks on names of columns is added to the page, and writes what it saw into the title."""
    file = tmp_path / "page.html"
    file.write_text(page.replace("</html>", PROBE + "</html>"), encoding="utf-8")
    options = [f"--window-size={size}", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command = [CHROMIUM, *options, f"--user-data-dir={tmp_path}/profile", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120)
    found = json.loads(parsed(done.stdout).title.string)
    as_made, up, down, by_name, worst, best = found["seen"]
    accuracy, difference = numbers_in(page, 1), numbers_in(page, 2)
    assert up == sorted(as_made, key=accuracy.get) and down == up[::-1]
    assert by_name == ["max-loss", "no-split", "random"]
    others = sorted(difference, key=difference.get)
    assert worst == [*others, "no-split"] and best == [*others[::-1], "no-split"]  # which has no difference to itself
    assert found["sorted"] == ["descending"] and found["requests"] == [] and not found["wide"]
    assert "CONSOLE" not in done.stderr
